"""Paired tests on plain arrays: sign flips, bootstraps, seeds and questions together, McNemar, Holm; no names, no files.

The differences of contrasts (one method minus another) come summed within clusters, which lie within parts (a task, or
a dimension of retention). Shape letters: P contrasts, C clusters, R resamples, S seeds. ``share[C, P]`` is what a cluster
adds to its part's mean difference and ``weight[C, P]`` its share of the part's questions (each column sums to 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, stdtrit

Floats = NDArray[np.float64]

FLIPS = 9999
RESAMPLES = 2000
_BLOCK = 2**22  # entries of a block of random numbers: about 32 MB


def flipped(share: Floats, seed: int, flips: int = FLIPS) -> Floats:
    """Return ``[R, P]`` mean differences under random signs of whole clusters, the same signs for all contrasts.

    Where two methods are alike, swapping their answers to a cluster changes nothing: the observed difference is then
    one more draw of these.
    """
    count = len(share)
    random = np.random.default_rng(seed)
    draws = np.empty((flips, share.shape[1]))
    for rows in _blocks(flips, count):
        size = len(draws[rows])
        bits = np.unpackbits(random.integers(256, size=(size, -(-count // 8)), dtype=np.uint8), axis=1, count=count)
        draws[rows] = 2 * (bits.astype(np.float64) @ share) - share.sum(axis=0)
    return draws


def flip_p(difference: float, draws: Floats, squares: float) -> float:
    """Return the two-sided p of a difference: the share of flips ``draws[R]`` at least as far from 0, itself among them.

    Where that is too coarse, Hoeffding's bound 2 exp(-d^2 / 2 squares) on the same probability takes over (``squares``
    sums what each cluster adds, squared), so that a correction over many comparisons does not run into 1 / R.
    """
    far = abs(difference) * (1 - 1e-9)  # equal sums may have been added in another order
    p = (1 + int((np.abs(draws) >= far).sum())) / (1 + len(draws))
    return min(p, 2 * math.exp(-(far**2) / (2 * squares))) if squares > 0 else p


def bootstrapped(share: Floats, weight: Floats, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return ``[R, P]`` mean differences over clusters drawn with replacement, the same draw for all contrasts."""
    count = len(share)
    random = np.random.default_rng(seed)
    draws = np.empty((resamples, share.shape[1]))
    for rows in _blocks(resamples, count):
        times = times_drawn(len(draws[rows]), count, random)
        draws[rows] = (times @ share) / (times @ weight)
    return draws


def times_drawn(rows: int, count: int, random: np.random.Generator) -> Floats:
    """Return ``[rows, count]``: how often each of ``count`` things comes up where as many are drawn with replacement."""
    drawn = random.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def levels_drawn(draws: Sequence[int], random: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """Return ``[R, S]`` weights of seeds, each row's sum 1: draws of entities with replacement, seeds within each.

    ``draws[S]`` names the draw of each seed. Where all share one, that level is fixed and only seeds are drawn.
    """
    names, member = np.unique(np.asarray(draws), return_inverse=True)
    weights = np.zeros((resamples, len(draws)))
    slots = random.integers(len(names), size=(resamples, len(names)))
    for slot in slots.T:
        for name in range(len(names)):
            rows, seeds = np.flatnonzero(slot == name), np.flatnonzero(member == name)
            weights[np.ix_(rows, seeds)] += times_drawn(len(rows), len(seeds), random) / len(seeds) / len(names)
    return weights


def hierarchical(share: Floats, weight: Floats, levels: Floats, seed: int) -> Floats:
    """Return ``[R, P]`` mean differences of one part under draws of all levels: seeds as in ``levels[R, S]``, clusters.

    ``share[S, C, P]`` and ``weight[S, C, P]`` are those of each seed. A cluster that several seeds have is drawn for all
    of them together, as they were asked the same questions; so it is for a draw of entities that comes up twice.
    """
    random = np.random.default_rng(seed)
    found = np.empty((len(levels), share.shape[2]))
    for rows in _blocks(len(levels), share.shape[1]):
        times = times_drawn(len(found[rows]), share.shape[1], random)
        by_seed = np.stack(
            [(times @ own) / np.maximum(times @ size, 1e-12) for own, size in zip(share, weight, strict=True)]
        )
        found[rows] = np.einsum("rs,srp->rp", levels[rows], by_seed)
    return found


@dataclass(frozen=True)
class Spread:
    """The variance of a mean difference, in two parts: seeds (with all that varies between them) and questions.

    ``questions`` is what the choice of questions adds because every seed was asked the same ones: the covariance of two
    seeds, or more where the seeds happen to lie closer than the questions allow. With one seed ``seeds`` is 0 (unknown).
    """

    seeds: float
    seeds_df: int
    questions: float
    questions_df: int

    def half_width(self, tail: float) -> float:
        """Return the half-width that leaves out ``tail`` on either side: Student's t for each part, in quadrature."""
        seeds = stdtrit(self.seeds_df, tail) ** 2 * self.seeds if self.seeds_df else 0.0
        return math.sqrt(seeds + stdtrit(self.questions_df, tail) ** 2 * self.questions)

    def p(self, difference: float) -> float:
        """Return the smallest level at which the interval around ``difference`` leaves out 0 (by bisection)."""
        low, high = -40.0, 0.0  # natural logarithms of the level
        for _ in range(50):
            middle = (low + high) / 2
            if self.half_width(math.exp(middle) / 2) >= abs(difference):
                low = middle
            else:
                high = middle
        return math.exp(high)


def by_draw(figures: Floats, draws: Sequence[int]) -> Floats:
    """Return ``figures[S, ...]`` as means over the seeds of each draw of entities, ``[D, ...]``; as they are with one draw.

    Seeds that share a draw of several are no independent repetitions. A draw counts by its number of seeds, so that
    the mean stays the mean over seeds.
    """
    names, member = np.unique(np.asarray(draws), return_inverse=True)
    if len(names) == 1:
        return figures
    centre = figures.mean(axis=0)
    return np.stack([
        centre + (figures[member == name] - centre).sum(axis=0) * len(names) / len(draws) for name in range(len(names))
    ])  # fmt: skip


def spread_of(by_seed: Floats, centred: Floats, parts: NDArray[np.int64]) -> Spread | None:
    """Return the spread of the mean of ``by_seed[S]``, None where a part has one cluster and so no spread.

    ``centred[S, C]`` is what each cluster adds to its seed's difference beyond its size's share, and ``parts[C]`` the
    part that the cluster lies in. Seeds and questions may be crossed (every seed asks the same) or nested (each seed
    draws its own): a cluster that only one seed has adds nothing to the second part of the spread.
    """
    seeds = len(by_seed)
    sizes = np.bincount(parts)[parts]
    if (sizes < 2).any():
        return None
    scaled = centred * np.sqrt(sizes / (sizes - 1))
    within = float((scaled.mean(axis=0) ** 2).sum())
    freedom = len(parts) - len(np.unique(parts))
    if seeds == 1:
        return Spread(0.0, 0, within, freedom)
    between = float(by_seed.var(ddof=1)) / seeds
    shared = float((scaled.sum(axis=0) ** 2).sum() - (scaled**2).sum()) / (seeds * (seeds - 1))
    return Spread(between, seeds - 1, max(shared, within - between, 0.0), freedom)


def mcnemar(better: int, worse: int) -> float:
    """Return McNemar's exact two-sided p: the binomial test of 1/2 on the questions that only one side has right."""
    return min(1.0, 2 * float(bdtr(min(better, worse), better + worse, 0.5)))


def holm(p: Floats) -> Floats:
    """Return Holm's adjusted p values (Holm 1979): none of the rejected is false with probability 1 - level."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, stepped)
    return adjusted


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, columns))
    yield from (slice(start, start + step) for start in range(0, rows, step))
