"""Retention at equal adaptation, read off each method's frontier, and what a point of K.R is worth in HARS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kore_bench.measures import hars_exchange
from kore_bench.report import Report
from kore_bench.results import FRONTIER, RunFolder, whole_lines

from .summary import Row, Summary, summarise
from .tabular import DASH, Cell, Table, data_frame, identity, name_cell, write_table

LEVELS = tuple(range(10, 100, 10))
"""Levels of K.A, in percent, at which retention is read off."""


@dataclass(frozen=True)
class Point:
    """One point of a frontier: ``scale`` of the change that training made, K.A and K.R as means over seeds."""

    scale: float
    ka: float
    kr: float


def frontier(run: RunFolder, row: Row) -> list[Point]:
    """Return a method's points by scale, from the base (0) to the cells as they are (1); fewer where some are missing.

    Empty where no scale between was evaluated. A scale counts where every finished seed has it.
    """
    if row.base is None or not row.done or not {"K.A", "K.R"} <= row.scores.keys() & row.base.scores.keys():
        return []
    cells = [{line["scale"]: line for line in whole_lines(run.cell(run.name_of(one)) / FRONTIER)} for one in row.done]
    scales = sorted(set.intersection(*(set(cell) for cell in cells)))
    if not scales:
        return []

    def mean(scale: float, measure: str) -> float:
        return float(np.mean([cell[scale][measure]["value"] for cell in cells]))

    def end(scale: float, of: Row) -> Point:
        return Point(scale, of.scores["K.A"].value, of.scores["K.R"].value)

    between = [Point(scale, mean(scale, "K.A"), mean(scale, "K.R")) for scale in scales]
    return [end(0.0, row.base), *between, end(1.0, row)]


def retention_at(points: Sequence[Point], level: float) -> float | None:
    """Return the best K.R on a frontier where K.A is at least ``level``; None where it never gets there.

    Between two points the frontier is a straight line.
    """
    found = [point.kr for point in points if point.ka >= level]
    for one, other in pairwise(points):
        if min(one.ka, other.ka) < level <= max(one.ka, other.ka):
            share = (level - one.ka) / (other.ka - one.ka)
            found.append(one.kr + share * (other.kr - one.kr))
    return max(found, default=None)


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
    rows = tuple(
        (
            name_cell(row),
            *(_cell(retention_at(found[row.method], level)) for level in levels),
            _cell(exchange(row)),
        )
        for row in summary.trained
    )
    return Table(
        title=f"Retention at equal adaptation on {summary.model}",
        header=("Method", *(f"K.A {level}" for level in levels), "HARS rate"),
        rows=rows,
        notes=(
            (
                "K.R where K.A is at least the column's figure, on the method's frontier: the cell's change scaled down "
                "without retraining, straight lines between the points. A dash: it never gets there, or has no frontier."
            ),
            "HARS rate: how many points of K.A HARS gives for one point of K.R where the method stands.",
        ),
    )


def _cell(value: float | None) -> Cell:
    return Cell(DASH if value is None else f"{value:.1f}")


def _figures(run: RunFolder) -> list[dict[str, object]]:
    lines: list[dict[str, Any]] = []
    for summary in summarise(run):
        for row in summary.trained:
            points = frontier(run, row)
            if points:
                at = {f"K.R at K.A {level}": retention_at(points, level) for level in LEVELS}
                values = {**at, "HARS rate": exchange(row)}
                lines.append({**identity(row), **{name: "" if v is None else v for name, v in values.items()}})
    return lines


def _build(run: RunFolder, folder: Path) -> list[Path]:
    tables = [found for summary in summarise(run) if (found := table(run, summary))]
    return write_table(folder, "frontier", tables, _figures(run)) if tables else []


REPORT = Report(
    name="frontier-table", title="Retention at equal adaptation", kind="table", build=_build,
    frame=lambda run, full: data_frame(_figures(run), full),
)  # fmt: skip
