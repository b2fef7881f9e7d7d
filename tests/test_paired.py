"""Tests of the paired tests: known answers, SciPy's answers, and how often they err in simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kore_bench import paired
from kore_bench.measures import bootstrap_mean_of_means, paired_difference
from kore_bench.paired import Floats, Spread


def column(values: list[float] | Floats) -> Floats:
    """Return one contrast as ``share[C, 1]``: clusters of one question each."""
    return np.asarray(values, dtype=np.float64)[:, None] / len(values)


def exact_p(share: Floats) -> float:
    """Return the sign-flip p by listing all signs."""
    sums = [abs(np.dot(signs, share)) for signs in itertools.product((-1, 1), repeat=len(share))]
    return float(np.mean(np.asarray(sums) >= abs(share.sum()) - 1e-12))


def flip_p(values: list[float] | Floats) -> float:
    share = column(values)
    return paired.flip_p(float(share.sum()), paired.flipped(share, seed=0)[:, 0], float((share**2).sum()))


def crossed(seed: int, *, seeds: int, clusters: int, over_seeds: float, over_questions: float) -> Floats:
    """Return differences ``[S, C]`` around 0 of every cluster on every seed: effects of seeds, of clusters, and noise."""
    random = np.random.default_rng(seed)
    of_seeds = random.normal(0, over_seeds, (seeds, 1))
    of_questions = random.normal(0, over_questions, (1, clusters))
    return np.asarray(of_seeds + of_questions + random.normal(0, 1, (seeds, clusters)))


def spread(differences: Floats) -> Spread:
    """Return the spread of the mean over ``differences[S, C]``, a question for each cluster."""
    by_seed = differences.mean(axis=1)
    centred = (differences - by_seed[:, None]) / differences.shape[1]
    found = paired.spread_of(by_seed, centred, np.zeros(differences.shape[1], dtype=np.int64))
    assert found is not None
    return found


# --- corrections and counts ---


def test_holm_by_hand() -> None:
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 lifted to the one before
    assert paired.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm(np.array([0.6, 0.7])) == pytest.approx([1.0, 1.0])
    assert len(paired.holm(np.array([]))) == 0


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert paired.mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert paired.mcnemar(0, 0) == 1
    for better, worse in ((5, 5), (59, 14), (2, 31), (1000, 1100)):
        assert paired.mcnemar(better, worse) == pytest.approx(stats.binomtest(better, better + worse).pvalue)


# --- questions: sign flips and the bootstrap ---


def test_flips_agree_with_all_signs_listed() -> None:
    values = np.random.default_rng(1).normal(0.4, 1, 12)
    assert flip_p(values) == pytest.approx(exact_p(column(values)[:, 0]), abs=0.01)


def test_flips_agree_with_scipy() -> None:
    random = np.random.default_rng(2)
    one, other = random.random(40) + 0.08, random.random(40)
    theirs = stats.permutation_test(
        (one, other), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=9999, random_state=0
    )
    assert flip_p(one - other) == pytest.approx(theirs.pvalue, abs=0.015)


def test_flips_count_ties_and_find_nothing_in_nothing() -> None:
    # Five clusters that all speak for the one side: only two of the 32 signs go as far.
    assert flip_p([1.0] * 5) == pytest.approx(2 / 32, abs=0.01)
    assert flip_p([0.0] * 5) == 1
    assert flip_p([1.0]) == 1


def test_the_bound_takes_over_where_flips_are_too_coarse_and_never_claims_too_much() -> None:
    assert flip_p([1.0] * 60) == pytest.approx(2 * math.exp(-30))
    for seed in range(20):
        share = column(np.random.default_rng(seed).normal(0.7, 1, 10))
        bound = paired.flip_p(float(share.sum()), np.empty(0), float((share**2).sum()))
        assert bound >= exact_p(share[:, 0])


def test_contrasts_do_not_depend_on_their_neighbours_or_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    share = np.random.default_rng(3).normal(0, 1, (50, 3))
    flips, boots = paired.flipped(share, seed=4), paired.bootstrapped(share, np.full((50, 3), 0.02), seed=4)
    assert paired.flipped(share[:, 1:2], seed=4)[:, 0] == pytest.approx(flips[:, 1])
    assert paired.bootstrapped(share[:, 2:], np.full((50, 1), 0.02), seed=4)[:, 0] == pytest.approx(boots[:, 2])
    assert np.abs(flips).max() <= np.abs(share).sum(axis=0).max() + 1e-9
    monkeypatch.setattr(paired, "_BLOCK", 50 * 700)
    assert len(paired.flipped(share, seed=4)) == len(flips)
    assert np.quantile(paired.bootstrapped(share, np.full((50, 3), 0.02), seed=4)[:, 0], 0.9) == pytest.approx(
        np.quantile(boots[:, 0], 0.9), rel=0.2
    )


def test_the_bootstrap_agrees_with_that_of_the_scores() -> None:
    random = np.random.default_rng(5)
    sizes = random.integers(1, 8, 60)
    groups = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    one = random.integers(2, size=len(groups)).astype(float)
    other = random.integers(2, size=len(groups)).astype(float)
    share = np.bincount([int(group) for group in groups], one - other)[:, None] / len(groups)
    drawn = 100 * paired.bootstrapped(share, sizes[:, None] / len(groups), seed=0)[:, 0]
    score = paired_difference(one.tolist(), other.tolist(), groups, resamples=5000)
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([score.low, score.high], abs=1.0)


def test_the_bootstrap_of_a_mean_over_parts_agrees_with_that_of_the_scores() -> None:
    random = np.random.default_rng(6)
    parts = {"COM": random.normal(0, 1, 200), "OCR": random.normal(0, 1, 50)}
    drawn = [
        paired.bootstrapped(column(values), column(np.ones(len(values))), seed=index)[:, 0] / 2
        for index, values in enumerate(parts.values())
    ]
    score = bootstrap_mean_of_means({name: list(values) for name, values in parts.items()}, resamples=5000, scale=1)
    assert np.quantile(sum(drawn), [0.025, 0.975]) == pytest.approx([score.low, score.high], abs=0.02)


# --- seeds and questions ---


def test_with_one_seed_the_spread_is_that_of_a_paired_t_test() -> None:
    values = np.random.default_rng(7).normal(0.2, 1, 80)
    found, theirs = spread(values[None]), stats.ttest_1samp(values, 0)
    assert found.half_width(0.025) == pytest.approx(values.mean() - theirs.confidence_interval(0.95).low)
    assert found.p(float(values.mean())) == pytest.approx(theirs.pvalue)


def test_with_questions_of_its_own_for_each_seed_the_spread_is_a_t_test_over_seeds() -> None:
    random = np.random.default_rng(8)
    seeds, each = 4, 30
    own = np.kron(np.eye(seeds), np.ones(each))  # a cluster is asked on one seed only
    differences = own * (random.normal(0, 0.5, (seeds, 1)) + random.normal(0, 0.1, seeds * each))
    by_seed = differences.sum(axis=1) / each
    centred = (differences - own * by_seed[:, None]) / each
    found = paired.spread_of(by_seed, centred, np.zeros(seeds * each, dtype=np.int64))
    assert found is not None
    assert (found.seeds_df, found.questions) == (3, 0)
    theirs = stats.ttest_1samp(by_seed, 0)
    assert found.half_width(0.025) == pytest.approx(by_seed.mean() - theirs.confidence_interval(0.95).low)
    assert found.p(float(by_seed.mean())) == pytest.approx(theirs.pvalue)


def test_the_two_parts_estimate_what_was_put_in() -> None:
    seeds, clusters = 4, 200
    drawn = [
        spread(crossed(seed, seeds=seeds, clusters=clusters, over_seeds=0.3, over_questions=2)) for seed in range(200)
    ]
    assert np.mean([one.seeds for one in drawn]) == pytest.approx(0.3**2 / seeds + 1 / seeds / clusters, rel=0.15)
    assert np.mean([one.questions for one in drawn]) == pytest.approx(2**2 / clusters, rel=0.05)


def test_a_part_with_one_cluster_has_no_spread() -> None:
    parts = np.array([0, 0, 1])
    assert paired.spread_of(np.array([0.1, 0.2]), np.zeros((2, 3)), parts) is None


def test_an_interval_ends_at_0_at_its_own_p() -> None:
    found = Spread(0.02, 2, 0.01, 59)
    assert found.half_width(found.p(0.5) / 2) == pytest.approx(0.5)
    assert found.p(0) == 1
    assert Spread(0.0, 2, 0.0, 59).p(0.1) < 1e-15


# --- how often the tests err where there is no difference ---


def rejected(*, over_seeds: float, over_questions: float, seeds: int, runs: int = 400) -> tuple[float, float]:
    """Return how often p <= 0.05 over seeds and questions, and over questions alone (normal, 60 clusters)."""
    both, alone = 0, 0
    for run in range(runs):
        differences = crossed(run, seeds=seeds, clusters=60, over_seeds=over_seeds, over_questions=over_questions)
        both += spread(differences).p(float(differences.mean())) <= 0.05
        alone += spread(differences.mean(axis=0, keepdims=True)).p(float(differences.mean())) <= 0.05
    return both / runs, alone / runs


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("over_seeds", "over_questions"), [(0, 0), (0, 2), (0.2, 1), (2, 1)])
def test_no_more_false_alarms_than_5_percent(seeds: int, over_seeds: float, over_questions: float) -> None:
    both, _ = rejected(over_seeds=over_seeds, over_questions=over_questions, seeds=seeds)
    assert both <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 400)


def test_the_interval_covers_and_questions_alone_do_not_where_trainings_differ() -> None:
    both, alone = rejected(over_seeds=1, over_questions=0.5, seeds=3)
    assert both <= 0.07
    assert alone >= 0.5


def test_flips_of_clusters_hold_their_level_where_mcnemar_does_not() -> None:
    random = np.random.default_rng(9)
    flips, independent = 0, 0
    for _ in range(300):
        known = np.repeat(random.integers(2, size=(2, 40)), 8, axis=1)  # an entity is known or not, all 8 questions
        one, other = known
        clusters = (one - other).reshape(40, 8).sum(axis=1)
        flips += flip_p(clusters.astype(float)) <= 0.05
        independent += paired.mcnemar(int((one > other).sum()), int((other > one).sum())) <= 0.05
    assert flips / 300 <= 0.08
    assert independent / 300 >= 0.3
