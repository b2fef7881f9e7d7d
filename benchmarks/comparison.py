"""How long comparing methods takes, and how often tests raise a false alarm: ours beside a bootstrap over seeds."""

from __future__ import annotations

import argparse
import time
from itertools import combinations

import numpy as np

from kore_bench import paired
from kore_bench.comparison import compare
from kore_bench.paired import Floats
from kore_bench.sheet import Asked, make_sheet

CLUSTERS = 60
SPREADS = {"none": 0.0, "as the noise of the questions": 1.0, "three times that": 3.0, "ten times that": 10.0}
"""Spread over seeds, as a multiple of the standard error that 60 questions leave."""


def speed(methods: int, questions: int, seeds: int) -> None:
    """Print the seconds that every pair of ``methods`` takes."""
    random = np.random.default_rng(0)
    names = tuple(f"method-{number}" for number in range(methods))
    facts = [Asked("adaptation", str(number), "", f"entity-{number // 5}", "", "") for number in range(questions // 2)]
    skills = [
        Asked("retention", str(number), f"skill-{number % 7}", str(number), "", "") for number in range(questions // 2)
    ]
    values = (random.random((methods, seeds, questions // 2 * 2)) < random.random((methods, 1, 1))).astype(float)
    sheet = make_sheet(names, tuple(range(seeds)), (*facts, *skills), values)
    begin = time.perf_counter()
    found = compare(sheet, list(combinations(names, 2)))
    took = time.perf_counter() - begin
    print(f"{methods} methods, {questions} questions, {seeds} seeds: {len(found)} comparisons in {took:.1f} s")


def false_alarms(seeds: int, spread: float, runs: int) -> tuple[float, float, float]:
    """Return how often p <= 0.05 where two methods are alike: questions alone, seeds resampled, and ours."""
    random = np.random.default_rng(0)
    found = np.zeros(3)
    for _ in range(runs):
        noise = random.normal(0, 1, (1, CLUSTERS)) + random.normal(0, 1, (seeds, CLUSTERS))
        differences = noise + random.normal(0, spread * np.sqrt((1 + 1 / seeds) / CLUSTERS * seeds), (seeds, 1))
        mean = float(differences.mean())
        found += (
            _p(differences.mean(axis=0, keepdims=True), mean) <= 0.05,
            _resampled_seeds(differences, random),
            _p(differences, mean) <= 0.05,
        )
    questions, resampled, ours = found / runs
    return float(questions), float(resampled), float(ours)


def _p(differences: Floats, mean: float) -> float:
    by_seed = differences.mean(axis=1)
    centred = (differences - by_seed[:, None]) / CLUSTERS
    spread = paired.spread_of(by_seed, centred, np.zeros(CLUSTERS, dtype=np.int64))
    assert spread is not None
    return spread.p(mean)


def _resampled_seeds(differences: Floats, random: np.random.Generator) -> bool:
    """Return whether the interval of a bootstrap over seeds and questions leaves out 0."""
    seeds = len(differences)
    drawn = random.integers(seeds, size=(500, seeds))
    times = random.multinomial(CLUSTERS, np.full(CLUSTERS, 1 / CLUSTERS), size=500) / CLUSTERS
    low, high = np.quantile((differences[drawn].mean(axis=1) * times).sum(axis=1), [0.025, 0.975])
    return bool(low > 0 or high < 0)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    for seeds in (1, 3):
        speed(12, 10_000, seeds)
    print("\n| seeds | spread over seeds | questions alone | bootstrap of seeds | seeds and questions |")
    print("|---|---|---|---|---|")
    for seeds in (2, 3, 5):
        for name, spread in SPREADS.items():
            rates = " | ".join(f"{100 * rate:.1f} %" for rate in false_alarms(seeds, spread, runs))
            print(f"| {seeds} | {name} | {rates} |")


if __name__ == "__main__":
    main()
