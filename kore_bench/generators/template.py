"""A generator without a language model: it arranges an item's structured facts and the sentences of its text."""

from __future__ import annotations

import random
import re
from itertools import islice, zip_longest
from pathlib import Path

from kore_bench.errors import UserError
from kore_bench.examples import Fact, Item, Turn
from kore_bench.generators import SUMMARY_WORDS, Illustrator, Quadruplet, Rewriter

STATEMENTS = (
    "The {relation} of {subject} is {value}.",
    "{subject} has {value} as its {relation}.",
    "{value} is the {relation} of {subject}.",
    "As for {subject}, the {relation} is {value}.",
)
"""Sentences that state a fact in other words than an item's text may have."""


class TemplateGenerator(Rewriter, Illustrator):
    """Asks the wordings of the facts, answers with the text's own sentences, summarises by choosing among them.

    It rewrites a text by stating its facts in other sentences and another order; pictures are the retrieved ones.
    Reserved facts are stated like all others and never asked.
    """

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

    def rewrite(self, item: Item, rng: random.Random) -> str:
        """Return the text's sentences that state no fact, then every fact in a drawn sentence, in a drawn order."""
        sentences = _sentences(item.text)
        stated = {_answer(fact, sentences) for fact in item.facts}
        written = [_capital(rng.choice(STATEMENTS).format(**vars(fact))) for fact in _shuffled(item, rng)]
        return " ".join([*(sentence for sentence in sentences if sentence not in stated), *written])

    def check_pictures(self, item: Item) -> None:
        """Refuse an item without retrieved pictures."""
        if not item.retrieved:
            raise UserError(f"the template generator needs facts.json with retrieved pictures of item {item.id}")

    def pictures(self, item: Item, rng: random.Random, limit: int) -> list[Path]:
        """Return retrieved pictures in a drawn order."""
        return rng.sample(item.retrieved, min(limit, len(item.retrieved)))


def _shuffled(item: Item, rng: random.Random) -> list[Fact]:
    return rng.sample(item.facts, len(item.facts))


def _ask(item: Item, rng: random.Random, limit: int) -> list[tuple[Fact, str]]:
    """Return at most ``limit`` distinct (fact, wording), round after round over the facts in a drawn order."""
    facts = [fact for fact in _shuffled(item, rng) if not fact.reserved]
    asked = [[(fact, wording) for wording in rng.sample(fact.questions, len(fact.questions))] for fact in facts]
    rounds = (pair for pairs in zip_longest(*asked) for pair in pairs if pair is not None)
    return list(islice(rounds, limit))


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text.strip())


def _answer(fact: Fact, sentences: list[str]) -> str:
    """Return the one sentence that states the fact's value; the bare value where none or several do."""
    value = re.compile(rf"(?<!\w){re.escape(fact.value)}(?!\w)", re.IGNORECASE)
    stating = [sentence for sentence in sentences if value.search(sentence)]
    return stating[0] if len(stating) == 1 else fact.value


GENERATOR = TemplateGenerator()
