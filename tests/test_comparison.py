"""Tests of comparing methods: figures by hand, and what is paired with what."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from kore_bench.comparison import Comparison, compare, p_words
from kore_bench.disagreements import gaps, varied
from kore_bench.sheet import Asked, Sheet, make_sheet

Values = dict[str, list[list[float]]]
"""Method -> seed -> credit of each question."""


def sheet(values: Values, questions: list[Asked]) -> Sheet:
    seeds = len(next(iter(values.values())))
    return make_sheet(
        tuple(values), tuple(range(seeds)), tuple(questions), np.asarray(list(values.values()), dtype=float)
    )


def facts(*groups: str, task: str = "adaptation") -> list[Asked]:
    return [Asked(task, str(number), "plant", group, f"q{number}?", "a") for number, group in enumerate(groups)]


def skills(*types: str) -> list[Asked]:
    return [Asked("retention", str(number), type, str(number), f"r{number}?", "a") for number, type in enumerate(types)]


def by_measure(rows: list[Comparison]) -> dict[str, Comparison]:
    return {row.measure: row for row in rows}


# --- figures ---

QUESTIONS = [*facts("e1", "e1", "e2", "e3"), *skills("COM", "COM", "OCR", "OCR", "OCR", "OCR")]
KORE = [[1, 1, 0.5, 0, 1, 1, 1, 1, 1, 0], [1, 0, 0.5, 1, 1, 0, 1, 1, 0, 0]]
LORA = [[0, 0, 0.5, 0, 1, 0, 1, 0, 1, 0], [0, 0, 0.0, 1, 1, 0, 1, 1, 1, 0]]


def test_figures_by_hand() -> None:
    found = by_measure(compare(sheet({"kore": KORE, "lora": LORA}, QUESTIONS), [("kore", "lora")]))
    assert list(found) == ["K.A", "K.R", "Avg", "COM", "OCR"]
    assert found["K.A"].by_seed == pytest.approx((50, 37.5))
    assert found["K.A"].values == pytest.approx((62.5, 18.75))
    assert found["COM"].by_seed == pytest.approx((50, 0))
    assert found["OCR"].by_seed == pytest.approx((25, -25))
    assert found["K.R"].by_seed == pytest.approx((37.5, -12.5))
    assert found["K.R"].values == pytest.approx((68.75, 56.25))
    assert found["Avg"].by_seed == pytest.approx((43.75, 12.5))
    assert found["Avg"].difference == pytest.approx(28.125)
    assert found["Avg"].deviation == pytest.approx(31.25 / 2**0.5)
    assert (found["K.A"].n, found["K.A"].clusters) == (4, 3)
    assert (found["K.R"].n, found["K.R"].clusters) == (6, 6)
    # Questions count as right where half of the credit or more is given on average: 1 and 2 (3 of kore is at 0.5).
    assert (found["K.A"].better, found["K.A"].worse) == (3, 0)
    assert found["K.A"].mcnemar == pytest.approx(0.25)
    assert found["Avg"].mcnemar is None
    assert [row.dimension for row in found.values()] == [False, False, False, True, True]


def test_the_other_way_round_is_the_mirror_image() -> None:
    both = sheet({"kore": KORE, "lora": LORA}, QUESTIONS)
    for one, other in zip(compare(both, [("kore", "lora")]), compare(both, [("lora", "kore")]), strict=True):
        assert other.difference == pytest.approx(-one.difference)
        assert other.within == pytest.approx((-one.within[1], -one.within[0]) if one.within else None)
        assert other.overall == pytest.approx((-one.overall[1], -one.overall[0]) if one.overall else None)
        assert (other.p_questions, other.p_overall) == pytest.approx((one.p_questions, one.p_overall))
        assert (other.better, other.worse) == (one.worse, one.better)


def test_a_contrast_does_not_depend_on_other_methods_or_the_order_of_questions() -> None:
    random = np.random.default_rng(0)
    questions = facts(*(f"e{number // 3}" for number in range(60)))
    values: Values = {name: random.integers(2, size=(2, 60)).tolist() for name in ("kore", "lora", "ewc")}
    alone = compare(sheet({name: values[name] for name in ("kore", "lora")}, questions), [("kore", "lora")])
    more = [*questions, *facts("later", task="old-facts")]  # asked of one other method only
    wider = {name: [[*seed, 1 if name == "ewc" else float("nan")] for seed in rows] for name, rows in values.items()}
    among = compare(sheet(wider, more), list(combinations(values, 2)))
    turned = {name: [seed[::-1] for seed in values[name]] for name in ("kore", "lora")}
    back = compare(sheet(turned, questions[::-1]), [("kore", "lora")])
    for row in (among[0], back[0]):
        assert row.p_questions == alone[0].p_questions
        assert row.within == pytest.approx(alone[0].within)
        assert row.overall == pytest.approx(alone[0].overall)


def test_p_values_are_corrected_over_the_table_and_dimensions_apart() -> None:
    found = compare(sheet({"kore": KORE, "lora": LORA}, QUESTIONS), [("kore", "lora")])
    for dimension in (False, True):
        rows = [row for row in found if row.dimension == dimension]
        smallest = min(rows, key=lambda row: row.p_questions)
        assert smallest.holm_questions == pytest.approx(min(1.0, len(rows) * smallest.p_questions))
        least = min(rows, key=lambda row: row.p_overall or 0)
        assert least.p_overall is not None
        assert least.holm_overall == pytest.approx(min(1.0, len(rows) * least.p_overall))


def test_with_one_seed_nothing_is_said_of_others() -> None:
    clear = sheet({"kore": [[1.0] * 40], "lora": [[0.0] * 39 + [1.0]]}, facts(*map(str, range(40))))
    (row,) = compare(clear, [("kore", "lora")])
    assert (row.overall, row.p_overall, row.holm_overall, row.deviation) == (None, None, None, None)
    assert row.interval == row.within
    assert row.evidence == "questions"
    assert row.winner == "kore"


def test_a_difference_on_every_seed_and_entity_carries_to_seeds_and_one_that_turns_does_not() -> None:
    random = np.random.default_rng(1)
    questions = facts(*(f"e{number // 2}" for number in range(120)))

    def answers(shares: tuple[float, ...]) -> list[list[float]]:
        return [(random.random(120) < share).astype(float).tolist() for share in shares]

    values = {"low": answers((0.2, 0.21, 0.19)), "high": answers((0.8, 0.79, 0.81)), "loose": answers((0.2, 0.9, 0.9))}
    high, loose = compare(sheet(values, questions), [("high", "low"), ("loose", "low")])
    assert (high.evidence, high.winner) == ("seeds", "high")
    assert (loose.evidence, loose.winner) == ("questions", "loose")
    assert loose.overall is not None
    assert loose.overall[0] < 0 < loose.overall[1]


def test_false_alarms_of_all_pairs_of_equal_methods_are_rare_after_the_correction() -> None:
    random = np.random.default_rng(2)
    questions = facts(*(f"e{number // 4}" for number in range(160)))
    names = [f"m{number}" for number in range(6)]
    alarms, raw = 0, []
    for _ in range(40):
        known = random.random((6, 1, 40)) < 0.5
        values = np.repeat(known, 4, axis=2).astype(float)
        rows = compare(make_sheet(tuple(names), (0,), tuple(questions), values), list(combinations(names, 2)))
        alarms += any(row.evidence for row in rows)
        raw += [row.p_questions <= 0.05 for row in rows]
    assert np.mean(raw) == pytest.approx(0.05, abs=0.03)
    assert alarms / 40 <= 0.15


# --- what is paired with what ---


def test_only_shared_seeds_and_questions_count() -> None:
    nan = float("nan")
    values: Values = {"kore": [[1, 1, 0], [1, 1, 1]], "lora": [[0, 1, nan], [nan, nan, nan]]}
    (row,) = compare(sheet(values, facts("a", "b", "c")), [("kore", "lora")])
    assert (row.seeds, row.n, row.by_seed) == ((0,), 2, (50.0,))
    none: Values = {"kore": [[1, 1, 0], [nan] * 3], "lora": [[nan] * 3, [1, 1, 1]]}
    assert compare(sheet(none, facts("a", "b", "c")), [("kore", "lora")]) == []


def test_a_task_that_one_side_lacks_is_left_out() -> None:
    nan = float("nan")
    lora = [[*seed[:4], *[nan] * 6] for seed in LORA]
    assert list(by_measure(compare(sheet({"kore": KORE, "lora": lora}, QUESTIONS), [("kore", "lora")]))) == ["K.A"]


def test_each_seed_may_draw_entities_of_its_own() -> None:
    nan = float("nan")
    questions = facts("a", "b", "c", "d")
    values: Values = {"kore": [[1, 0, nan, nan], [nan, nan, 1, 1]], "lora": [[0, 0, nan, nan], [nan, nan, 0, 1]]}
    (row,) = compare(sheet(values, questions), [("kore", "lora")])
    assert (row.by_seed, row.n, row.clusters) == ((50.0, 50.0), 4, 4)
    assert row.within is not None
    assert row.overall is not None


def test_a_single_entity_says_nothing_about_others() -> None:
    (row,) = compare(sheet({"kore": [[1, 1], [1, 1]], "lora": [[0, 0], [0, 1]]}, facts("a", "a")), [("kore", "lora")])
    assert (row.interval, row.p_questions, row.detectable, row.evidence) == (None, 1.0, None, "")


def test_other_tasks_stand_under_their_names() -> None:
    questions = [*facts("a", "b"), *facts("a", "b", task="old-facts")]
    found = compare(sheet({"kore": [[1, 1, 0, 1]], "lora": [[1, 0, 1, 1]]}, questions), [("kore", "lora")])
    assert [(row.measure, row.difference) for row in found] == [("K.A", 50.0), ("old-facts", -50.0)]


def test_examples_take_turns_among_tasks_and_types() -> None:
    questions = [
        *(Asked("adaptation", str(number), "plant", "", "", "") for number in range(3)),
        Asked("adaptation", "3", "tower", "", "", ""),
        *skills("COM", "COM"),
    ]
    pair = sheet({"kore": [[1, 1, 1, 0.5, 1, 0]], "lora": [[0, 0, 0, 0, 0, 0]]}, questions).pair("kore", "lora")
    assert pair is not None
    led = [gap for gap in gaps(pair) if gap.ours > gap.theirs]
    shown = [(gap.asked.task, gap.asked.id) for gap in varied(led, 4)]
    assert shown == [("adaptation", "0"), ("retention", "0"), ("adaptation", "3"), ("adaptation", "1")]
    assert len(list(varied(led, 99))) == 5


def test_p_values_show_the_digits_that_they_carry() -> None:
    assert [p_words(p) for p in (1e-9, 0.0123, 0.0999, 0.456, 1.0)] == ["< 0.001", "0.012", "0.10", "0.46", "1.00"]
