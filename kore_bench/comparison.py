"""Methods compared on the same questions: who is better, by how much, how sure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from kore_bench import paired
from kore_bench.paired import Floats, Spread
from kore_bench.sheet import RIGHT, Pair, Sheet

LEVEL = 0.05
"""The level of every test; intervals are at 1 - LEVEL."""

POWER = 0.8
"""The chance with which a difference of the size ``detectable`` is found."""

PRIMARY = ("K.A", "K.R")
"""The measures in which contrasts that were named beforehand are tested: the two axes of the question."""

MARKS = {"seeds": "**", "questions": "*", "": ""}
"""How far a difference carries (``Comparison.evidence``), as a mark in tables."""

_AT_ONCE = 64  # contrasts: bounds the memory of the resamples

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``one`` minus ``other`` in one measure, in points, on the ``n`` questions and the ``seeds`` that both have.

    A measure that is a single ``dimension`` of retention belongs to a table of its own.
    ``within`` is the interval for these very trainings on other questions, ``overall`` that for other seeds and other
    questions (None with one seed, as the spread over seeds is then unknown; both None where a part has one cluster).
    ``rising`` is false of measures that are the better the lower they are.
    ``bootstrap`` is the interval of a hierarchical bootstrap over ``draws`` draws of entities, seeds and clusters (None
    with one seed). ``p_questions`` and ``p_overall`` test the same two claims; ``holm_*`` are corrected over the family:
    the contrasts that were ``planned`` in the primary measures, or else the whole table of exploratory ones.
    ``better`` and ``worse`` count the questions that only ``one`` and only ``other`` has right, ``mcnemar`` is their
    exact test as if questions were independent (None for Avg, in which a question of one task weighs more than one of
    another). ``detectable`` is the difference that would be found with ``POWER``, without the correction: for these
    trainings with one seed, over seeds with several.
    """

    measure: str
    dimension: bool
    one: str
    other: str
    seeds: tuple[int, ...]
    n: int
    clusters: int
    values: tuple[float, float]
    by_seed: tuple[float, ...]
    within: Interval | None
    overall: Interval | None
    bootstrap: Interval | None
    draws: int
    rising: bool = True
    planned: bool = False
    detectable: float | None
    p_questions: float
    p_overall: float | None
    holm_questions: float = 1.0
    holm_overall: float | None = None
    better: int | None
    worse: int | None
    mcnemar: float | None

    @property
    def difference(self) -> float:
        """The mean over seeds, in points."""
        return float(np.mean(self.by_seed))

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation of the difference over seeds, None with one seed."""
        return float(np.std(self.by_seed, ddof=1)) if len(self.by_seed) > 1 else None

    @property
    def interval(self) -> Interval | None:
        """The interval over seeds and questions, or over questions alone where there is one seed."""
        return self.overall or self.within

    @property
    def evidence(self) -> str:
        """How far the difference carries: to other ``seeds`` and questions, to other ``questions``, or not (empty)."""
        if self.holm_overall is not None and self.holm_overall <= LEVEL:
            return "seeds"
        return "questions" if self.holm_questions <= LEVEL else ""

    @property
    def winner(self) -> str:
        """The better method where the difference carries at all, else empty."""
        ahead = self.difference > 0 if self.rising else self.difference < 0
        return (self.one if ahead else self.other) if self.evidence else ""


def compare(
    sheet: Sheet, contrasts: Sequence[tuple[str, str]], planned: Sequence[tuple[str, str]] = ()
) -> list[Comparison]:
    """Return every measure of every contrast (one method, another) that shares a seed, contrast by contrast.

    The p values are corrected by Holm within families. One is K.A and K.R of all ``planned`` contrasts, which were named
    before the run, whether they are among ``contrasts`` or not; the others are the exploratory rest of ``contrasts`` in
    headline measures (K.A, K.R, Avg, other tasks) and in dimensions. But for that, the figures of a contrast do not
    depend on what else is compared.
    """
    known = {frozenset(contrast) for contrast in contrasts}
    beside = [contrast for contrast in planned if frozenset(contrast) not in known]
    pairs = [pair for one, other in (*contrasts, *beside) if (pair := sheet.pair(one, other)) is not None]
    by_pair = {id(pair): rows for batch in _batches(pairs) for pair, rows in _compared(batch)}
    named = {frozenset(contrast) for contrast in planned}
    found = [
        replace(row, planned={row.one, row.other} in named and row.measure in PRIMARY)
        for pair in pairs
        for row in by_pair[id(pair)]
    ]
    found = [row for row in found if row.planned or (row.one, row.other) not in beside]
    for family in ((True, False), (False, False), (False, True)):
        places = [place for place, row in enumerate(found) if (row.planned, row.dimension) == family]
        for place, row in zip(places, _corrected([found[place] for place in places]), strict=True):
            found[place] = row
    return [row for row in found if (row.one, row.other) not in beside]


def p_words(p: float) -> str:
    """Return a p value with the digits that it carries: ``0.43``, ``0.012``, ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def _batches(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Yield pairs with the same seeds and clusters, which can share random numbers, a bounded number at a time."""
    alike: dict[tuple[tuple[int, ...], bytes], list[Pair]] = {}
    for pair in pairs:
        alike.setdefault((pair.seeds, pair.present.tobytes()), []).append(pair)
    for batch in alike.values():
        yield from (batch[start : start + _AT_ONCE] for start in range(0, len(batch), _AT_ONCE))


def _compared(pairs: Sequence[Pair]) -> Iterator[tuple[Pair, list[Comparison]]]:
    """Yield each of P pairs that have the same seeds and clusters with its measures."""
    sheet, present = pairs[0].sheet, pairs[0].present
    share = np.stack([pair.per_question(pair.sums) for pair in pairs], axis=2)  # [S, clusters, P]
    weight = np.stack([pair.per_question(pair.sizes) for pair in pairs], axis=2)
    levels = paired.levels_drawn(pairs[0].draws, np.random.default_rng(len(pairs[0].seeds)))
    draws: dict[int, tuple[Floats, Floats, Floats]] = {}
    for part in sorted(pairs[0].parts):
        inside = (sheet.owner == part) & present
        seed = zlib.crc32("/".join(sheet.parts[part]).encode())
        ours, sizes = share[:, inside], weight[:, inside]
        mean, size = ours.mean(axis=0), sizes.mean(axis=0)
        draws[part] = (
            paired.flipped(mean, seed), paired.bootstrapped(mean, size, seed),
            paired.hierarchical(ours, sizes, levels, seed),
        )  # fmt: skip
    for column, pair in enumerate(pairs):
        rows = []
        for measure, weights in sheet.measures.items():
            if weights.keys() <= draws.keys():
                flips, boots, levelled = (
                    np.sum([weights[part] * draws[part][kind][:, column] for part in weights], axis=0)
                    for kind in range(3)
                )
                rows.append(_comparison(pair, measure, weights, flips, boots, levelled))
        yield pair, rows


def _comparison(
    pair: Pair, measure: str, weights: Mapping[int, float], flips: Floats, boots: Floats, levelled: Floats
) -> Comparison:
    estimate = _estimate(pair, weights)
    difference = float(estimate.by_seed.mean())
    p_questions = paired.flip_p(difference, flips, estimate.squares)
    spread, several = estimate.spread, len(pair.seeds) > 1
    asked = np.isin(pair.sheet.part, list(weights)) & ~np.isnan(pair.credit[0])
    ours, theirs = (side[asked] >= RIGHT for side in pair.credit)
    better, worse = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    one_task = len({pair.sheet.parts[part].task for part in weights}) == 1
    half = spread.half_width(LEVEL / 2) if spread else 0.0
    return Comparison(
        measure=measure,
        dimension=measure in pair.sheet.dimensions,
        one=pair.one,
        other=pair.other,
        seeds=pair.seeds,
        n=int(asked.sum()),
        clusters=estimate.clusters,
        values=estimate.values,
        by_seed=tuple(float(value) for value in 100 * estimate.by_seed),
        within=_percentiles(boots) if spread else None,
        overall=_clipped(difference - half, difference + half) if spread and several else None,
        bootstrap=_percentiles(levelled) if spread and several else None,
        draws=len(set(pair.draws)),
        rising=measure not in pair.sheet.falling,
        detectable=100 * (half + spread.half_width(1 - POWER)) if spread else None,
        p_questions=p_questions,
        p_overall=max(p_questions, spread.p(difference)) if spread and several else None,
        better=better if one_task else None,
        worse=worse if one_task else None,
        mcnemar=paired.mcnemar(better, worse) if one_task else None,
    )


class _Estimate(NamedTuple):
    values: tuple[float, float]
    by_seed: Floats
    squares: float  # of what each cluster adds to the difference
    clusters: int
    spread: Spread | None


def _estimate(pair: Pair, weights: Mapping[int, float]) -> _Estimate:
    sheet, parts = pair.sheet, list(weights)
    scale = np.asarray([weights.get(part, 0.0) for part in range(len(sheet.parts))])
    inside = np.isin(sheet.owner, parts) & pair.present
    owner = sheet.owner[inside]
    gaps = pair.means[0] - pair.means[1]
    added = pair.per_question(pair.sums)[:, inside] * scale[owner]  # [S, C]
    due = pair.per_question(pair.sizes)[:, inside] * scale[owner] * gaps[:, owner]
    by_seed = gaps[:, parts] @ scale[parts]
    ours, theirs = (100 * float((side[:, parts] @ scale[parts]).mean()) for side in pair.means)
    squares = float((added.mean(axis=0) ** 2).sum())
    units = paired.by_draw(by_seed, pair.draws), paired.by_draw(added - due, pair.draws)
    return _Estimate((ours, theirs), by_seed, squares, len(owner), paired.spread_of(*units, owner))


def _percentiles(draws: Floats) -> Interval:
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    return 100 * float(low), 100 * float(high)


def _clipped(low: float, high: float) -> Interval:
    return 100 * max(-1.0, low), 100 * min(1.0, high)


def _corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """Return one table's comparisons with Holm's p values; those over seeds are a family of their own."""
    questions = paired.holm(np.asarray([row.p_questions for row in family]))
    tested = [row.p_overall for row in family if row.p_overall is not None]
    overall = iter(paired.holm(np.asarray(tested)))
    return [
        replace(
            row,
            holm_questions=float(p),
            holm_overall=None if row.p_overall is None else float(next(overall)),
        )
        for row, p in zip(family, questions, strict=True)
    ]
