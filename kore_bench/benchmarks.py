"""Retention over benchmarks: K.R and the dimensions as means of the headline figures of those that were scored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from kore_bench.formats import DIMENSIONS
from kore_bench.measures import Score, mean_of_scores
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
