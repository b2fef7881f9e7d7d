"""Retention over benchmarks: K.R and the dimensions as means of the headline figures of those that were scored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from kore_bench.formats import DIMENSIONS
from kore_bench.measures import Score, kr, mean_of_scores
from kore_bench.results import POOLED, Outcome, Record


def scored(tasks: Mapping[str, Outcome]) -> list[str]:
    """Return the tasks that are benchmarks of a dimension of retention and were scored."""
    return [name for name, outcome in tasks.items() if outcome.dimension and outcome.status == "done"]


def pool(
    scores: Mapping[str, Mapping[str, Score]], tasks: Mapping[str, Outcome], only: Collection[str] | None = None
) -> dict[str, Score]:
    """Return K.R and each dimension over the benchmarks of ``tasks`` that were scored (of those, ``only`` some).

    K.R is the plain mean of the benchmarks (KORE, arXiv 2510.19316: of twelve), not of the dimensions. Where a judge
    graded some of them, "K.R without judge" is the mean of the others. Empty where no benchmark was scored.
    """
    names = [name for name in scored(tasks) if only is None or name in only]
    parts = {name: scores[name][tasks[name].metric] for name in names}
    unjudged = [name for name in names if not tasks[name].judge]
    means = {"K.R": names}
    means |= {dimension: [name for name in names if tasks[name].dimension == dimension] for dimension in DIMENSIONS}
    means |= {"K.R without judge": unjudged if len(unjudged) < len(names) else []}
    return {measure: mean_of_scores(parts[name] for name in chosen) for measure, chosen in means.items() if chosen}


class Range(NamedTuple):
    """A mean over benchmarks, the least and the most that it is without one of them, and which one that is."""

    mean: float
    low: float
    high: float
    low_without: str
    high_without: str


def leave_one_out(figures: Mapping[str, float]) -> Range | None:
    """Return the mean of ``figures`` (by benchmark) and its range over leaving one out; None for fewer than two."""
    if len(figures) < 2:
        return None
    means = {name: kr(value for other, value in figures.items() if other != name) for name in figures}
    low, high = min(means, key=lambda name: means[name]), max(means, key=lambda name: means[name])
    return Range(kr(figures.values()), means[low], means[high], low, high)


def differences(one: Sequence[Record], other: Sequence[Record]) -> dict[str, float]:
    """Return benchmark -> what ``one`` scores more than ``other`` in its headline figure, means over their records.

    Only benchmarks that every record has scored count; empty where there is none.
    """
    whole = one and other and all(scored(record.tasks) for record in (*one, *other))
    names = shared([*one, *other]) if whole else []

    def mean(records: Sequence[Record], name: str) -> float:
        return kr(record.scores[name][record.tasks[name].metric].value for record in records)

    return {one[0].tasks[name].metric: mean(one, name) - mean(other, name) for name in names}


def shared(records: Iterable[Record]) -> list[str]:
    """Return the benchmarks that every record has scored which has scored any, in the first one's order."""
    lists = [names for record in records if (names := scored(record.tasks))]
    return [name for name in lists[0] if all(name in names for names in lists)] if lists else []


def comparable(records: Sequence[Record]) -> list[Record]:
    """Return records whose K.R and dimensions are over the same benchmarks: those that all have scored.

    So a benchmark that failed in one cell counts for none, and differences are the methods'.
    """
    names = shared(records)
    return [
        replace(record, scores={**record.scores, POOLED: pool(record.scores, record.tasks, names)})
        if scored(record.tasks)
        else record
        for record in records
    ]
