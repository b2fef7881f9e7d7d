"""What writes augmented text about an item: the contract of a generator and its lookup by name."""

from __future__ import annotations

import importlib
import pkgutil
import random
from dataclasses import dataclass
from typing import Protocol

from kore_bench.errors import UserError, nearest
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


class Generator(Protocol):
    """Writes the generated parts of a knowledge tree. A seeded ``rng`` makes the same text every time.

    To add one, put a module with the generator's name (hyphens as underscores) into this folder and let it define
    ``GENERATOR``. Every method raises ``UserError`` for an item that it cannot write about.
    """

    name: str

    def dialogue(self, item: Item, rng: random.Random, limit: int) -> list[Turn]:
        """Return at most ``limit`` questions that cover the item's text, each answered from the text alone."""
        ...

    def summary(self, item: Item, rng: random.Random) -> str:
        """Return a summary of the item's text in at most ``SUMMARY_WORDS`` words."""
        ...

    def quadruplets(self, item: Item, rng: random.Random, limit: int) -> list[Quadruplet]:
        """Return at most ``limit`` questions with a word or short phrase as answer."""
        ...


def generator(name: str) -> Generator:
    """Return the generator ``name``; raise ``UserError`` with the nearest choice where there is none."""
    names = [module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)]
    if name not in names:
        raise UserError(f"There is no generator {name!r}: {nearest(name, names)}.")
    found: Generator = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").GENERATOR
    return found
