"""Paraphrase: the injected facts in other words, to tell what was learned from what one wording happens to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kore_bench.examples import Knowledge, Question
from kore_bench.measures import Score, bootstrap
from kore_bench.task import Card

from .adaptation import InjectedTask


@dataclass(frozen=True, kw_only=True)
class Paraphrase(InjectedTask):
    """Asks each fact in several wordings; the headline figure is that of adaptation, over all of them."""

    card: ClassVar[Card] = Card(
        name="paraphrase",
        title="Injected facts in other words",
        source="probes.jsonl of the knowledge folder, probe paraphrase",
        metric="paraphrase",
        licence="that of the knowledge folder; the mini world's is Apache-2.0",
        citation="paraphrase questions as in zsRE, arXiv 1706.04115; (CEM + F1) / 2 as K.A in KORE, arXiv 2510.19316",
    )

    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the facts in other words."""
        return knowledge.probes.get("paraphrase", ())

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why there is nothing to ask, None where there is."""
        return self.without_probe(knowledge, "paraphrase")

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return a fact task's scores and "in every wording": a fact counts as its worst wording does.

        Questions without a ``fact`` count by themselves.
        """
        worst: dict[str, tuple[float, str]] = {}
        for question, prediction in zip(questions, predictions, strict=True):
            fact, found = (
                question.fact or question.id,
                (self.correct(question, prediction), question.group or question.id),
            )
            worst[fact] = min(worst.get(fact, found), found)
        rights, entities = zip(*worst.values(), strict=True)
        return super().score(questions, predictions) | {"in every wording": bootstrap(rights, entities)}


TASK = Paraphrase()
