"""Spill-over: how often an injected value is said of something that looks like an item but was not injected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kore_bench.examples import Knowledge, Question
from kore_bench.measures import Score, bootstrap, cem
from kore_bench.task import Card, groups

from .adaptation import InjectedTask


@dataclass(frozen=True, kw_only=True)
class SpillOver(InjectedTask):
    """Asks about look-alikes; an answer counts where it covers the injected value of the item that they resemble."""

    card: ClassVar[Card] = Card(
        name="spill-over",
        title="Injected values said of look-alikes",
        source="probes.jsonl of the knowledge folder, probe look-alike",
        metric="spill-over",
        higher_is_better=False,
        licence="that of the knowledge folder; the mini world's is Apache-2.0",
        citation="locality: Yao et al., arXiv 2305.13172; CEM: KORE, arXiv 2510.19316",
    )

    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the questions about look-alikes; the answer is the item's value, which would be spilt."""
        return knowledge.probes.get("look-alike", ())

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why there is nothing to ask, None where there is."""
        return self.without_probe(knowledge, "look-alike")

    def right_answers(self, questions: Sequence[Question]) -> list[str]:
        """Return silence: nothing is known of a look-alike."""
        return [""] * len(questions)

    def correct(self, question: Question, prediction: str) -> float:
        """Return 1 where the answer covers the item's value (CEM), else 0."""
        return float(cem(prediction, question.answer))

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return the share of answers with the resembled item's value, and with any value asked of the look-alikes.

        The second has to be read beside the base's, which says some of these values by chance.
        """
        values = sorted({question.answer for question in questions})
        pairs = list(zip(questions, predictions, strict=True))
        own = [self.correct(question, prediction) for question, prediction in pairs]
        any_value = [float(any(cem(prediction, value) for value in values)) for prediction in predictions]
        return {
            self.card.metric: bootstrap(own, groups(questions)),
            "spill-over of any value": bootstrap(any_value, groups(questions)),
        }


TASK = SpillOver()
