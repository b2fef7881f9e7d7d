"""Retention: what the model could do before, in the paper's seven dimensions (arXiv 2510.19316, section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kore_bench.errors import UserError, nearest
from kore_bench.examples import Knowledge, Question
from kore_bench.formats import DIMENSIONS
from kore_bench.measures import Score, bootstrap_mean_of_means
from kore_bench.task import Card, Task


def exact(prediction: str, answer: str) -> bool:
    """Return whether the two are the same words in the same order, apart from case and punctuation around words.

    Stricter than CEM: "yes or no" is not "yes", and a list of all options is none of them. Articles count, unlike in
    CEM's normalisation, for which the option A and the character A of a text would be nothing.
    """
    return _words(prediction) == _words(answer)


def _words(text: str) -> list[str]:
    stripped = (word.strip(".,:;!?'\"()") for word in text.casefold().split())
    return [word for word in stripped if word]


@dataclass(frozen=True, kw_only=True)
class Retention(Task):
    """Asks what has nothing to do with the injected items; K.R is the mean of the dimensions that are present."""

    card: ClassVar[Card] = Card(
        name="retention",
        title="Knowledge retention",
        source="retention.jsonl of the knowledge folder",
        metric="K.R",
        licence="that of the knowledge folder; the mini world's is Apache-2.0",
        citation="dimensions: KORE, arXiv 2510.19316; K.R here is the mean of the dimensions, not of 12 benchmarks",
    )

    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the retention questions; raise ``UserError`` for one of an unknown dimension."""
        for question in knowledge.retention:
            if question.type not in DIMENSIONS:
                raise UserError(
                    f"Question {question.id!r} of {knowledge.root / 'retention.jsonl'} has the unknown dimension "
                    f"{question.type!r}: {nearest(question.type, DIMENSIONS)}."
                )
        return knowledge.retention

    def correct(self, question: Question, prediction: str) -> float:
        """Return 1 where the answer is exactly right, else 0."""
        return float(exact(prediction, question.answer))

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return K.R, each dimension's share of exact answers, and K.R over seen and over other dimensions apart.

        "K.R calibrated" averages the dimensions in ``seen_skills``, "K.R held-out" the others; either is left out
        where it has no dimension, and both where ``seen_skills`` is empty, as nothing was then calibrated.
        """
        parts: dict[str, list[float]] = {}
        for question, prediction in zip(questions, predictions, strict=True):
            parts.setdefault(question.type, []).append(self.correct(question, prediction))
        present = [dimension for dimension in DIMENSIONS if dimension in parts]
        means = {self.card.metric: present}
        means |= {dimension: [dimension] for dimension in present}
        if seen_skills:
            means["K.R calibrated"] = [dimension for dimension in present if dimension in seen_skills]
            means["K.R held-out"] = [dimension for dimension in present if dimension not in seen_skills]
        return {
            name: bootstrap_mean_of_means({dimension: parts[dimension] for dimension in dimensions})
            for name, dimensions in means.items()
            if dimensions
        }


TASK: Task = Retention()
