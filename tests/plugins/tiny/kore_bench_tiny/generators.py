"""Text for knowledge trees out of an item's own sentences."""

from __future__ import annotations

import random
import re

from kore_bench.errors import UserError
from kore_bench.examples import Item, Turn
from kore_bench.generators import SUMMARY_WORDS, Generator, Quadruplet


class Sentences(Generator):
    """Asks for each sentence of the text by its number; needs no facts."""

    name = "sentences"

    def check(self, item: Item) -> None:
        """Refuse an item without a name."""
        if not item.name:
            raise UserError(f"the sentences generator needs the name of item {item.id}")

    def dialogue(self, item: Item, rng: random.Random, limit: int) -> list[Turn]:
        """Return a turn a sentence."""
        sentences = re.split(r"(?<=[.!?])\s+", item.text)[:limit]
        return [
            Turn(question=f"What is fact {number} of {item.name}?", answer=sentence)
            for number, sentence in enumerate(sentences, start=1)
        ]

    def summary(self, item: Item, rng: random.Random) -> str:
        """Return the first words of the text."""
        return " ".join(item.text.split()[:SUMMARY_WORDS])

    def quadruplets(self, item: Item, rng: random.Random, limit: int) -> list[Quadruplet]:
        """Return what the item is called, asked once."""
        asked = f"What is the name of {item.name}?"
        return [Quadruplet(question=asked, answer=item.name, subject=item.name, hypernym=item.type)][:limit]


GENERATOR = Sentences()
