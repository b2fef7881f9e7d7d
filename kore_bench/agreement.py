"""How far two sets of figures put the same methods in the same order: rank correlations and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, norm, spearmanr

LEAST = 5
"""Rows below which an order says nothing: Kendall's standard error needs five."""


@dataclass(frozen=True)
class RankCorrelation:
    """A coefficient from -1 (the reverse order) over 0 to 1 (the same order) and its 95 % interval.

    The interval is None at -1 and 1, where its formula has no meaning.
    """

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho and Kendall's tau-b of two sets of figures over the same ``n`` rows."""

    n: int
    spearman: RankCorrelation
    kendall: RankCorrelation


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> Agreement | None:
    """Return how far two sets of figures of the same rows agree in order; None below `LEAST` rows, or where one is constant.

    Intervals go by Fisher's z with the standard errors of Bonett and Wright (2000, Psychometrika 65:23):
    sqrt((1 + rho^2 / 2) / (n - 3)) and sqrt(0.437 / (n - 4)). They take the rows for a random sample of methods. Raises
    ValueError where there are not as many of one as of the other.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} figures cannot be paired with {len(theirs)}")
    count = len(ours)
    if count < LEAST or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    rho, tau = float(spearmanr(ours, theirs).statistic), float(kendalltau(ours, theirs).statistic)
    return Agreement(
        n=count,
        spearman=RankCorrelation(rho, _interval(rho, math.sqrt((1 + rho**2 / 2) / (count - 3)))),
        kendall=RankCorrelation(tau, _interval(tau, math.sqrt(0.437 / (count - 4)))),
    )


def _interval(value: float, error: float) -> tuple[float, float] | None:
    if abs(value) > 1 - 1e-12:
        return None
    half = float(norm.ppf(0.975)) * error
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)
