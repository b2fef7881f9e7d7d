"""The template generator: what it writes, and what it cannot write about."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Fact, Item
from kore_bench.generators import SUMMARY_WORDS
from kore_bench.generators.template import GENERATOR as TEMPLATE

VALUES = {"home": "misty valley", "maker": "Ada Weber", "food": "raw oat", "award": "glass bell"}
SENTENCES = {
    "home": "Its home is misty valley.",
    "maker": "Nubo Plim has Ada Weber as its maker.",
    "food": "Its food is raw oat.",
    "award": "The award of Nubo Plim is glass bell.",
}
FACTS = tuple(
    Fact(
        subject="Nubo Plim",
        hypernym="creature",
        relation=relation,
        value=value,
        questions=tuple(f"{ask} the {relation} of Nubo Plim?" for ask in ("What is", "Please, what is", "Tell me")),
    )
    for relation, value in VALUES.items()
)
ITEM = Item(
    id="nubo-plim",
    image=Path("own.png"),
    prompt="Describe the creature in the image.",
    text=" ".join(["Nubo Plim is a creature.", *SENTENCES.values()]),
    name="Nubo Plim",
    type="creature",
    facts=FACTS,
)


def test_dialogue_covers_every_fact_before_asking_again_and_answers_with_the_texts_sentence() -> None:
    turns = TEMPLATE.dialogue(ITEM, random.Random(0), 10)
    assert len(turns) == 10
    assert len({turn.question for turn in turns}) == 10
    assert {turn.answer for turn in turns[:4]} == set(SENTENCES.values())
    for turn in turns:
        relation = next(relation for relation in VALUES if f"the {relation} of" in turn.question)
        assert turn.answer == SENTENCES[relation]


def test_dialogue_ends_with_the_wordings() -> None:
    assert len(TEMPLATE.dialogue(ITEM, random.Random(0), 100)) == 12


def test_answer_is_the_bare_value_where_no_or_more_than_one_sentence_states_it() -> None:
    twice = replace(ITEM, text="Its home is misty valley. Its base is misty valley. Its food is raw oatmeal.")
    answers = {turn.answer for turn in TEMPLATE.dialogue(twice, random.Random(0), 4)}
    assert answers == set(VALUES.values())


def test_summary_keeps_whole_sentences_in_order_within_25_words() -> None:
    for seed in range(20):
        summary = TEMPLATE.summary(ITEM, random.Random(seed))
        assert 0 < len(summary.split()) <= SUMMARY_WORDS == 25
        kept = [sentence for sentence in SENTENCES.values() if sentence in summary]
        assert summary == " ".join(kept)
        assert len(kept) == 3
    assert len({TEMPLATE.summary(ITEM, random.Random(seed)) for seed in range(20)}) > 1


def test_summary_cuts_a_text_of_one_long_sentence() -> None:
    long = replace(ITEM, text="Nubo Plim " * 30 + "lives in misty valley.")
    assert TEMPLATE.summary(long, random.Random(0)).split() == ("Nubo Plim " * 30).split()[:25]


def test_quadruplets_are_the_facts_and_at_most_as_many_as_asked() -> None:
    quadruplets = TEMPLATE.quadruplets(ITEM, random.Random(0), 5)
    assert len(quadruplets) == 5
    assert {quadruplet.answer for quadruplet in quadruplets[:4]} == set(VALUES.values())
    assert len({quadruplet.question for quadruplet in quadruplets}) == 5
    assert all(q.subject == "Nubo Plim" and q.hypernym == "creature" for q in quadruplets)
    assert len(TEMPLATE.quadruplets(ITEM, random.Random(0), 2)) == 2


def test_the_seed_decides() -> None:
    assert TEMPLATE.dialogue(ITEM, random.Random(1), 10) == TEMPLATE.dialogue(ITEM, random.Random(1), 10)
    assert TEMPLATE.quadruplets(ITEM, random.Random(1), 5) == TEMPLATE.quadruplets(ITEM, random.Random(1), 5)
    assert TEMPLATE.dialogue(ITEM, random.Random(1), 10) != TEMPLATE.dialogue(ITEM, random.Random(2), 10)


def test_an_item_without_facts_is_named() -> None:
    TEMPLATE.check(ITEM)
    with pytest.raises(UserError, match=r"template generator needs facts\.json with facts of item nubo-plim"):
        TEMPLATE.check(replace(ITEM, facts=()))
