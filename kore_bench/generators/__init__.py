"""What writes augmented text about an item: the contract of a generator."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
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


class Rewriter(Generator):
    """A generator that also writes an item's text anew (``--set augment-text-aware.generator=NAME``)."""

    @abstractmethod
    def rewrite(self, item: Item, rng: random.Random) -> str:
        """Return another text that states the same about ``item``."""


class Illustrator(Generator):
    """A generator that also gives other pictures of an item (``--set augment-image-aware.generator=NAME``)."""

    @abstractmethod
    def check_pictures(self, item: Item) -> None:
        """Raise UserError where there is no other picture of ``item``; called for every item before a model loads."""

    @abstractmethod
    def pictures(self, item: Item, rng: random.Random, limit: int) -> list[Path]:
        """Return the files of at least one and at most ``limit`` other pictures that show ``item``."""
