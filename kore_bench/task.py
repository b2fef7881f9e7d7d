"""The contract of a task: prompts out, predictions in, scores in; it needs no model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kore_bench.examples import Knowledge, Question
from kore_bench.measures import Score


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

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why this task cannot run on ``knowledge``, None where it can."""
        return None if self.questions(knowledge) else f"{knowledge.root} has no questions for {self.card.name}"


def groups(questions: Sequence[Question]) -> list[str]:
    """Return what each question's answer depends on jointly: its group, or the question itself."""
    return [question.group or question.id for question in questions]
