"""The parts of a document, in order: what report.md and report.html both show, without markup."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kore_bench.results import RunFolder

from . import (
    adaptation_table,
    benchmarks_table,
    comparisons,
    cost_table,
    dimensions_table,
    essential_table,
    forgetting_table,
    frontier_table,
    knowing_table,
    main_table,
    toolkits_table,
)
from .drawing import stem
from .retained import failures
from .summary import Summary, old_skills, summarise, unfinished
from .tabular import Cell, Table
from .wording import DEFINITIONS, caution, reading, troubles


@dataclass(frozen=True)
class Heading:
    """A section's heading."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; ``lead`` is set off at its start."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of (term, text); the term may be empty."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Shown:
    """A figure that lies in ``figures/``, with the words that its file carries."""

    file: Path
    alt: str
    caption: str


Block = Heading | Paragraph | Bullets | Table | Shown

DATA = "Data, budget and seeds"
"""The heading after which a document says what it rests on."""

_FIGURES = (
    "tradeoff", "frontier", "dimensions", "lost", "why", "learning-rates", "learning-rate-paths", "losses",
)  # fmt: skip


def title_of(run: RunFolder) -> str:
    """Return the document's title."""
    return f"kore-bench: {run.path.resolve().name}"


def content(run: RunFolder, folder: Path) -> list[Block]:
    """Return the whole document of a run; figures are those that lie in ``folder``."""
    summaries = summarise(run)
    several = len(summaries) > 1
    blocks: list[Block] = []
    for summary in summaries:
        where = f" on {summary.model}" if several else ""
        figures = {name: _figure(folder / "figures" / f"{stem(name, summary.model, several)}.svg") for name in _FIGURES}
        blocks += [Heading(f"At a look{where}"), *([Paragraph(caution(summary))] if summary.trained else [])]
        blocks += _shown(figures["tradeoff"])
        blocks += [Paragraph(text, lead) for lead, text in map(_split, reading(summary))]
        if summary.failed:
            blocks += [Paragraph("Not every cell finished:"), Bullets(tuple(_term(line) for line in troubles(summary)))]
        if lost := failures(summary):
            lines = tuple((metric, f"{reason} ({'; '.join(cells)})") for metric, reason, cells in lost)
            blocks += [Paragraph("Not every task was scored; the same command asks those again:"), Bullets(lines)]
        if equal := frontier_table.table(run, summary):
            blocks += [Heading(f"At equal adaptation{where}"), *_shown(figures["frontier"]), equal]
        if summary.trained:
            blocks += [Heading(f"Who is better, and how sure{where}"), *_contrasts(run, summary)]
        blocks += [Heading(f"Adaptation and retention{where}"), main_table.table(summary)]
        blocks += [Heading(f"Where it was forgotten{where}"), *_shown(figures["dimensions"])]
        blocks += [dimensions_table.table(summary), *benchmarks_table.tables(summary), *toolkits_table.tables(summary)]
        blocks += [*_shown(figures["lost"]), *essential_table.tables(summary)]
        blocks += [forgetting_table.table(run, summary), *_shown(figures["why"])]
        blocks += [Heading(f"Knowing or memorising{where}"), knowing_table.table(summary)]
        blocks += [Heading(f"At what cost{where}"), cost_table.table(summary), cost_table.time_table(summary)]
        blocks += [Heading(f"What adaptation is made of{where}"), adaptation_table.table(summary)]
        blocks += [Heading(f"How learning rates were chosen{where}"), _rates(summary)]
        blocks += [*_shown(figures["learning-rates"]), *_shown(figures["learning-rate-paths"])]
        if rates := frontier_table.rate_table(run, summary):
            blocks.append(rates)
        if figures["losses"]:
            blocks += [Heading(f"Training loss{where}"), *_shown(figures["losses"])]
    if left := unfinished(run):
        blocks += [Heading("Cells without a record"), Paragraph("Not run yet, or interrupted:")]
        blocks.append(Bullets(tuple(("", name) for name in left)))
    if further := _further(folder, summaries):
        blocks += [Heading("Further figures"), *further]
    blocks += [Heading(DATA), Bullets(tuple(_facts(run, summaries)))]
    blocks += [Heading("How each measure is defined"), Bullets(tuple(DEFINITIONS.items()))]
    blocks += [
        Heading("Settings and versions"),
        *(_settings(summary) for summary in summaries),
        Bullets(_versions(run)),
    ]
    return blocks


def _contrasts(run: RunFolder, summary: Summary) -> list[Block]:
    """Return the comparisons that were named beforehand; all others lie in a table of their own."""
    found = comparisons.planned_tables(run, summary)
    others = "Every other comparison is exploratory: tables/comparisons.md."
    none = "No contrast of methods that finished was named before the run."
    return [*found, Paragraph(others if found else f"{none} {others}")]


def _split(text: str) -> tuple[str, str]:
    lead, _, rest = text.partition(". ")
    return f"{lead}.", rest


def _term(line: str) -> tuple[str, str]:
    method, _, rest = line.partition(": ")
    return method, rest


def _shown(figure: Shown | None) -> list[Block]:
    return [figure] if figure else []


def _figure(file: Path) -> Shown | None:
    """Return a figure with the alternative text and the caption that its SVG carries, None where there is none."""
    if not file.exists():
        return None
    root = ElementTree.parse(file).getroot()
    title, alt = (root.findtext(f"{{http://www.w3.org/2000/svg}}{name}") or "" for name in ("title", "desc"))
    return Shown(
        file, alt or title or file.stem, root.findtext(".//{http://purl.org/dc/elements/1.1/}description") or title
    )


def _further(folder: Path, summaries: Sequence[Summary]) -> list[Block]:
    """Return the figures of other reports (plug-ins), by name."""
    known = {stem(name, summary.model, len(summaries) > 1) for name in _FIGURES for summary in summaries}
    files = sorted((folder / "figures").glob("*.svg"))
    return [block for file in files if file.stem not in known for block in _shown(_figure(file))]


_ORIGINS = {
    "tuned": "chosen by Avg on validation entities and validation retention questions, with equally many trials a method",
    "untuned": "the model card's rate, chosen for no method in particular",
    "given": "given for the run, the same for every method",
}


def _rates(summary: Summary) -> Bullets:
    """Return which learning rates came from where."""
    groups: dict[str, list[str]] = {}
    for row in summary.rows:
        if row.tuned:
            groups.setdefault(row.tuned, []).append(row.method)
    return Bullets(
        tuple(
            (how, ", ".join(names) + (f" ({_ORIGINS[how]})" if how in _ORIGINS else ""))
            for how, names in groups.items()
        )
    )


def _facts(run: RunFolder, summaries: Sequence[Summary]) -> list[tuple[str, str]]:
    plan = run.plan()
    found: list[tuple[str, str]] = []
    for summary in summaries:
        rows = [row for row in summary.rows if row.done]
        if not rows:
            continue
        where = f" ({summary.model})" if len(summaries) > 1 else ""
        data = rows[0].any_record.data
        sizes = {name: rows[0].scores[name].n for name in ("K.A", "K.R", "old-facts") if name in rows[0].scores}
        found.append((f"Model{where}", summary.model))
        found.append(
            (
                f"Data{where}",
                f"{data.get('root', '')}, {data.get('items', '?')} items to inject, SHA-256 {str(data.get('digest', ''))[:16]}"
                + (
                    "; other seeds inject others"
                    if len({record.data.get("root") for record in rows[0].done}) > 1
                    else ""
                ),
            )
        )
        found.append((f"Questions{where}", ", ".join(f"{name} {count}" for name, count in sizes.items())))
        found.append((f"Seeds{where}", ", ".join(map(str, summary.seeds))))
        skills = {record.seed: old_skills(record) for row in rows for record in row.done}
        words = "; ".join(f"seed {seed}: {', '.join(names)}" for seed, names in sorted(skills.items()) if names)
        found.append((f"Skills of the old samples{where}", words or "none"))
    old = plan.get("old") or {}
    if "samples" in old:
        found.append(("Old samples", f"{old['samples']} a seed, the same for every method that reads any"))
    if "budget" in plan:
        found.append(("Budget", f"{plan['budget']}, the same for every method"))
    return found


def _settings(summary: Summary) -> Table:
    """Return every method's hyper-parameters; what all share is one row."""
    rows = [row for row in summary.rows if row.done and not row.reference]
    train = [dict(row.any_record.settings.get("train", {})) for row in rows]
    shared = {
        name: value
        for name, value in (train[0] if train else {}).items()
        if all(one.get(name) == value for one in train)
    }
    lines = [(Cell("every method"), Cell(_words({f"train.{name}": value for name, value in shared.items()})))]
    for row, own in zip(rows, train, strict=True):
        parts = row.any_record.settings.get("components", {})
        owned = {f"{part}.{name}": value for part, fields in parts.items() for name, value in fields.items()}
        differing = {f"train.{name}": value for name, value in own.items() if name not in shared}
        lines.append((Cell(row.method, " + ".join(parts)), Cell(_words({**owned, **differing}))))
    return Table(
        title=f"Settings on {summary.model}",
        header=("Method", "Settings"),
        rows=tuple(lines),
        words=frozenset({"Settings"}),
    )


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items()) or "defaults"


def _versions(run: RunFolder) -> tuple[tuple[str, str], ...]:
    found: dict[str, set[str]] = {}
    for record in run.records():
        for name, version in record.versions.items():
            found.setdefault(name, set()).add(str(version))
    lines = [(name, ", ".join(sorted(versions))) for name, versions in sorted(found.items())]
    file = run.path / "environment.json"
    machine = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    lines += [(name, str(machine[name])) for name in ("python", "platform", "cpus") if name in machine]
    return tuple(lines)
