"""What writes augmented text about an item: the contract of a generator, and how it is set up and accounted for."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from kore_bench.errors import UserError
from kore_bench.examples import Item, Turn

SUMMARY_WORDS = 25
"""The most words of a summary (KORE, arXiv 2510.19316, image caption branch)."""
SETTABLE = ("price_in", "price_out", "timeout", "retries", "attempts", "max_tokens", "in_flight")
"""What a run may set of a generator's settings (``--set generator.FIELD=VALUE``)."""


@dataclass(frozen=True, kw_only=True)
class Quadruplet:
    """A question about ``subject``, which is a ``hypernym``, and its short answer; not yet checked for quality."""

    question: str
    answer: str
    subject: str
    hypernym: str


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """Which language model writes (``--llm NAME``, ``--base-url URL``), and how it is asked.

    ``base_url`` is an OpenAI-compatible endpoint's base (empty: OpenAI's own). ``price_in`` and ``price_out`` are in
    US dollars a million tokens; from ``max_cost`` dollars on nothing is asked any more (0: no limit). A request is given
    up after ``timeout`` seconds, and tried ``retries`` times more. An answer that does not fit its schema is asked for
    ``attempts`` times in all. An answer has at most ``max_tokens``. A run asks about ``in_flight`` items at once.
    ``offline`` forbids endpoints elsewhere.
    """

    llm: str = ""
    base_url: str = ""
    price_in: float = 0.0
    price_out: float = 0.0
    max_cost: float = 0.0
    timeout: float = 120.0
    retries: int = 5
    attempts: int = 4
    max_tokens: int = 2048
    in_flight: int = 16
    offline: bool = False

    def check(self) -> None:
        """Raise UserError where a number is out of range, or an address or a limit is given without what it needs."""
        if not self.llm:
            raise UserError("--base-url needs --llm NAME: what the endpoint calls the model")
        if min(self.price_in, self.price_out, self.max_cost) < 0 or self.retries < 0:
            raise UserError("--price-in, --price-out, --max-cost and the generator's retries must not be negative")
        if self.timeout <= 0 or min(self.attempts, self.max_tokens, self.in_flight) < 1:
            raise UserError("the generator's timeout, attempts, max-tokens and in-flight must be above 0")
        if self.max_cost and not (self.price_in or self.price_out):
            raise UserError(
                f"--max-cost {self.max_cost:g} needs --price-in and --price-out: US dollars a million tokens"
            )


@dataclass(frozen=True, kw_only=True)
class Call:
    """Where one generated text comes from: the item, the part that was asked for, and what was asked how.

    ``part`` is the generator's method (``dialogue``, ``summary``, ``quadruplets``, ``rewrite``); a dialogue takes two
    calls, by the prompts ``questions`` and ``answers``. ``reason`` says why the answer was rejected, and is empty where
    it was used.
    """

    item: str
    part: str
    generator: str
    model: str
    prompt: str
    version: str
    seed: int
    reason: str = ""


class RejectedError(Exception):
    """The generator wrote nothing usable for this part of this item; its text is the reason, in a few words."""


class LimitReachedError(UserError):
    """A limit of the user's own, such as ``--max-cost``, is reached; the command ends with exit code 3."""

    exit_code: ClassVar[int] = 3


class Generator(ABC):
    """Writes the generated parts of a knowledge tree. A seeded ``rng`` makes the same text every time.

    A module in this folder, a plug-in file or an installed package defines an instance as ``GENERATOR``. Its ``name``
    is what ``--set kore-augmentation.generator=NAME`` chooses; its docstring's first line is shown in lists. Methods
    that write are called from many threads at once. They raise RejectedError where nothing usable comes, UserError
    where nothing will come of any later call either, LimitReachedError where a limit of the user's is reached.
    """

    name: ClassVar[str]
    language_model: ClassVar[bool] = False
    """Whether it writes with a language model, so that it needs ``--llm``."""
    settings: GeneratorSettings = GeneratorSettings(in_flight=1)
    """What it is configured with; ``in_flight`` is how many items it can be asked about at once with profit."""

    def configured(self, settings: GeneratorSettings) -> Self:
        """Return the generator under ``settings``, the same object for equal ones; self where it needs none.

        Raises UserError for settings that it cannot work with; asks no endpoint and loads no model.
        """
        return self

    def preflight(self) -> None:  # noqa: B027 (most need nothing)
        """Raise UserError where what it writes with is not there, such as an endpoint; called before it first writes."""

    def key(self) -> Mapping[str, str]:
        """Return what of its settings decides its texts: it belongs to the key of a cell that is trained on them."""
        return {}

    def usage(self) -> Mapping[str, float]:
        """Return what has been used so far, in this process.

        ``requests`` that were answered, ``tokens_in``, ``tokens_out``, ``cost`` in US dollars, ``cached`` answers that
        were there from before, ``retries``, ``rejects``, and requests ``uncounted`` whose tokens the server did not tell;
        nothing where there is nothing to account for.
        """
        return {}

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


_CALLS: ContextVar[list[Call] | None] = ContextVar("calls", default=None)


@contextmanager
def recorded_calls() -> Iterator[list[Call]]:
    """Collect the calls that a generator makes within the block, in this thread; the list grows as they are made."""
    calls: list[Call] = []
    token = _CALLS.set(calls)
    try:
        yield calls
    finally:
        _CALLS.reset(token)


def record_call(call: Call) -> None:
    """Tell the innermost `recorded_calls` of this thread, if any, about a call; for generators."""
    calls = _CALLS.get()
    if calls is not None:
        calls.append(call)
