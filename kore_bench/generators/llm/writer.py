"""A generator that writes with a language model: what is asked for each part of an item, and what comes of an answer."""

from __future__ import annotations

import random
import threading
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from kore_bench.cache import cache_folder
from kore_bench.errors import UserError
from kore_bench.examples import Item, Turn
from kore_bench.generators import (
    SUMMARY_WORDS,
    Call,
    GeneratorSettings,
    Quadruplet,
    RejectedError,
    Rewriter,
    record_call,
)

from .account import Account
from .asking import Completion, Request
from .prompts import prompt
from .responses import responses

if TYPE_CHECKING:
    from .schemas import Schema

    S = TypeVar("S", bound=Schema)

G = TypeVar("G", bound="LanguageModelGenerator")

_ONE = threading.Lock()
_LONGEST = 200  # characters of a model's words in a reason
_SEED_BITS = 31  # what every server takes as a seed
_SAME = 2  # so often the same is asked before the seed changes: an answer may have been damaged on its way


class LanguageModelGenerator(Rewriter):
    """Asks a language model by the prompts in kore_bench/generators/prompts/, and reads JSON that fits a schema.

    What the model wrote is kept by the content of the request, so that nothing is asked twice. An answer that does not
    fit is asked for again, twice with the same seed and then with another one, ``attempts`` times in all; then, or where
    the model refuses, the part is rejected.
    """

    language_model: ClassVar[bool] = True

    def __init__(self, settings: GeneratorSettings | None = None) -> None:
        self.settings = settings or GeneratorSettings()
        self.model = self.settings.llm
        self.account = Account(self.settings)

    def configured(self, settings: GeneratorSettings) -> Self:
        """Return the generator for ``settings.llm``; raises UserError where settings are out of range."""
        if not settings.llm:
            return self
        settings.check()
        with _ONE:  # threads that come together get one
            made: Self = _made(type(self), settings)
        made.check_settings()
        return made

    def check_settings(self) -> None:
        """Raise UserError where its settings miss something; asks no endpoint and loads no model."""

    def identity(self) -> str:
        """Return what names the model in kept answers and in the keys of cells, wherever it is asked."""
        return self.model

    def key(self) -> Mapping[str, str]:
        """Return the model and how it is asked."""
        kept = self.settings
        return {"llm": self.identity(), "attempts": str(kept.attempts), "max tokens": str(kept.max_tokens)}

    @abstractmethod
    def complete(self, request: Request) -> Completion:
        """Return what the model writes; raises UserError where nothing will come of any later request either.

        Raises RejectedError where this one cannot be answered.
        """

    def check(self, item: Item) -> None:
        """Refuse an item without text, and to write without a language model."""
        if not self.model:
            raise UserError(f"the {self.name} generator needs a language model: give it by --llm NAME")
        if not item.text.strip():
            raise UserError(f"the {self.name} generator needs the text of item {item.id}, which has none")

    def usage(self) -> Mapping[str, float]:
        """Return what has been used so far, in this process."""
        return self.account.usage()

    def dialogue(self, item: Item, rng: random.Random, limit: int) -> list[Turn]:
        """Return at most ``limit`` turns; a question that the text does not answer is left out."""
        from .schemas import Answers, Questions

        seed = rng.getrandbits(_SEED_BITS)
        found = self._ask(Questions, "questions", item, "dialogue", seed, {"limit": limit}, {})
        questions = [" ".join(question.split()) for question in found.questions[:limit]]
        listed = "\n".join(f"{number}. {question}" for number, question in enumerate(questions, start=1))
        count = len(questions)
        answered = self._ask(
            Answers, "answers", item, "dialogue", seed, {"questions": listed, "count": count}, {"count": count}
        )
        pairs = zip(questions, answered.answers, strict=True)
        return [Turn(question=question, answer=answer) for question, answer in pairs if answer]

    def summary(self, item: Item, rng: random.Random) -> str:
        """Return a summary of the item's text in at most ``SUMMARY_WORDS`` words."""
        from .schemas import Summary

        words = {"words": SUMMARY_WORDS}
        seed = rng.getrandbits(_SEED_BITS)
        return self._ask(Summary, "summary", item, "summary", seed, words, words).summary

    def quadruplets(self, item: Item, rng: random.Random, limit: int) -> list[Quadruplet]:
        """Return at most ``limit`` questions, as the model wrote them: not yet checked for quality."""
        from .schemas import Quadruplets

        seed = rng.getrandbits(_SEED_BITS)
        found = self._ask(Quadruplets, "quadruplets", item, "quadruplets", seed, {"limit": limit}, {})
        return [Quadruplet(**four.model_dump()) for four in found.quadruplets[:limit]]

    def rewrite(self, item: Item, rng: random.Random) -> str:
        """Return another text that states the same about ``item``."""
        from .schemas import Rewritten

        return self._ask(Rewritten, "rewrite", item, "rewrite", rng.getrandbits(_SEED_BITS), {}, {}).text

    def _ask(
        self, schema: type[S], name: str, item: Item, part: str, seed: int, filled: Mapping[str, str | int],
        context: Mapping[str, int],
    ) -> S:  # fmt: skip
        """Return a usable answer to the prompt called ``name``; raises RejectedError where there is none."""
        from .schemas import described

        asked = prompt(name)
        about = {"name": item.name or "(not given)", "type": item.type or "(not given)", "text": item.text.strip()}
        request = Request(
            task=name, version=asked.version, model=self.identity(), messages=tuple(asked.messages(**about, **filled)),
            schema=described(schema), temperature=asked.temperature, max_tokens=self.settings.max_tokens, seed=seed,
        )  # fmt: skip
        call = Call(
            item=item.id,
            part=part,
            generator=self.name,
            model=self.model,
            prompt=name,
            version=asked.version,
            seed=seed,
        )
        try:
            answer, used = self._usable(schema, request, context)
        except RejectedError as error:
            self.account.count("rejects")
            record_call(replace(call, reason=str(error)))
            raise
        record_call(replace(call, seed=used))
        return answer

    def _usable(self, schema: type[S], request: Request, context: Mapping[str, int]) -> tuple[S, int]:
        """Return the first answer that fits, and the seed it was made with; raises RejectedError where none does."""
        from .schemas import UnusableError, read, refusal

        reason = ""
        for attempt in range(self.settings.attempts):
            if attempt:
                self.account.count("retries")
            seed = (request.seed + attempt // _SAME) % 2**_SEED_BITS
            completion = self._kept(replace(request, seed=seed, again=attempt % _SAME))
            if completion.refusal or refusal(completion.text):
                raise RejectedError(f"the model refuses: {shortened(completion.refusal or completion.text)}")
            try:
                return read(schema, completion.text, context), seed
            except UnusableError as error:
                reason = f"cut off at {request.max_tokens} tokens" if completion.cut else str(error)
        raise RejectedError(f"no usable answer to {request.task}: {reason}")

    def _kept(self, request: Request) -> Completion:
        """Return what the model wrote for exactly this request, asking it only once."""
        store, key = responses(cache_folder() / "generators" / "responses.sqlite"), request.key()
        if (kept := store.get(key)) is None:
            with store.alone(key):
                if (kept := store.get(key)) is None:
                    with self.account.reserved(request) as made:
                        completion = self.complete(request)
                        made.append(completion)
                    store.put(key, completion.to_json())
                    return completion
        self.account.count("cached")
        return Completion.from_json(kept)


def shortened(text: str) -> str:
    """Return a text on one line, cut where it is too long for a reason."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


@cache
def _made(kind: type[G], settings: GeneratorSettings) -> G:
    """Return the one generator of a kind for these settings: its account and client are shared by all who ask."""
    return kind(settings)
