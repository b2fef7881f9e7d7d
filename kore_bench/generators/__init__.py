"""What writes augmented text about an item: the contract of a generator."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from kore_bench.examples import Item, Turn

SUMMARY_WORDS = 25
"""The most words of a summary (KORE, arXiv 2510.19316, image caption branch)."""


@dataclass(frozen=True, kw_only=True)
class Quadruplet:
    """A question about ``subject``, which is a ``hypernym``, and its short answer; not yet checked for quality."""

    question: str
    answer: str
    subject: str
    hypernym: str


class Generator(ABC):
    """Writes the generated parts of a knowledge tree. A seeded ``rng`` makes the same text every time.

    A module in this folder, a plug-in file or an installed package defines an instance as ``GENERATOR``. Its ``name``
    is what ``--set kore-augmentation.generator=NAME`` chooses; its docstring's first line is shown in lists.
    """

    name: ClassVar[str]

    @abstractmethod
    def check(self, item: Item) -> None:
        """Raise UserError where it cannot write about ``item``; called for every item before a model loads."""

    @abstractmethod
    def dialogue(self, item: Item, rng: random.Random, limit: int) -> list[Turn]:
        """Return at most ``limit`` questions that cover the item's text, each answered from the text alone."""

    @abstractmethod
    def summary(self, item: Item, rng: random.Random) -> str:
        """Return a summary of the item's text in at most ``SUMMARY_WORDS`` words."""

    @abstractmethod
    def quadruplets(self, item: Item, rng: random.Random, limit: int) -> list[Quadruplet]:
        """Return at most ``limit`` questions with a word or short phrase as answer."""
