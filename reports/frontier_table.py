"""Retention at equal adaptation, read off each method's frontier, and what a point of K.R is worth in HARS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kore_bench.measures import hars_exchange
from kore_bench.report import Report
from kore_bench.results import RunFolder

from .curves import Point, at_levels, frontier, known_points, missing, retention_at
from .summary import Row, Summary, score_of, summarise
from .tabular import DASH, Cell, Table, data_frame, identity, name_cell, write_table
from .trials import tuned

LEVELS = tuple(range(10, 100, 10))
"""Levels of K.A, in percent, at which retention is read off."""


def exchange(row: Row) -> float | None:
    """Return how many points of K.A HARS gives for one of K.R where this method stands."""
    if row.base is None or not {"K.A", "K.R"} <= row.scores.keys() & row.base.scores.keys():
        return None
    at, base = row.scores, row.base.scores
    return hars_exchange(at["K.A"].value, at["K.R"].value, base["K.A"].value, base["K.R"].value)


def table(run: RunFolder, summary: Summary) -> Table | None:
    """Return K.R at every level of K.A that a method reaches, None where the run has no frontier."""
    found = {row.method: frontier(run, row) for row in summary.trained}
    if not any(found.values()):
        return None
    highest = max(point.ka for points in found.values() for point in points)
    levels = [level for level in LEVELS if level <= highest]
    return Table(
        title=f"Retention at equal adaptation on {summary.model}",
        header=("Method", *(f"K.A {level}" for level in levels), "HARS rate"),
        rows=tuple(_cells(run, row, levels) for row in summary.trained),
        notes=(
            (
                "K.R where K.A is at least the column's figure, on the method's frontier: the cell's change scaled down "
                "without retraining, straight lines between the points. A dash: it never gets there, or has no frontier."
                + (" ± is the standard deviation over the seeds' own curves." if len(summary.seeds) > 1 else "")
            ),
            *sample_note(run, summary),
            "HARS rate: how many points of K.A HARS gives for one point of K.R where the method stands.",
            *(f"No frontier of {row.method}: {reason}." for row in summary.trained if (reason := missing(row))),
        ),
    )


def rate_table(run: RunFolder, summary: Summary) -> Table | None:
    """Return K.R at every level of K.A along each method's learning-rate curve, None where the run has no trials.

    The trials are those of tuning: the same method trained at several rates and asked of validation items, so that the
    figures compare with each other and not with the run's own.
    """
    found = {
        one.method: [Point(trial["learning_rate"], trial["K.A"], trial["K.R"]) for trial in one.chosen]
        for one in tuned(run, summary)
    }
    highest = max((point.ka for points in found.values() for point in points), default=0.0)
    levels = [level for level in LEVELS if level <= highest]
    if not levels:
        return None
    rows = []
    for method, points in found.items():
        kept = [retention_at(points, level) for level in levels]
        rows.append((Cell(method), *(Cell(DASH if value is None else f"{value:.1f}") for value in kept)))
    return Table(
        title=f"Retention by level of K.A over learning rates on {summary.model}, validation items",
        header=("Method", *(f"K.A {level}" for level in levels)),
        rows=tuple(rows),
        notes=(
            "K.R where K.A is at least the column's figure, along the trials of tuning by rate, straight lines between.",
            "Validation items and questions, one seed: not to be compared with the run's own figures.",
        ),
    )


def sample_note(run: RunFolder, summary: Summary) -> list[str]:
    """Return how many questions the points were asked, where it is a sample."""
    sizes = {
        (point["K.A"]["n"], point["K.R"]["n"])
        for row in summary.trained
        for record in row.done
        for point in known_points(run, record).values()
        if (score := score_of(record, "K.R")) and point["K.R"]["n"] < score.n
    }
    if not sizes:
        return []
    words = " or ".join(f"{ka} of K.A and {kr} of K.R" for ka, kr in sorted(sizes))
    what = f"a sample of {words} questions, the same for every method"
    return [f"Points between the ends: {what}, moved by what it leaves out at the ends, which are known on all."]


def _cells(run: RunFolder, row: Row, levels: Sequence[int]) -> tuple[Cell, ...]:
    found, rate = at_levels(run, row, levels), exchange(row)
    shown = []
    for level in levels:
        value, deviation = found.get(level, (None, None))
        text = DASH if value is None else f"{value:.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")
        shown.append(Cell(text))
    return (name_cell(row), *shown, Cell(DASH if rate is None else f"{rate:.1f}"))


def _figures(run: RunFolder) -> list[dict[str, object]]:
    lines: list[dict[str, Any]] = []
    for summary in summarise(run):
        for row in summary.trained:
            if not frontier(run, row):
                continue
            found, rate = at_levels(run, row, LEVELS), exchange(row)
            values: dict[str, object] = {}
            for level in LEVELS:
                value, deviation = found.get(level, (None, None))
                values[f"K.R at K.A {level}"] = "" if value is None else value
                values[f"K.R at K.A {level} sd over seeds"] = "" if deviation is None else deviation
            lines.append({**identity(row), **values, "HARS rate": "" if rate is None else rate})
    return lines


def _build(run: RunFolder, folder: Path) -> list[Path]:
    summaries = summarise(run)
    tables = [found for summary in summaries if (found := table(run, summary))]
    if not tables:
        return []
    rates = [found for summary in summaries if (found := rate_table(run, summary))]
    return write_table(folder, "frontier", [*tables, *rates], _figures(run))


REPORT = Report(
    name="frontier-table", title="Retention at equal adaptation", kind="table", build=_build,
    frame=lambda run, full: data_frame(_figures(run), full),
)  # fmt: skip
