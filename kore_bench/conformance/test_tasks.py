"""What every task must hold: its card, its questions, and scores that follow the answers."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from pathlib import Path

import pytest

from kore_bench.examples import Knowledge, Question
from kore_bench.registry import Registry
from kore_bench.task import Task, ToolkitTask

EMPTY = Knowledge(root=Path("folder"), digest="", items=(), questions=())
LIMIT = 300
"""Questions that are scored, so that large tasks are tested in seconds."""


@pytest.fixture
def the_task(task: str, registry: Registry) -> Task:
    """Return the task that is tested."""
    found: Task = registry.find("tasks", task)
    return found


@pytest.fixture
def questions(the_task: Task, knowledge: Knowledge) -> tuple[Question, ...]:
    """Return the first questions of the task, or skip the test where the knowledge holds none."""
    if isinstance(the_task, ToolkitTask):
        pytest.skip("its toolkit asks and scores")
    if reason := the_task.skip(knowledge):
        pytest.skip(f"{reason}: name a folder that has some by --data")
    return the_task.questions(knowledge)[:LIMIT]


def test_task_has_a_whole_card(the_task: Task) -> None:
    """Whoever reads a table can look up what was asked, by whom, under which licence."""
    card = the_task.card
    assert re.fullmatch(r"[a-z0-9:._]+(-[a-z0-9:._]+)*", card.name), f"{card.name!r} is no name for --tasks"
    needed = [field.name for field in fields(card) if field.name != "dimension"]  # of retention's benchmarks alone
    assert all(getattr(card, name) != "" for name in needed), "a field of the card is empty"
    assert the_task.max_new_tokens > 0
    assert json.dumps(the_task.key()), "what decides its questions must be JSON: it is in the cell's key"


def test_task_says_why_it_cannot_run(the_task: Task) -> None:
    """A folder that has nothing for the task gives a reason, not an error."""
    if isinstance(the_task, ToolkitTask):
        pytest.skip("its toolkit brings its own knowledge")
    assert the_task.skip(EMPTY), "it does not skip knowledge that holds nothing"


def test_task_asks_the_same_questions_again(
    the_task: Task, knowledge: Knowledge, questions: tuple[Question, ...]
) -> None:
    """Every method must meet equal questions, each with its own id, whose images are there."""
    every = the_task.questions(knowledge)
    assert the_task.questions(knowledge) == every
    assert len({question.id for question in every}) == len(every), "two questions have one id"
    for question in questions:
        assert all(image.is_file() for image in question.images), f"an image of question {question.id} is missing"
        for in_context in (False, True):
            assert the_task.prompt(question, in_context=in_context).strip(), f"question {question.id} asks nothing"


def test_task_scores_answers(the_task: Task, questions: tuple[Question, ...]) -> None:
    """The right answers must beat the others; scores are finite, lie within their intervals, and repeat."""
    gold, silence = the_task.right_answers(questions), [""] * len(questions)
    others = silence if gold != silence else [question.answer for question in questions]
    assert all(0 <= the_task.correct(question, text) <= 1 for question in questions for text in (question.answer, ""))
    best, worst = the_task.score(questions, gold), the_task.score(questions, others)
    assert the_task.score(questions, gold) == best, "equal answers are scored otherwise"
    for scores in (best, worst):
        assert next(iter(scores)) == the_task.card.metric, "the headline figure must come first"
        for name, score in scores.items():
            assert score.n > 0, name
            assert math.isfinite(score.value), name
            assert score.low <= score.value <= score.high, f"{name} lies outside of its interval"
    sign = 1 if the_task.card.higher_is_better else -1
    headline = the_task.card.metric
    assert sign * best[headline].value > sign * worst[headline].value, "gold answers are no better than none"


def test_task_refuses_answers_that_do_not_fit(the_task: Task, questions: tuple[Question, ...]) -> None:
    """A lost answer must not shift all others by one."""
    with pytest.raises(ValueError):  # noqa: PT011 (any of its own words)
        the_task.score(questions, [question.answer for question in questions][1:])
