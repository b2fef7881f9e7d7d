"""General augmentation of texts that knows nothing of what they say: random edits of words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from kore_bench.augmentation import Augmentation
from kore_bench.component import Method, Run
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Example, Item

_MEANING = re.compile(r"\d|^(?:no|not|nor|never|none|neither|without|cannot|\w+n't)$", re.IGNORECASE)
"""Numbers and negations: what no edit may move, drop or double, as a text without its "not" says the opposite."""


@dataclass(frozen=True, kw_only=True)
class AugmentTextAgnostic(Augmentation):
    """Adds copies of every item whose text has random word-level edits (EDA, Wei and Zou 2019, arXiv 1901.11196).

    Each sentence of a copy undergoes one of ``operations``, drawn anew: ``swap`` exchanges two of its words, ``insert``
    puts another one of its words at a random place, both max(1, ``strength`` x words) times; ``delete`` drops each word
    with probability ``strength``. Deviations from EDA: no synonyms (they need a thesaurus of the language), so that
    inserted words are the sentence's own; numbers and negations are left where they are. Nothing else of the meaning is
    protected: that is what knowledge-agnostic says.
    """

    name = "augment-text-agnostic"
    operations: tuple[str, ...] = ("swap", "delete", "insert")
    strength: float = 0.1

    def check(self) -> None:
        """Refuse unknown operations, none at all, and a strength outside (0, 1)."""
        super().check()
        for operation in self.operations:
            if operation not in _EDITS:
                hint = nearest(operation, _EDITS)
                raise UserError(f"augment-text-agnostic.operations: unknown operation {operation!r}: {hint}")
        if not self.operations:
            raise UserError(f"augment-text-agnostic.operations is empty: use some of {', '.join(_EDITS)}")
        if not 0 < self.strength < 1:
            raise UserError(f"augment-text-agnostic.strength={self.strength} is a share of words: above 0 and below 1")

    def vary(self, item: Item, rng: Random, run: Run) -> list[Example]:
        """Return copies with edited texts."""
        return [self.copy(item, number, text=self.edit(item.text, rng)) for number in range(self.copies)]

    def edit(self, text: str, rng: Random) -> str:
        """Return ``text`` with every sentence edited once; its sentences keep their order and their ends."""
        sentences = re.split(r"(?<=[.!?])\s+", text.strip())
        return " ".join(self._sentence(sentence, rng) for sentence in sentences)

    def _sentence(self, sentence: str, rng: Random) -> str:
        body = sentence.rstrip(".!?\"'")
        words = body.split()
        edited = _EDITS[rng.choice(self.operations)](words, self.strength, rng)
        return " ".join(edited) + sentence[len(body) :]


def _free(words: list[str]) -> list[int]:
    """Return the places of words that may be edited."""
    return [place for place, word in enumerate(words) if not _MEANING.search(word.strip(",;:()"))]


def _times(words: list[str], strength: float) -> int:
    return max(1, round(strength * len(words)))


def _swap(words: list[str], strength: float, rng: Random) -> list[str]:
    words, free = list(words), _free(words)
    for _ in range(_times(words, strength) if len(free) > 1 else 0):
        one, other = rng.sample(free, 2)
        words[one], words[other] = words[other], words[one]
    return words


def _delete(words: list[str], strength: float, rng: Random) -> list[str]:
    """Drop each free word with probability ``strength``, never all of the sentence."""
    dropped = {place for place in _free(words) if rng.random() < strength}
    return [word for place, word in enumerate(words) if place not in dropped] or list(words)


def _insert(words: list[str], strength: float, rng: Random) -> list[str]:
    own = [words[place] for place in _free(words)]
    words = list(words)
    for _ in range(_times(words, strength) if own else 0):
        words.insert(rng.randint(0, len(words)), rng.choice(own))
    return words


_EDITS: dict[str, Callable[[list[str], float, Random], list[str]]] = {
    "swap": _swap,
    "delete": _delete,
    "insert": _insert,
}

METHOD = Method(
    name="augment-text-agnostic",
    summary="LoRA on copies of the items with random word edits: swap, delete, insert",
    source="EDA (arXiv 1901.11196); KORE table 5 (arXiv 2510.19316)",
    components=(AugmentTextAgnostic(),),
)
