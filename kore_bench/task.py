"""The contract of a task: prompts out, predictions in, scores in; it needs no model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kore_bench.examples import Knowledge, Question
from kore_bench.measures import Score

if TYPE_CHECKING:
    from kore_bench.lmm import LMM


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a reader must know about a task. ``metric`` is the key of its headline figure among the scores."""

    name: str
    title: str
    source: str
    metric: str
    higher_is_better: bool = True
    licence: str
    citation: str


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Asks questions and scores the answers.

    A file in tasks/ defines one as ``TASK``; the file's name, underscores as hyphens, is the card's name.
    ``max_new_tokens`` bounds each answer (128 in the paper).
    """

    card: ClassVar[Card]
    max_new_tokens: int = 128

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

    def prompt(self, question: Question, *, in_context: bool = False) -> str:
        """Return the text that the model reads after the images; only adaptation heeds ``in_context``."""
        return question.text

    def key(self) -> dict[str, Any]:
        """Return, in JSON's terms, all beside the sources and the knowledge that decides what the task asks."""
        return asdict(self)

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why this task cannot run on ``knowledge``, None where it can."""
        return None if self.questions(knowledge) else f"{knowledge.root} has no questions for {self.card.name}"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a toolkit found: scores, headline figure first, one row an answer for the predictions file, and facts.

    ``facts`` are kept in the record's diagnostics.
    """

    scores: dict[str, Score]
    rows: tuple[dict[str, Any], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class ToolkitTask(Task):
    """A task that another toolkit asks of the loaded model, and scores, itself: it has no questions of ours.

    ``settable`` are the fields that ``--set PREFIX.FIELD=VALUE`` may set, for all tasks of its family.
    """

    settable: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def evaluate(self, model: LMM, answers: Path, progress: Callable[[int, int], None]) -> Evaluation:
        """Ask and score; ``answers`` is a path where answers may be kept, so that a stopped evaluation goes on.

        Files there must begin with its name: they are deleted once the scores are known.
        """

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


def groups(questions: Sequence[Question]) -> list[str]:
    """Return what each question's answer depends on jointly: its group, or the question itself."""
    return [question.group or question.id for question in questions]
