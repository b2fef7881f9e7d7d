"""Old facts: questions about entities that the base knows already, scored as those about the injected ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kore_bench.examples import Knowledge, Question
from kore_bench.task import Card, Task

from .adaptation import FactTask


@dataclass(frozen=True, kw_only=True)
class OldFacts(FactTask):
    """Asks for old facts: what injection overwrites of the same sort; a measure of its own, no part of K.R."""

    card: ClassVar[Card] = Card(
        name="old-facts",
        title="Facts known before",
        source="old_facts.jsonl of the knowledge folder",
        metric="old-facts",
        licence="that of the knowledge folder; the mini world's is Apache-2.0",
        citation="(CEM + F1) / 2 as K.A in KORE, arXiv 2510.19316, on facts of the pre-training",
    )

    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the questions about old facts, none where the folder has no such file."""
        return knowledge.old_facts


TASK: Task = OldFacts()
