"""The task contract, and adaptation, retention and old facts scored by hand-computed cases."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kore_bench.tasks
from kore_bench.errors import UserError
from kore_bench.examples import Knowledge, Question
from kore_bench.task import Card, Task, groups
from kore_bench.tasks import adaptation, old_facts, retention

EMPTY = Knowledge(root=Path("folder"), digest="", items=(), questions=())
MODULES = {
    module.name: importlib.import_module(f"kore_bench.tasks.{module.name}")
    for module in pkgutil.iter_modules(kore_bench.tasks.__path__)
}
NAMES = [name for name, module in MODULES.items() if hasattr(module, "TASK")]
"""Tasks with questions of ours; families of toolkits' tasks have tests of their own."""


def ask(answer: str, number: int = 0, *, type: str = "", kind: str = "", group: str = "") -> Question:
    return Question(id=str(number), images=(), text="What?", answer=answer, type=type, kind=kind, group=group)


def balanced(dimension: str, answers: Sequence[str], num: int = 20) -> list[Question]:
    return [ask(answers[number % len(answers)], number, type=dimension) for number in range(num)]


@pytest.mark.parametrize("name", NAMES)
def test_every_task_keeps_the_contract(name: str) -> None:
    task: Task = MODULES[name].TASK
    assert task.card.name == name.replace("_", "-")
    assert task.max_new_tokens == 128
    assert all((task.card.title, task.card.source, task.card.licence, task.card.citation))
    assert "folder has no" in (task.skip(EMPTY) or "")
    assert task.questions(EMPTY) == ()


@pytest.mark.parametrize("name", ["adaptation", "retention", "old_facts"])
def test_one_question_is_asked_and_scored(name: str) -> None:
    task: Task = MODULES[name].TASK
    question = ask("yes", type="HAL", group="entity")
    knowledge = replace(EMPTY, questions=(question,), retention=(question,), old_facts=(question,))
    assert task.skip(knowledge) is None
    assert task.questions(knowledge) == (question,)
    assert task.prompt(question) == "What?"
    scores = task.score([question], ["yes"])
    assert next(iter(scores)) == task.card.metric
    assert scores[task.card.metric].value == 100
    assert task.correct(question, "yes") == 1
    with pytest.raises(ValueError, match="zip"):
        task.score([question], [])


def test_a_card_refuses_unknown_and_missing_keys() -> None:
    known: dict[str, Any] = {"name": "n", "title": "t", "source": "s", "metric": "m", "licence": "l", "citation": "c"}
    assert Card(**known).higher_is_better
    with pytest.raises(TypeError, match="metrik"):
        Card(**(known | {"metrik": "m"}))
    with pytest.raises(TypeError, match="licence"):
        Card(**{key: value for key, value in known.items() if key != "licence"})


def test_groups_fall_back_to_the_question() -> None:
    assert groups([ask("a", 1, group="entity"), ask("b", 2)]) == ["entity", "2"]


def test_ka_is_the_mean_of_cem_and_f1() -> None:
    questions = [ask("misty valley", 1, group="one"), ask("Ada Weber", 2, group="two")]
    predictions = ["Its home is misty valley.", "Weber"]
    # CEM: 1 and 0. F1: 2 of 5 words and 2 of 2 give 4/7; 1 of 1 and 1 of 2 give 2/3.
    scores = adaptation.TASK.score(questions, predictions)
    assert scores["CEM"].value == pytest.approx(50)
    assert scores["F1"].value == pytest.approx(50 * (4 / 7 + 2 / 3))
    assert scores["K.A"].value == pytest.approx(25 * (1 + 4 / 7 + 2 / 3))
    assert scores["K.A"].n == 2
    assert adaptation.TASK.correct(questions[0], predictions[0]) == pytest.approx((1 + 4 / 7) / 2)
    assert adaptation.TASK.correct(questions[1], predictions[1]) == pytest.approx(1 / 3)


def test_adaptation_intervals_resample_entities() -> None:
    # Every entity is half right: resampling entities cannot move the mean, resampling questions would.
    questions = [ask("yes", number, group=f"entity {number // 2}") for number in range(20)]
    score = adaptation.TASK.score(questions, ["yes", "no"] * 10)["K.A"]
    assert (score.low, score.value, score.high) == (50, 50, 50)


def test_unreachable_answers_are_counted_and_repaired_beside_the_official_score() -> None:
    questions = [ask("'ten foot tall'", 1), ask("Tesla", 2), ask("Hungary", 3), ask("Oregon", 4)]
    scores = adaptation.TASK.score(questions, ["ten foot tall", "Tesla", "Hungary", "Oregon"])
    assert scores["CEM"].value == 75
    assert scores["CEM repaired"].value == 100
    assert (scores["unreachable"].value, scores["unreachable"].n) == (1, 4)


def test_adaptation_is_broken_down_by_kind_and_type() -> None:
    questions = [
        ask("a b", 1, kind="news", type="sport"),
        ask("c", 2, kind="news", type="film"),
        ask("d", 3, kind="wiki", type="film"),
        ask("e", 4),
    ]
    scores = adaptation.TASK.score(questions, ["a b", "x", "d", "e"])
    parts = {name: (score.value, score.n) for name, score in scores.items() if "=" in name}
    assert parts == {
        "K.A kind=news": (50, 2),
        "K.A kind=wiki": (100, 1),
        "K.A type=film": (50, 2),
        "K.A type=sport": (100, 1),
    }


def test_in_context_puts_the_paragraph_before_the_question_of_adaptation_only() -> None:
    question = replace(ask("x"), context="A paragraph.")
    assert adaptation.TASK.prompt(question, in_context=True) == "A paragraph.\nWhat?"
    assert adaptation.TASK.prompt(question) == "What?"
    assert old_facts.TASK.prompt(question, in_context=True) == "What?"
    assert retention.TASK.prompt(question, in_context=True) == "What?"
    with pytest.raises(UserError, match="Question '0' names no injected item"):
        adaptation.TASK.prompt(ask("x"), in_context=True)


def test_old_facts_are_scored_like_adaptation_under_their_own_name() -> None:
    scores = old_facts.TASK.score([ask("misty valley", 1), ask("oat", 2)], ["misty valley", "plum"])
    assert scores["old-facts"].value == 50
    assert "K.A" not in scores


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("Yes.", "yes", True),
        (" red  Circle", "red circle", True),
        ("red, circle", "red circle", True),
        ("yes no", "yes", False),
        ("yes, it is", "yes", False),
        ("circle red", "red circle", False),
        ("a k 7", "k 7", False),
        ("A", "B", False),
        ("-3", "3", False),
        ("", "yes", False),
    ],
)
def test_exact_forgives_case_and_punctuation_only(prediction: str, answer: str, right: bool) -> None:
    assert retention.exact(prediction, answer) is right


@pytest.mark.parametrize(("options", "chance"), [(("yes", "no"), 50), (("red", "blue", "gray", "green"), 25)])
def test_a_constant_answer_scores_chance_and_all_options_score_nothing(options: tuple[str, ...], chance: int) -> None:
    questions = balanced("HAL", options)
    task = retention.TASK
    assert task.score(questions, [options[0]] * 20)["HAL"].value == chance
    for everything in (" ".join(options), ", ".join(options), " or ".join(options)):
        assert task.score(questions, [everything] * 20)["HAL"].value == 0


def test_kr_is_the_mean_of_the_dimensions_whatever_their_sizes() -> None:
    questions = [*balanced("COM", ["red"], 30), *balanced("OCR", ["a k"], 10), *balanced("HAL", ["no"], 20)]
    predictions = ["red"] * 30 + ["a k"] * 5 + ["k"] * 5 + ["yes"] * 20
    scores = retention.TASK.score(questions, predictions)
    names = ["K.R", "COM", "OCR", "HAL"]
    assert list(scores)[:4] == names
    assert [scores[name].value for name in names] == [50, 100, 50, 0]
    assert [scores[name].n for name in names] == [60, 30, 10, 20]
    assert 0 < scores["OCR"].low < 50 < scores["OCR"].high < 100


def test_form_alone_is_told_from_knowledge() -> None:
    questions = [*balanced("COM", ["red", "blue"], 20), *balanced("OCR", ["a k"], 10)]
    predictions = ["it is red, I think"] * 20 + ["a k"] * 10
    scores = retention.TASK.score(questions, predictions)
    assert (scores["K.R"].value, scores["K.R tolerant"].value) == (50, 75)
    assert (scores["COM chance"].value, scores["OCR chance"].value) == (50, 100)
    assert scores["COM chance"].n == 20


def test_kr_is_given_for_calibrated_and_held_out_skills_apart() -> None:
    questions = [*balanced("COM", ["red"], 4), *balanced("OCR", ["k"], 4), *balanced("HAL", ["no"], 4)]
    predictions = ["red"] * 4 + ["k"] * 2 + ["x"] * 2 + ["yes"] * 4
    scores = retention.TASK.score(questions, predictions, seen_skills=frozenset({"COM", "OCR", "MAT"}))
    assert scores["K.R calibrated"].value == 75
    assert scores["K.R held-out"].value == 0
    only = retention.TASK.score(questions[:4], predictions[:4], seen_skills=frozenset({"COM"}))
    assert "K.R held-out" not in only
    assert "K.R calibrated" in only


def test_an_unknown_dimension_is_refused_with_the_nearest() -> None:
    knowledge = replace(EMPTY, retention=(ask("x", 7, type="HALL"),))
    with pytest.raises(UserError, match=r"Question '7' of folder.retention\.jsonl .* 'HALL'"):
        retention.TASK.questions(knowledge)
