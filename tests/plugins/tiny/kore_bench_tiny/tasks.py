"""The injected knowledge, scored by exact match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kore_bench.examples import Knowledge, Question
from kore_bench.measures import Score, bootstrap
from kore_bench.task import Card, Task, groups


@dataclass(frozen=True, kw_only=True)
class Exact(Task):
    """Asks what adaptation asks, and counts answers that are the gold answer, letter for letter."""

    card = Card(
        name="exact",
        title="Exact answers to questions about the injected knowledge",
        source="questions of the knowledge folder",
        metric="exact",
        licence="that of the knowledge folder",
        citation="none",
    )

    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the questions about the items."""
        return knowledge.questions

    def correct(self, question: Question, prediction: str) -> float:
        """Return 1 for the gold answer, else 0."""
        return float(prediction.strip() == question.answer.strip())

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return the share of exact answers, in percent."""
        marks = [self.correct(question, text) for question, text in zip(questions, predictions, strict=True)]
        return {"exact": bootstrap(marks, groups(questions))}


TASK = Exact()
