"""95 % intervals of VLMEvalKit's figures: bootstraps over questions, whole groups together, of the figure's own formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kore_bench.measures import Score, bootstrap, bootstrap_mean_of_means
from kore_bench.vlmevalkit import Asked

_RESAMPLES = 1000
Floats = NDArray[np.float64]


class Told(NamedTuple):
    """A row that counts, what was answered (its last turn), and what each of its turns was worth (0 to 1)."""

    row: Asked
    said: str
    worth: list[float]


def with_interval(value: float, told: Sequence[Told], formula: str) -> Score:
    """Return a figure with its interval: of the first of ``formula``'s ways to compute it that gives the same figure.

    VLMEvalKit's figure stands as it is; where no way gives it (some rows left out, say), it stands without interval.
    """
    for way in FORMULAS[formula] if told else ():
        found = way(told)
        if math.isclose(found.value, value, abs_tol=1e-6):
            return Score(value=value, low=min(found.low, value), high=max(found.high, value), n=found.n)
    return Score(value=value, low=value, high=value, n=len(told))


def _rows(told: Sequence[Told]) -> Score:
    flat = [(worth, one.row.group) for one in told for worth in one.worth]
    return bootstrap([worth for worth, _ in flat], [group for _, group in flat])


def _circles(told: Sequence[Told]) -> Score:
    """A question under all orders of its options counts once."""
    first = {one.row.group: one.worth[0] for one in reversed(told)}
    return bootstrap(list(first.values()), list(first))


def _pairs(told: Sequence[Told]) -> Score:
    """MME: per category the accuracy of answers and that of pairs, their mean over categories."""
    categories: dict[str, dict[str, list[float]]] = {}
    for one in told:
        categories.setdefault(one.row.category, {}).setdefault(one.row.group, []).append(one.worth[0])
    parts = {
        category: [(sum(pair) / len(pair) + math.prod(pair)) / 2 for pair in pairs.values()]
        for category, pairs in categories.items()
    }
    spread = bootstrap_mean_of_means(parts)
    return Score(value=spread.value, low=spread.low, high=spread.high, n=len(told))


def _f1(told: Sequence[Told]) -> Score:
    """POPE: F1 of yes, a row of several categories counting once for each."""
    weight = np.array([len(one.row.category.split(",")) for one in told], dtype=np.float64)
    gold = np.array([one.row.answers[0] == "Yes" for one in told])
    right = np.array([one.worth[0] == 1.0 for one in told])
    yes = np.where(gold, right, ~right & np.array(["yes" in one.said.lower() for one in told]))
    sums = np.stack([weight * (gold & yes), weight * gold, weight * yes], axis=1)  # [rows, 3]
    return _resampled(sums, lambda total: 200 * total[..., 0] / np.maximum(total[..., 1] + total[..., 2], 1e-12))


def _sets(told: Sequence[Told]) -> Score:
    """HallusionBench: mean of the accuracies of answers, of figures and of questions, over sets of figures."""
    groups: dict[str, list[float]] = {}
    for group in dict.fromkeys(one.row.group for one in told):
        inside = [(one.row.id.split("_"), one.worth[0]) for one in told if one.row.group == group]
        figures, questions = (_all_right(inside, place) for place in (4, 5))
        answers = [worth for _, worth in inside]
        groups[group] = [float(number) for part in (answers, figures, questions) for number in (sum(part), len(part))]
    sums = np.array(list(groups.values()))  # [sets, 6]
    found = _resampled(sums, lambda total: 100 * (total[..., ::2] / total[..., 1::2]).mean(axis=-1))
    return Score(value=found.value, low=found.low, high=found.high, n=len(told))


def _all_right(inside: Sequence[tuple[list[str], float]], place: int) -> list[float]:
    """Return for each figure (or question), the part of an index at ``place``, whether all its answers are right."""
    parts: dict[str, list[float]] = {}
    for name, worth in inside:
        parts.setdefault(name[place], []).append(worth)
    return [float(all(worths)) for worths in parts.values()]


def _resampled(sums: Floats, figure: Callable[[Floats], Floats]) -> Score:
    """Return ``figure`` of the sums over all rows of ``sums[groups, parts]``, and over rows drawn with replacement."""
    stream = np.random.default_rng(0)
    draws = [figure(sums[stream.integers(len(sums), size=len(sums))].sum(axis=0)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Score(value=float(figure(sums.sum(axis=0))), low=float(low), high=float(high), n=len(sums))


FORMULAS: Mapping[str, tuple[Callable[[Sequence[Told]], Score], ...]] = {
    "mean": (_rows, _circles), "pairs": (_pairs,), "f1": (_f1,), "sets": (_sets,),
}  # fmt: skip
"""The ways to compute a headline figure, by the card's ``formula``."""
