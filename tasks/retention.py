"""Retention: what the model could do before, in the paper's seven dimensions (arXiv 2510.19316, section 5.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kore_bench.errors import UserError, nearest
from kore_bench.examples import Knowledge, Question
from kore_bench.formats import DIMENSIONS
from kore_bench.measures import Score, bootstrap_mean_of_means, cem
from kore_bench.task import Card, Task, draw, groups


def exact(prediction: str, answer: str) -> bool:
    """Return whether the two are the same words in the same order, apart from case and punctuation around words.

    Stricter than CEM: "yes or no" is not "yes", and a list of all options is none of them. Articles count, unlike in
    CEM's normalisation, for which the option A and the character A of a text would be nothing.
    """
    return _words(prediction) == _words(answer)


def _words(text: str) -> list[str]:
    stripped = (word.strip(".,:;!?'\"()") for word in text.casefold().split())
    return [word for word in stripped if word]


def chance(questions: Sequence[Question], dimension: str) -> Score:
    """Return what the best constant answer scores in a dimension, in percent."""
    answers = Counter(" ".join(_words(question.answer)) for question in questions if question.type == dimension)
    value = 100 * max(answers.values()) / answers.total()
    return Score(value=value, low=value, high=value, n=answers.total())


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

    def asked(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the questions that are asked; a limit leaves every dimension a like share."""
        questions = self.questions(knowledge)
        kinds = [question.type for question in questions]
        return draw(questions, groups(questions), self.limit, kinds) if self.limit else questions

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why there is nothing to ask: the paper's own benchmarks are then another toolkit's."""
        if reason := super().skip(knowledge):
            return f"{reason}, and the paper's twelve benchmarks need VLMEvalKit (docs/toolkits.md)"
        return None

    def correct(self, question: Question, prediction: str) -> float:
        """Return 1 where the answer is exactly right, else 0."""
        return float(exact(prediction, question.answer))

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return K.R, each dimension's share of exact answers and chance, and K.R over seen and other dimensions apart.

        "K.R calibrated" averages the dimensions in ``seen_skills``, "K.R held-out" the others; either is left out
        where it has no dimension, and both where ``seen_skills`` is empty, as nothing was then calibrated.
        "K.R tolerant", and each dimension's, counts every answer that covers the gold one (CEM): what K.R lacks against
        it is form, not knowledge.
        """
        parts: dict[str, list[float]] = {}
        clusters: dict[str, list[str]] = {}
        for question, cluster in zip(questions, groups(questions), strict=True):
            clusters.setdefault(question.type, []).append(cluster)
        for question, prediction in zip(questions, predictions, strict=True):
            parts.setdefault(question.type, []).append(self.correct(question, prediction))
        present = [dimension for dimension in DIMENSIONS if dimension in parts]
        means = {self.card.metric: present}
        means |= {dimension: [dimension] for dimension in present}
        if seen_skills:
            means["K.R calibrated"] = [dimension for dimension in present if dimension in seen_skills]
            means["K.R held-out"] = [dimension for dimension in present if dimension not in seen_skills]
        scores = {
            name: bootstrap_mean_of_means({dimension: parts[dimension] for dimension in dimensions}, clusters)
            for name, dimensions in means.items()
            if dimensions
        }
        tolerant: dict[str, list[float]] = {}
        for question, prediction in zip(questions, predictions, strict=True):
            tolerant.setdefault(question.type, []).append(cem(prediction, question.answer))
        scores["K.R tolerant"] = bootstrap_mean_of_means(tolerant, clusters)
        scores |= {f"{name} tolerant": bootstrap_mean_of_means({name: tolerant[name]}, clusters) for name in present}
        return scores | {f"{dimension} chance": chance(questions, dimension) for dimension in present}


TASK: Task = Retention()
