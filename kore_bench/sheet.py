"""Answers of several methods to the same questions, side by side: read from predictions, paired, not yet tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kore_bench.errors import UserError
from kore_bench.results import Record, RunFolder

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RIGHT = 0.5
"""An answer counts as right from this credit on (0 to 1; over seeds their mean): of a fact, where CEM or F1 is 1."""


class Asked(NamedTuple):
    """One question as predictions name it; ``group`` is the cluster it belongs to (its entity, or itself)."""

    task: str
    id: str
    type: str
    group: str
    text: str
    answer: str


class Part(NamedTuple):
    """What a measure averages over: a task, or one dimension of retention."""

    task: str
    type: str


@dataclass(frozen=True)
class Sheet:
    """How right every answer of a model's methods is: ``values[method, seed, question]``, 0 to 1, NaN where not asked.

    ``part`` and ``cluster`` say for each question which of ``parts`` and which cluster it lies in; ``owner[cluster]`` is
    the part of a cluster. A group that several parts share is one cluster in each. ``draws[seed]`` is the draw of
    entities that a seed injected, and ``falling`` the tasks of which a lower figure is the better.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    questions: tuple[Asked, ...]
    parts: tuple[Part, ...]
    part: Integers
    cluster: Integers
    owner: Integers
    values: Floats
    draws: tuple[int, ...]
    falling: frozenset[str] = frozenset()

    @cached_property
    def measures(self) -> dict[str, dict[int, float]]:
        """Measure -> part -> weight: K.A, K.R and Avg, each other task under its name, then the dimensions."""
        tasks: dict[str, list[int]] = {}
        for index, part in enumerate(self.parts):
            tasks.setdefault(part.task, []).append(index)
        means = {task: dict.fromkeys(found, 1 / len(found)) for task, found in tasks.items()}
        named = {"K.A": means.pop("adaptation", {}), "K.R": means.pop("retention", {})}
        if all(named.values()):
            named["Avg"] = {index: weight / 2 for name in ("K.A", "K.R") for index, weight in named[name].items()}
        dimensions = {self.parts[index].type: {index: 1.0} for index in tasks.get("retention", [])}
        return {name: weights for name, weights in named.items() if weights} | means | dimensions

    @property
    def dimensions(self) -> frozenset[str]:
        """The measures that are single dimensions of retention."""
        return frozenset(part.type for part in self.parts if part.task == "retention")

    def pair(self, one: str, other: str) -> Pair | None:
        """Return two methods on the seeds where both answered every part that they share; None without such a seed."""
        both = self.values[[self.methods.index(one), self.methods.index(other)]]
        shared = ~np.isnan(both.sum(axis=0))
        counts = _sums(self.part, shared, len(self.parts))
        seeds = np.flatnonzero(counts.any(axis=1) & (counts[:, counts.any(axis=0)] > 0).all(axis=1))
        if not len(seeds):
            return None
        both, shared, counts = np.where(shared, both, 0.0)[:, seeds], shared[seeds], counts[seeds]
        with np.errstate(invalid="ignore"):
            means = np.stack([_sums(self.part, side, len(self.parts)) for side in both]) / counts
            credit = both.sum(axis=1) / shared.sum(axis=0)
        return Pair(
            sheet=self,
            one=one,
            other=other,
            seeds=tuple(self.seeds[seed] for seed in seeds),
            draws=tuple(self.draws[seed] for seed in seeds),
            counts=counts,
            means=means,
            sums=_sums(self.cluster, both[0] - both[1], len(self.owner)),
            sizes=_sums(self.cluster, shared, len(self.owner)),
            credit=credit,
        )


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two methods on the ``S`` seeds (with the draw of entities of each) and the questions that both have.

    ``counts[S, part]`` questions, ``means[2, S, part]`` of either side, ``sums[S, cluster]`` of the differences,
    ``sizes[S, cluster]`` in questions, ``credit[2, question]`` as a mean over seeds (NaN where not shared).
    """

    sheet: Sheet
    one: str
    other: str
    seeds: tuple[int, ...]
    draws: tuple[int, ...]
    counts: Floats
    means: Floats
    sums: Floats
    sizes: Floats
    credit: Floats

    @cached_property
    def parts(self) -> frozenset[int]:
        """The parts that both methods answered."""
        return frozenset(np.flatnonzero(self.counts.any(axis=0)).tolist())

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Which clusters of the sheet the pair has, ``[cluster]``."""
        return np.asarray(self.sizes.any(axis=0))

    def per_question(self, figures: Floats) -> Floats:
        """Return ``figures[S, cluster]`` over the number of questions of the cluster's part (NaN where it has none)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            shares: Floats = figures / self.counts[:, self.sheet.owner]
        return shares


def read_sheet(run: RunFolder, records: Sequence[Record], tasks: Sequence[str] = ()) -> Sheet:
    """Return the answers of the finished ``records`` of one model to ``tasks`` (to all of them where empty).

    Raises UserError where a predictions file is damaged.
    """
    methods = tuple(dict.fromkeys(record.method for record in records))
    seeds = tuple(sorted({record.seed for record in records}))
    places: dict[Asked, int] = {}
    read: list[tuple[int, int, list[int], list[float]]] = []
    for record in records:
        for task in record.scores:
            if not tasks or task in tasks:
                rows = _predictions(run, record, task)
                columns = [places.setdefault(asked, len(places)) for asked in rows]
                read.append((methods.index(record.method), seeds.index(record.seed), columns, list(rows.values())))
    values = np.full((len(methods), len(seeds), len(places)), np.nan)
    for method, seed, columns, correct in read:
        values[method, seed, columns] = correct
    return make_sheet(methods, seeds, tuple(places), values, draws_of(records, seeds), falling_of(records))


def draws_of(records: Sequence[Record], seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the draw of entities of each seed, as the records have it; 0 where they have none: all then share one."""
    found = {record.seed: int(record.data.get("draw") or 0) for record in records}
    return tuple(found[seed] for seed in seeds)


def falling_of(records: Sequence[Record]) -> frozenset[str]:
    """Return the tasks whose headline figure is the better the lower it is."""
    heads = {
        (name, record.scores.get(name, {}).get(one.metric)) for record in records for name, one in record.tasks.items()
    }
    return frozenset(name for name, score in heads if score and not score.higher_is_better)


def make_sheet(
    methods: tuple[str, ...], seeds: tuple[int, ...], questions: tuple[Asked, ...], values: Floats,
    draws: tuple[int, ...] = (), falling: frozenset[str] = frozenset(),
) -> Sheet:  # fmt: skip
    """Return the sheet of ``values[method, seed, question]``: parts in the order met, clusters by name in each part.

    ``draws`` names each seed's draw of entities (empty: all share one). Groups of one name that only different draws
    ask about are different entities, and so different clusters.
    """
    draws = draws or (0,) * len(seeds)
    found = [Part(one.task, one.type if one.task == "retention" else "") for one in questions]
    parts = {part: index for index, part in enumerate(dict.fromkeys(found))}
    homes = _homes(values, draws)
    groups = [(parts[part], one.group, home) for part, one, home in zip(found, questions, homes, strict=True)]
    clusters = {group: index for index, group in enumerate(sorted(set(groups)))}
    return Sheet(
        methods=methods,
        seeds=seeds,
        questions=questions,
        parts=tuple(parts),
        part=np.asarray([part for part, *_ in groups], dtype=np.int64),
        cluster=np.asarray([clusters[group] for group in groups], dtype=np.int64),
        owner=np.asarray([part for part, *_ in clusters], dtype=np.int64),
        values=values,
        draws=draws,
        falling=falling,
    )


def _homes(values: Floats, draws: Sequence[int]) -> list[int]:
    """Return for each question the draw that alone asks it, -1 where several do or there is only one."""
    different = sorted(set(draws))
    if len(different) == 1:
        return [-1] * values.shape[2]
    asked = np.asarray(~np.isnan(values).all(axis=0))  # [seed, question]
    by_draw = np.stack([asked[np.asarray(draws) == draw].any(axis=0) for draw in different])
    return [different[int(column.argmax())] if column.sum() == 1 else -1 for column in by_draw.T]


def _predictions(run: RunFolder, record: Record, task: str) -> dict[Asked, float]:
    try:
        return {asked(task, row): float(row["correct"]) for row in run.predictions(record, task)}
    except (ValueError, KeyError, TypeError) as error:
        cell = run.cell(run.name_of(record))
        raise UserError(
            f"{cell / 'predictions' / f'{task}.jsonl'} is damaged ({type(error).__name__}: {error}): remove {cell} and "
            "run again"
        ) from None


def asked(task: str, row: dict[str, Any]) -> Asked:
    """Return which question of ``task`` a row of predictions answers."""
    id = str(row["id"])
    return Asked(task, id, row.get("type", ""), row.get("group") or id, row.get("text", ""), row.get("answer", ""))


def _sums(places: Integers, figures: NDArray[Any], count: int) -> Floats:
    """Return ``[S, count]``: for each row of ``figures[S, question]`` the sums over questions of one place."""
    rows = len(figures)
    index = (places + count * np.arange(rows)[:, None]).ravel()
    summed = np.bincount(index, weights=figures.ravel().astype(np.float64), minlength=rows * count)
    return np.asarray(summed, dtype=np.float64).reshape(rows, count)
