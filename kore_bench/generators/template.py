"""A generator without a language model: it arranges an item's structured facts and the sentences of its text."""

from __future__ import annotations

import random
import re
from itertools import islice, zip_longest

from kore_bench.errors import UserError
from kore_bench.examples import Fact, Item, Turn
from kore_bench.generators import SUMMARY_WORDS, Generator, Quadruplet


class TemplateGenerator(Generator):
    """Asks the wordings of the facts, answers with the text's own sentences, summarises by choosing among them."""

    name = "template"

    def check(self, item: Item) -> None:
        """Refuse an item without facts."""
        if not item.facts:
            raise UserError(f"the template generator needs facts.json with facts of item {item.id}")

    def dialogue(self, item: Item, rng: random.Random, limit: int) -> list[Turn]:
        """Return at most ``limit`` turns: every fact once, then again in other words; sentences are the answers."""
        sentences = _sentences(item.text)
        return [Turn(question=wording, answer=_answer(fact, sentences)) for fact, wording in _ask(item, rng, limit)]

    def summary(self, item: Item, rng: random.Random) -> str:
        """Return sentences of the text that state a drawn fact, in the text's order, as many as fit."""
        sentences = _sentences(item.text)
        chosen: set[str] = set()
        for fact in _shuffled(item, rng):
            answer = _answer(fact, sentences)
            if answer in sentences and sum(len(s.split()) for s in chosen | {answer}) <= SUMMARY_WORDS:
                chosen.add(answer)
        # A text whose every sentence is too long is cut, as a caption needs some summary.
        return " ".join(s for s in sentences if s in chosen) or " ".join(item.text.split()[:SUMMARY_WORDS])

    def quadruplets(self, item: Item, rng: random.Random, limit: int) -> list[Quadruplet]:
        """Return at most ``limit`` questions, every fact once before any comes again in other words."""
        return [
            Quadruplet(question=wording, answer=fact.value, subject=fact.subject, hypernym=fact.hypernym)
            for fact, wording in _ask(item, rng, limit)
        ]


def _shuffled(item: Item, rng: random.Random) -> list[Fact]:
    return rng.sample(item.facts, len(item.facts))


def _ask(item: Item, rng: random.Random, limit: int) -> list[tuple[Fact, str]]:
    """Return at most ``limit`` distinct (fact, wording), round after round over the facts in a drawn order."""
    asked = [[(fact, q) for q in rng.sample(fact.questions, len(fact.questions))] for fact in _shuffled(item, rng)]
    rounds = (pair for pairs in zip_longest(*asked) for pair in pairs if pair is not None)
    return list(islice(rounds, limit))


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text.strip())


def _answer(fact: Fact, sentences: list[str]) -> str:
    """Return the one sentence that states the fact's value; the bare value where none or several do."""
    value = re.compile(rf"(?<!\w){re.escape(fact.value)}(?!\w)", re.IGNORECASE)
    stating = [sentence for sentence in sentences if value.search(sentence)]
    return stating[0] if len(stating) == 1 else fact.value


GENERATOR = TemplateGenerator()
