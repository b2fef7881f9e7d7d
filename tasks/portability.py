"""Portability: whether an injected fact is there for other questions than its own: by name, for the name, one hop on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from kore_bench.examples import Knowledge, Question
from kore_bench.measures import Score, bootstrap, bootstrap_mean_of_means
from kore_bench.task import Card, groups

from .adaptation import InjectedTask

WAYS = ("by-name", "naming", "hop")


@dataclass(frozen=True, kw_only=True)
class Portability(InjectedTask):
    """Asks in ways that no training asked; the headline figure is the mean over the ways that the data hold."""

    card: ClassVar[Card] = Card(
        name="portability",
        title="Injected facts asked another way",
        source="probes.jsonl of the knowledge folder, probes by-name, naming and hop",
        metric="portability",
        licence="that of the knowledge folder; the mini world's is Apache-2.0",
        citation="portability: Yao et al., arXiv 2305.13172; (CEM + F1) / 2 as K.A in KORE, arXiv 2510.19316",
    )

    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the questions of all ways, each with its way as its type."""
        return tuple(replace(found, type=way) for way in WAYS for found in knowledge.probes.get(way, ()))

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why there is nothing to ask, None where there is one of the ways."""
        return self.without_probe(knowledge, *WAYS)

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return the mean over the ways and "portability <way>" of each; the intervals of the ways resample entities."""
        rights: dict[str, list[float]] = {}
        entities: dict[str, list[str]] = {}
        for question, prediction, entity in zip(questions, predictions, groups(questions), strict=True):
            rights.setdefault(question.type, []).append(self.correct(question, prediction))
            entities.setdefault(question.type, []).append(entity)
        ways = {f"{self.card.metric} {way}": bootstrap(rights[way], entities[way]) for way in rights}
        return {self.card.metric: bootstrap_mean_of_means(rights), **ways}


TASK = Portability()
