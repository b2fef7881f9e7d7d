"""Each method's curve of adaptation against retention: points read from the cells, seeds, and what a level of K.A keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from kore_bench.measures import over_seeds
from kore_bench.results import FRONTIER, Record, RunFolder, read_lines, whole_lines

from .answers import answers_of
from .summary import DIMENSIONS, Row, old_skills, score_of

MISSING = "frontier/not available"
"""Where a cell without a frontier says why, among its diagnostics."""


@dataclass(frozen=True)
class Point:
    """One point of a frontier: ``scale`` of the change that training made, K.A, and K.R or its mean over some skills."""

    scale: float
    ka: float
    kr: float


def curves(run: RunFolder, row: Row, measure: str = "K.R") -> dict[int, list[Point]]:
    """Return seed -> a method's points by scale, from the base (0) to the cell as it is (1).

    Empty where no scale between was evaluated. A scale counts where every finished seed has it. A point that was asked a
    sample only is moved by what the sample leaves out at both ends, which are known on all questions and on the sample
    (a difference estimator; between the ends in proportion to the scale).
    """
    if row.base is None or not row.done:
        return {}
    cells = [(record, known_points(run, record)) for record in row.done]
    scales = sorted(set.intersection(*({s for s in points if measure in points[s]} for _, points in cells)))
    found = {}
    for record, points in cells:
        ends = [_ends(record, row.base, name) for name in ("K.A", measure)]
        if not scales or None in ends:
            return {}
        lacking = {scale: _lacking(run, row, record, scale, points[scale], measure) for scale in scales}
        between = [
            Point(
                scale,
                *(
                    _moved(points[scale][name]["value"], lacking[scale].get(name, (0, 0)), scale)
                    for name in ("K.A", measure)
                ),
            )
            for scale in scales
        ]
        (ka0, ka1), (kr0, kr1) = (end for end in ends if end)
        found[record.seed] = [Point(0.0, ka0, kr0), *between, Point(1.0, ka1, kr1)]
    return found


def frontier(run: RunFolder, row: Row, measure: str = "K.R") -> list[Point]:
    """Return a method's points by scale as means over its seeds; empty where it has no frontier."""
    found = list(curves(run, row, measure).values())
    return [
        Point(points[0].scale, *(float(np.mean([getattr(point, axis) for point in points])) for axis in ("ka", "kr")))
        for points in zip(*found, strict=True)
    ]


def known_points(run: RunFolder, record: Record) -> dict[float, Any]:
    """Return what stands in a cell's frontier file, by scale."""
    return {float(line["scale"]): line for line in whole_lines(run.cell(run.name_of(record)) / FRONTIER)}


def _ends(record: Record, base: Row, measure: str) -> tuple[float, float] | None:
    """Return what the base, of the same seed where it has it, and the cell score on all questions."""
    score, own = score_of(record, measure), _of_seed(base, record.seed)
    same = score_of(own, measure) if own.seed == record.seed else None
    start = base.start(record, measure) if same is None else same.value
    return None if score is None or start is None else (start, score.value)


def _of_seed(row: Row, seed: int) -> Record:
    return next((record for record in row.done if record.seed == seed), row.done[0])


def _moved(value: float, lacking: tuple[float, float], scale: float) -> float:
    return min(100.0, max(0.0, value + (1 - scale) * lacking[0] + scale * lacking[1]))


def _lacking(
    run: RunFolder, row: Row, record: Record, scale: float, point: Mapping[str, Any], measure: str
) -> dict[str, tuple[float, float]]:
    """Return for K.A and ``measure`` what the base and the cell score on all questions above what they do on a sample.

    Nothing of a measure of which the point was asked everything, or whose answers are not there.
    """
    score = {name: score_of(record, name) for name in ("K.A", measure)}
    if row.base is None or all(one and one.n == point[name]["n"] for name, one in score.items()):
        return {}
    folder = run.cell(run.name_of(record)) / "frontier" / f"{scale:g}" / "predictions"
    cells, found = (run.name_of(_of_seed(row.base, record.seed)), run.name_of(record)), {}
    for name, task in (("K.A", "adaptation"), (measure, "retention")):
        ends, asked = _ends(record, row.base, name), {str(line["id"]) for line in read_lines(folder / f"{task}.jsonl")}
        sample = [_mean(run, row.model, cell, task, asked, _skills(record, name)) for cell in cells]
        if ends and None not in sample:
            found[name] = (ends[0] - (sample[0] or 0.0), ends[1] - (sample[1] or 0.0))
    return found


def _skills(record: Record, measure: str) -> frozenset[str]:
    """Return the dimensions of retention that a measure averages."""
    seen = frozenset(old_skills(record))
    every = frozenset(DIMENSIONS)
    return {"K.R calibrated": seen, "K.R held-out": every - seen}.get(measure, every)


def _mean(run: RunFolder, model: str, cell: str, task: str, asked: set[str], skills: frozenset[str]) -> float | None:
    """Return a cell's score in percent on the questions ``asked``: their mean, of retention that of the means by skill."""
    answers = answers_of(run, model).get(task)
    if answers is None or cell not in answers.cells or not asked:
        return None
    kinds: dict[str, list[float]] = {}
    for question, correct in zip(answers.questions, answers.correct[answers.cells[cell]], strict=True):
        if question.id in asked and not np.isnan(correct) and (task != "retention" or question.type in skills):
            kinds.setdefault(question.type if task == "retention" else "", []).append(float(correct))
    return 100 * float(np.mean([np.mean(values) for values in kinds.values()])) if kinds else None


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


def at_levels(run: RunFolder, row: Row, levels: Sequence[int]) -> dict[int, tuple[float, float | None]]:
    """Return level -> K.R at that K.A on the mean curve, and the standard deviation of what each seed's own curve gives.

    Holds no level that the mean curve does not reach; the deviation is None with one seed, or where a seed's own curve
    does not reach it.
    """
    mean, own = frontier(run, row), list(curves(run, row).values())
    found = {}
    for level in levels:
        value, each = retention_at(mean, level), [retention_at(points, level) for points in own]
        known = [one for one in each if one is not None]
        if value is not None:
            found[level] = (value, over_seeds(known).deviation if len(known) == len(each) else None)
    return found


def missing(row: Row) -> str:
    """Return why a method has no frontier, as its record says; empty where it says nothing."""
    reasons = (str(record.diagnostics.get(MISSING, "")) for record in row.done)
    return next(filter(None, reasons), "").rstrip(".")
