"""What grows from one item: the knowledge tree's conversations, and what was written but failed a gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kore_bench.examples import Example

About = Callable[[str, str], Sequence[Path]]
"""Returns pictures of a subject, which is a hypernym; maybe none."""

PARTS = ("dialogue", "recognition", "caption", "vqa")
"""The trunk of a knowledge tree and its branches (KORE, arXiv 2510.19316, section 3.2)."""
GENERATOR = "generator"
"""The reason of a reject where the generator itself found nothing usable in what its model wrote."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A text that a generator wrote and a gate refused: of which ``part``, for which ``reason``, in words of its own."""

    part: str
    reason: str
    detail: str = ""
    question: str = ""
    answer: str = ""
    subject: str = ""
    hypernym: str = ""


@dataclass(frozen=True, kw_only=True)
class KnowledgeTree:
    """The conversations grown from one item, and what was lost on the way.

    ``rejects`` are the texts that failed a gate; ``fallbacks`` counts the branches that show the item's own image
    because no retrieved one fits.
    """

    item: str
    dialogue: Example | None = None
    recognition: Example | None = None
    caption: Example | None = None
    vqa: tuple[Example, ...] = ()
    rejects: tuple[Reject, ...] = ()
    fallbacks: int = 0

    @property
    def rejected(self) -> Mapping[str, int]:
        """How many texts failed a gate, by reason."""
        return dict(Counter(reject.reason for reject in self.rejects))

    @property
    def barren(self) -> bool:
        """Whether nothing that the generator wrote could be used."""
        written = (self.caption, *self.vqa, *(self.dialogue.turns[1:] if self.dialogue else ()))
        return not any(written) and any(reject.reason == GENERATOR for reject in self.rejects)

    def examples(self) -> tuple[Example, ...]:
        """Return the conversations, trunk first."""
        single = (self.dialogue, self.recognition, self.caption)
        return (*(example for example in single if example is not None), *self.vqa)
