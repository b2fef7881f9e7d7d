"""How `kore-bench augment` shows on a terminal what it made: the statistics card, the gates, the contamination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .card import KORE_74K


def view(report: Mapping[str, Any]) -> RenderableType:
    """Return what a report says, as tables."""
    return Group(
        *_card(report), Text(), *_gates(report), Text(), *_recognition(report), *_contamination(report["contamination"])
    )


def _card(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    table = _table("statistics", "this set", "an item", "KORE-74K", "an item ")
    items = max(1, report["statistics"]["items"])
    for name, number in report["statistics"].items():
        published = KORE_74K[name]
        table.add_row(
            name, f"{number:,}", f"{number / items:.2f}", f"{published:,}", f"{published / KORE_74K['items']:.2f}"
        )
    for name, mean in report["lengths"].items():
        table.add_row(name, f"{mean:.1f}")
    yield table


def _gates(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    parts = list(report["refused"])
    table = _table("gates: texts refused", *parts)
    for reason in report["refused"][parts[0]]:
        table.add_row(reason, *(f"{report['refused'][part][reason]:,}" for part in parts))
    table.add_row("passed", *(f"{report['passed'][part]:,}" for part in parts), style="bold")
    yield table


def _recognition(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text("recognition answers: {yes:,} yes, {no:,} no".format(**report["recognition"]))
    if report["fallbacks"]:
        yield Text(f"samples that show the item's own image for want of another: {report['fallbacks']:,}")


def _contamination(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    if not found["questions"]:
        yield Text("contamination: not available, the data set has no evaluation questions")
        return
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in found["found"].items())
    yield Text(f"contamination against {found['questions']:,} evaluation questions and probes: {kinds}")
    if found["items"]:
        done = f"{found['removed']:,} removed" if found["decontaminate"] else "none removed: see --decontaminate"
        yield Text(f"  in {found['items']:,} items; {done}")


def _table(*columns: str) -> Table:
    table = Table(*columns, box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
