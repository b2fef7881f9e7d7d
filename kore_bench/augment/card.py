"""The statistics card of a set of knowledge trees, in the form of the paper's table 24, and what the gates refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kore_bench.examples import Example

from .gates import REASONS
from .grown import GENERATOR, PARTS, KnowledgeTree

KORE_74K: Mapping[str, int] = {
    "items": 9_422, "samples": 74_734, "dialogues": 9_422, "turns": 75_710, "recognition": 9_422, "caption": 9_422,
    "vqa": 46_468, "images": 65_312,
}  # fmt: skip
"""The counts of KORE-74K (KORE, arXiv 2510.19316)."""
MEANS = ("words a question", "words an answer", "words a summary")


@dataclass
class Card:
    """Counts trees one by one, and keeps none of them.

    ``generated`` texts are those that the gates saw; ``refused`` counts by (part, reason).
    """

    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    _images: set[str] = field(default_factory=set)
    _lengths: Counter[str] = field(default_factory=Counter)
    _texts: Counter[str] = field(default_factory=Counter)

    def add(self, tree: KnowledgeTree, images: Iterable[str]) -> None:
        """Count a tree that shows ``images``, each by any name of its own."""
        self.counts["items"] += 1
        self._images.update(images)
        self.counts["fallbacks"] += tree.fallbacks
        self.refused.update((reject.part, reject.reason) for reject in tree.rejects)
        for example in tree.examples():
            part = example.source.removeprefix("kore/")
            self.counts["samples"] += 1
            self.counts["dialogues" if part == "dialogue" else part] += 1
            self.counts["turns"] += len(example.turns) if part == "dialogue" else 0
            if part == "recognition":
                self.counts[f"answer {example.turns[0].answer}"] += 1
            self._measure(example, part)

    def _measure(self, example: Example, part: str) -> None:
        for turn in example.turns[1:] if part == "dialogue" else example.turns:
            if part == "caption":
                self._length("words a summary", turn.answer.partition(". ")[2])
            elif part != "recognition":
                self._length("words a question", turn.question.partition("\n")[0])
                self._length("words an answer", turn.answer)

    def _length(self, name: str, text: str) -> None:
        self._lengths[name] += len(text.split())
        self._texts[name] += 1

    def table(self) -> dict[str, int]:
        """Return the counts that KORE-74K is described by."""
        return {name: len(self._images) if name == "images" else self.counts[name] for name in KORE_74K}

    def means(self) -> dict[str, float]:
        """Return the mean lengths of generated texts, those that there are."""
        return {name: round(self._lengths[name] / self._texts[name], 2) for name in MEANS if self._texts[name]}

    def report(self) -> dict[str, Any]:
        """Return all counts as JSON: the card, yes and no, and for each gate what it refused in each part."""
        generated = (part for part in PARTS if part != "recognition")
        reasons = (*REASONS, GENERATOR)
        refused = {part: {reason: self.refused[part, reason] for reason in reasons} for part in generated}
        return {
            "statistics": self.table(),
            "lengths": self.means(),
            "recognition": {"yes": self.counts["answer Yes"], "no": self.counts["answer No"]},
            "fallbacks": self.counts["fallbacks"],
            "passed": {"dialogue": self.counts["turns"] - self.counts["dialogues"], "caption": self.counts["caption"],
                       "vqa": self.counts["vqa"]},
            "refused": refused,
        }  # fmt: skip
