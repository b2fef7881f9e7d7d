"""What `kore-bench show` prints: a run's plan and cells, or one cell (see `kore_bench.dossier`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kore_bench.dossier import print_cells
from kore_bench.errors import UserError
from kore_bench.lookup import Place, find_places, list_places, repeated
from kore_bench.measures import Score, avg
from kore_bench.pace import clock
from kore_bench.results import RunFolder
from kore_bench.words import facts, one_line

STYLES = {"done": "green", "failed": "bold red", "skipped": "yellow", "unreadable": "red", "unfinished": "cyan"}


def show_session(run: RunFolder, cell: str, questions: int, out: Console) -> None:
    """Print a run's overview, or one cell or all seeds of a method, with ``questions`` examples of either kind.

    Raises UserError where the folder is not a run of this version, or has no such cell.
    """
    if not run.path.is_dir():
        raise UserError(f"there is no run folder {run.path}")
    if not cell:
        _overview(run, list_places(run), out)
        return
    found = find_places(run, cell)
    if repeated(found):  # a tuning's trials: each has a folder of its own
        out.print(Text(f"{len(found)} cells of {found[0].method}; name one by the start of its folder:", "bold"))
        out.print(cells_table(found))
        return
    print_cells(run, found, questions, out)


def cells_table(places: Sequence[Place]) -> Table:
    """Return a row a cell: its figures with half the 95 % interval, its time, and what became of it."""
    trials = repeated(places)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("folder" if trials else "method", overflow="fold")
    for name in ("rate" if trials else "seed", "K.A", "K.R", "Avg", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", overflow="fold", ratio=1)
    for place in places:
        record = place.record
        adapted, kept = (record.score(name) if record else None for name in ("K.A", "K.R"))
        both = f"{avg(adapted.value, kept.value):.1f}" if adapted and kept else ""
        took = sum(record.cost.seconds.values()) if record else 0.0
        shown = Text(place.name if trials else place.method)
        which = _rate(place) if trials else str(place.seed)
        table.add_row(shown, which, _short(adapted), _short(kept), both, clock(took) if took else "", _status(place))
    return table


def _overview(run: RunFolder, places: Sequence[Place], out: Console) -> None:
    plan = run.plan()
    request = plan.get("request") or {}
    counts = Counter(place.status for place in places)
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    out.print(Text(f"{run.path}: {request.get('model', 'a model')} on {request.get('data', 'data')}", "bold"))
    out.print(facts({
        "cells": f"{len(places)}: {states}" if places else "none",
        "methods": ", ".join(dict.fromkeys(map(str, request.get("methods") or ()))),
        "tasks": ", ".join(map(str, request.get("tasks") or ())),
        "budget": str(plan.get("budget", "")),
        "old samples": _old(plan.get("old") or {}),
        "settings": ", ".join(map(str, request.get("settings") or ())),
        "made with": _environment(run),
        "report": str(run.path / "report.html") if (run.path / "report.html").exists() else "",
    }))  # fmt: skip
    out.print()
    methods = list(dict.fromkeys(place.method for place in places))
    out.print(cells_table(sorted(places, key=lambda place: (methods.index(place.method), place.seed))))


def _short(score: Score | None) -> str:
    return f"{score.value:.1f} ± {(score.high - score.low) / 2:.1f}" if score else ""


def _status(place: Place) -> Text:
    words = f"{place.status}: {one_line(place.reason)}" if place.reason else place.status
    return Text(words, STYLES["failed"] if place.reason and place.status == "done" else STYLES.get(place.status, "dim"))


def _rate(place: Place) -> str:
    train = (place.record.settings.get("train") or {}) if place.record else {}
    return f"{train['learning_rate']:g}" if "learning_rate" in train else ""


def _old(old: dict[str, Any]) -> str:
    return f"{old['samples']} from {old['skills']} skills" if {"samples", "skills"} <= old.keys() else ""


def _environment(run: RunFolder) -> str:
    try:
        found = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
        versions = [f"{name} {version}" for name, version in found.get("versions", {}).items()]
        return ", ".join([*versions, f"Python {found['python']}", str(found["platform"])])
    except (OSError, ValueError, KeyError, AttributeError):
        return ""
