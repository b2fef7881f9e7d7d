"""Adaptation: questions about the injected items, scored by CEM and F1 as in the paper (arXiv 2510.19316)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kore_bench.errors import UserError
from kore_bench.examples import PROBES, Knowledge, Question
from kore_bench.measures import Score, bootstrap, cem, f1, ka, reachable, repaired_cem
from kore_bench.task import Card, Task, groups

ASKED, TEXT_ONLY = "K.A asked", "K.A text only"


@dataclass(frozen=True, kw_only=True)
class FactTask(Task):
    """Asks for facts in a word or short phrase; the headline figure is (CEM + F1) / 2."""

    def correct(self, question: Question, prediction: str) -> float:
        """Return (CEM + F1) / 2 of one answer, from 0 to 1."""
        return ka(cem(prediction, question.answer), f1(prediction, question.answer))

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return the headline figure, CEM, F1, the repaired CEM and the headline figure by kind and by type.

        Intervals resample groups (entities). "unreachable" is a count: gold answers that no prediction can cover.
        """
        pairs = [(prediction, question.answer) for question, prediction in zip(questions, predictions, strict=True)]
        entities = groups(questions)
        right = [
            self.correct(question, prediction) for question, prediction in zip(questions, predictions, strict=True)
        ]
        lost = float(sum(not reachable(question.answer) for question in questions))
        scores = {
            self.card.metric: bootstrap(right, entities),
            "CEM": bootstrap([cem(*pair) for pair in pairs], entities),
            "F1": bootstrap([f1(*pair) for pair in pairs], entities),
            "CEM repaired": bootstrap([repaired_cem(*pair) for pair in pairs], entities),
            "unreachable": Score(value=lost, low=lost, high=lost, n=len(questions)),
        }
        for field in ("kind", "type"):
            labels = [getattr(question, field) for question in questions]
            for label in sorted(set(labels) - {""}):
                rows = [row for row, found in enumerate(labels) if found == label]
                part = bootstrap([right[row] for row in rows], [entities[row] for row in rows])
                scores[f"{self.card.metric} {field}={label}"] = part
        return scores


@dataclass(frozen=True, kw_only=True)
class InjectedTask(FactTask):
    """Asks about what is injected, so that there is a paragraph that the in-context reference can read first."""

    def prompt(self, question: Question, *, in_context: bool = False) -> str:
        """Return the question; with ``in_context``, the item's paragraph and a newline stand before it.

        Raises ``UserError`` where the in-context reference has no paragraph to read.
        """
        if not in_context:
            return question.text
        if not question.context:
            raise UserError(
                f"Question {question.id!r} names no injected item, so the in-context reference has no paragraph "
                f"to read: give 'item' in evoke_evaluation_data.jsonl or leave in-context out."
            )
        return f"{question.context}\n{question.text}"

    def without_probe(self, knowledge: Knowledge, *probes: str) -> str | None:
        """Return the reason to skip a task whose ``probes`` the data lack, None where there is one of them."""
        if any(map(knowledge.probes.get, probes)):
            return None
        asks = "; ".join(f"{probe}: {PROBES[probe]}" for probe in probes)
        return f"{self.card.name} is not available: {knowledge.root} has no probes.jsonl with such questions ({asks})"


@dataclass(frozen=True, kw_only=True)
class Adaptation(InjectedTask):
    """Asks about the injected items on images and in words that nothing was trained on."""

    card: ClassVar[Card] = Card(
        name="adaptation",
        title="Knowledge adaptation",
        source="evoke_evaluation_data.jsonl of the knowledge folder",
        metric="K.A",
        licence="that of the knowledge folder; the mini world's is Apache-2.0",
        citation="EVOKE, arXiv 2505.24449; K.A: KORE, arXiv 2510.19316",
    )

    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the evaluation questions of the knowledge folder."""
        return knowledge.questions

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return a fact task's scores, and K.A of what training asks for and of what stood in its texts alone.

        Either is left out where there is none of its questions, and both where it is not known (`Question.asked`).
        """
        scores = super().score(questions, predictions)
        for name, asked in ((ASKED, True), (TEXT_ONLY, False)):
            rows = [row for row, question in enumerate(questions) if question.asked is asked]
            if rows:
                right = [self.correct(questions[row], predictions[row]) for row in rows]
                scores[name] = bootstrap(right, groups([questions[row] for row in rows]))
        return scores


TASK: Task = Adaptation()
