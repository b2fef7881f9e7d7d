"""The contract of a task: prompts out, predictions in, scores in; it needs no model."""

from __future__ import annotations

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from kore_bench.errors import UserError
from kore_bench.examples import Example, Knowledge, Question
from kore_bench.measures import Score

if TYPE_CHECKING:
    from kore_bench.lmm import LMM

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a reader must know about a task. ``metric`` is the key of its headline figure among the scores.

    ``dimension`` is the dimension of retention whose benchmark it is: K.R is the mean of the headline figures of such
    tasks, which are percentages. ``judge`` says that a language model grades its answers. ``higher_is_better`` is None
    where only the scores tell (`kore_bench.measures.Score`).
    """

    name: str
    title: str
    source: str
    metric: str
    higher_is_better: bool | None = True
    licence: str
    citation: str
    dimension: str = ""
    judge: bool = False


_BESIDE = ("offline", "judge_url", "judge_settings")
"""Fields of tasks that decide how something is got, and never what it is."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Asks questions and scores the answers.

    A file in tasks/ defines one as ``TASK``; the file's name, underscores as hyphens, is the card's name.
    ``max_new_tokens`` bounds each answer (128 in the paper). ``limit`` is ``--limit``: how many questions are drawn,
    by whole groups (0: all). A plan also sets the fields ``offline``, ``judge`` (a name), ``judge_url`` and
    ``judge_settings`` (`kore_bench.judge.JudgeSettings`) of tasks that have them.
    """

    card: ClassVar[Card]
    max_new_tokens: int = 128
    limit: int = 0

    @abstractmethod
    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the questions that ``knowledge`` holds for this task, perhaps none."""

    @abstractmethod
    def correct(self, question: Question, prediction: str) -> float:
        """Return how right one answer is, from 0 to 1."""

    @abstractmethod
    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return the scores by name, in percent unless the name says otherwise, the headline figure first.

        ``predictions`` are in the order of ``questions``, of which there is at least one; ``seen_skills`` are the
        skills whose old samples calibration, Fisher information or replay drew on.
        """

    def right_answers(self, questions: Sequence[Question]) -> list[str]:
        """Return what a model says that does all right: the gold answers, unless the task asks for their absence."""
        return [question.answer for question in questions]

    def prompt(self, question: Question, *, in_context: bool = False) -> str:
        """Return the text that the model reads after the images.

        With ``in_context``, questions about what is injected are asked behind the paragraph that tells it.
        """
        return question.text

    def asked(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the questions that are asked: all, or those that `draw` takes where there is a limit."""
        questions = self.questions(knowledge)
        return draw(questions, groups(questions), self.limit) if self.limit else questions

    def key(self) -> dict[str, Any]:
        """Return, in JSON's terms, all beside the sources and the knowledge that decides the scores."""
        beside = _BESIDE if self.card.judge else (*_BESIDE, "judge")
        return {name: value for name, value in asdict(self).items() if name not in beside}

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why this task cannot run on ``knowledge``, None where it can."""
        return None if self.questions(knowledge) else f"{knowledge.root} has no questions for {self.card.name}"

    def note(self, knowledge: Knowledge) -> str:
        """Return what every reader of the scores must know of the questions, such as what could not be asked."""
        return ""


class ChoiceTask(Task):
    """A task whose questions come with options: nothing is generated, the answer is the likeliest option."""

    @abstractmethod
    def options(self, knowledge: Knowledge, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """Return what each of ``questions`` can be answered with: two options at least, the right one among them."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a toolkit found: scores, headline figure first, one row an answer for the predictions file, and facts.

    ``facts`` are kept in the record's diagnostics; one called ``note`` is what every reader of the scores must know.
    """

    scores: dict[str, Score]
    rows: tuple[dict[str, Any], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class ToolkitTask(Task):
    """A task that another toolkit asks of the loaded model, and scores, itself: it has no questions of ours.

    ``settable`` are the fields that ``--set FAMILY.FIELD=VALUE`` may set, for all tasks of its ``family`` (empty: the
    part of the task's name before its colon).
    """

    family: ClassVar[str] = ""
    settable: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def evaluate(self, model: LMM, answers: Path, progress: Callable[[int, int], None]) -> Evaluation:
        """Ask and score; ``answers`` is a path where answers may be kept, so that a stopped evaluation goes on.

        Files there must begin with its name: they are deleted once the scores are known.
        """

    @property
    def own_source(self) -> str:
        """Return the ``source`` of samples to calibrate on that the task asks too."""
        return self.card.name

    def samples(self, count: int) -> tuple[Example, ...]:
        """Return at most ``count`` questions with their right answers, to calibrate on: the same for the same count.

        Raises UserError where the task gives none.
        """
        raise UserError(f"--calibration {self.card.name}: this task gives no samples")

    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return no questions."""
        return ()

    def correct(self, question: Question, prediction: str) -> float:
        """Raise TypeError: only the toolkit knows how right an answer is."""
        raise TypeError(f"{self.card.name} is scored by its toolkit")

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Raise TypeError: only the toolkit knows what its answers are worth."""
        raise TypeError(f"{self.card.name} is scored by its toolkit")


class TaskFamily(ABC):
    """Tasks without number, called ``PREFIX:NAME``; a file in tasks/ defines one as ``FAMILY``."""

    prefix: ClassVar[str]

    @abstractmethod
    def make(self, name: str) -> ToolkitTask:
        """Return the task of this name; raises UserError where the toolkit is missing."""


@dataclass(frozen=True, kw_only=True)
class TaskSet:
    """Several tasks under one name; a file in tasks/ defines it.

    One that has the name of a task as well stands for it only where the knowledge folder has no file ``unless`` and
    ``module`` can be imported (or ``--set MODULE.python`` names an interpreter that can).
    """

    name: str
    members: tuple[str, ...]
    unless: str = ""
    module: str = ""


def draw(
    questions: Sequence[T], groups: Sequence[str], limit: int, strata: Sequence[str] | None = None
) -> tuple[T, ...]:
    """Return at most ``limit`` questions, in their order, of whole groups that are drawn under a fixed seed.

    ``groups`` says of each question what its answer depends on jointly. Groups are taken in turn from the ``strata``
    that their first questions belong to, so that every stratum keeps a like share. One group is always taken, however
    large it is.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    stacks: dict[str, list[list[int]]] = {}
    for group in random.Random(0).sample(sorted(members), len(members)):
        stacks.setdefault(strata[members[group][0]] if strata else "", []).append(members[group])
    kept: list[int] = []
    for turn in itertools.zip_longest(*(stacks[name] for name in sorted(stacks)), fillvalue=[]):
        for indices in turn:
            if not kept or len(kept) + len(indices) <= limit:
                kept += indices
    return tuple(questions[index] for index in sorted(kept))


def groups(questions: Sequence[Question]) -> list[str]:
    """Return what each question's answer depends on jointly: its group, or the question itself."""
    return [question.group or question.id for question in questions]
