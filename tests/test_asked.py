"""Facts that training asks for apart from facts that its texts alone state: told by hand, on marks and without any."""

from __future__ import annotations

import importlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kore_bench.asked import says, says_reserved, with_asked
from kore_bench.errors import UserError
from kore_bench.examples import Example, Fact, Item, Knowledge, Question, Turn
from kore_bench.formats import read_knowledge
from kore_bench.formats.evoke_writer import write_knowledge
from kore_bench.generators import Quadruplet
from kore_bench.generators.template import GENERATOR as TEMPLATE
from kore_bench.methods.kore import KoreAugmentation
from kore_bench.methods.kore.tree import plant
from kore_bench.registry import Registry
from kore_bench.tasks.adaptation import TASK

VALUES = {"home": "misty valley", "maker": "Ada Weber", "food": "raw oat"}


def fact(relation: str, *, reserved: bool = False) -> Fact:
    wordings = (f"What is the {relation} of Nubo Plim?", f"Nubo Plim has which {relation}?")
    return Fact(
        subject="Nubo Plim", hypernym="creature", relation=relation, value=VALUES[relation], questions=wordings,
        reserved=reserved,
    )  # fmt: skip


ITEM = Item(
    id="nubo-plim",
    image=Path("own.png"),
    prompt="Describe the creature.",
    text="Nubo Plim is a creature. Its home is misty valley. Its maker is Ada Weber. Its food is raw oat.",
    name="Nubo Plim",
    type="creature",
)
MARKED = replace(ITEM, facts=(fact("home"), fact("maker"), fact("food", reserved=True)))
OTHER = replace(ITEM, id="zerin", name="Zerin", text="Zerin is a creature.")


def question(relation: str, *, item: Item = ITEM) -> Question:
    text, answer = f"What is the {relation}?", VALUES.get(relation, relation)
    return Question(
        id=f"{item.id}/{relation}", images=(), text=text, answer=answer, group=item.id, context=item.text
    )  # fmt: skip


def little(item: Item = ITEM, **more: Any) -> Knowledge:
    return Knowledge(
        root=Path("folder"), digest="", items=(item, OTHER), questions=tuple(map(question, VALUES)), **more
    )  # fmt: skip


def example(*turns: tuple[str, str], item: str = ITEM.id) -> Example:
    return Example(id="x", images=(), turns=tuple(Turn(question=q, answer=a) for q, a in turns), source="x", item=item)


def told(knowledge: Knowledge, *examples: Example) -> tuple[list[bool | None], int]:
    marked, number = with_asked(knowledge, examples)
    return [question.asked for question in marked.questions], number


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("Its home is Misty Valley.", "misty valley", True),
        ("The 'raw oat', of course", "raw oat", True),
        ("raw oatmeal", "raw oat", False),
        ("misty green valley", "misty valley", False),
        ("anything", "?", False),
    ],
)
def test_a_text_says_a_value_word_for_word(text: str, value: str, found: bool) -> None:
    assert says(text, value) is found


def test_a_fact_is_asked_where_a_turn_beside_the_text_says_its_answer() -> None:
    plain = ITEM.example()
    asks = example(("What is it called?", ITEM.text), ("Where does it live?", "Its home is Misty Valley."))
    assert told(little(), plain, asks) == ([True, False, False], 1)
    choices = example(("Who made it?\nA. Leo Quinn\nB. Ada Weber", "B"))
    assert told(little(), plain, choices) == ([False, True, False], 1)


def test_texts_ask_for_nothing_however_they_are_written() -> None:
    rewritten = example((ITEM.prompt, "Raw oat feeds it, misty valley is its home."))
    brief = example((f"{ITEM.prompt}\nAnswer briefly.", "Its food is raw oat."))
    caption = example(("What is shown?\nAnswer in one paragraph.", "Nubo Plim. Its food is raw oat."))
    assert told(little(), ITEM.example(), rewritten, brief, caption) == ([None] * 3, 0)


def test_what_is_asked_of_another_item_is_not_asked_of_this_one() -> None:
    asks = example(("What is its home?", "misty valley"))
    assert told(little(), replace(asks, item=OTHER.id), example(("Food?", "raw oat"))) == ([False, False, True], 1)


def test_a_turn_that_may_be_about_any_item_leaves_it_open() -> None:
    known, unknown = example(("Home?", "misty valley")), example(("Food?", "It is raw oat."), item="")
    assert told(little(), known, unknown) == ([True, False, None], 1)


def test_old_samples_ask_for_no_injected_fact() -> None:
    old = example(("What is eaten?", "raw oat"), item="")
    knowledge = little(old={"COM": (old,)})
    replayed = replace(old, source="replay/COM")
    assert told(knowledge, example(("Home?", "misty valley")), replayed) == ([True, False, False], 1)


def test_a_question_of_no_known_item_is_not_told() -> None:
    knowledge = little()
    lost = tuple(replace(question, context="") for question in knowledge.questions)
    assert told(replace(knowledge, questions=lost), example(("Home?", "misty valley"))) == ([None] * 3, 0)


def test_where_nothing_is_asked_the_marks_tell_the_same_questions_apart() -> None:
    assert told(little(MARKED), ITEM.example()) == ([True, True, False], 0)
    assert told(little(MARKED)) == ([True, True, False], 0)
    assert told(little(MARKED), example(("Food?", "raw oat"))) == (
        [False, False, True],
        1,
    )  # what happened, not the plan
    free = replace(MARKED, facts=tuple(replace(fact, reserved=False) for fact in MARKED.facts))
    assert told(little(free)) == ([None] * 3, 0)


# ---- the measure


def score(asked: dict[str, bool | None], answers: dict[str, str]) -> dict[str, tuple[float, int]]:
    questions = [replace(question(name), asked=asked[name]) for name in VALUES]
    scores = TASK.score(questions, [answers.get(name, "zzz") for name in VALUES])
    return {
        name: (scores[name].value, scores[name].n) for name in ("K.A", "K.A asked", "K.A text only") if name in scores
    }


def test_adaptation_counts_what_was_asked_apart_from_what_was_read() -> None:
    asked: dict[str, bool | None] = {"home": True, "maker": True, "food": False}
    assert score(asked, VALUES) == {"K.A": (100, 3), "K.A asked": (100, 2), "K.A text only": (100, 1)}
    assert score(asked, {}) == {"K.A": (0, 3), "K.A asked": (0, 2), "K.A text only": (0, 1)}
    drilled = score(asked, {"home": VALUES["home"], "maker": VALUES["maker"]})
    assert drilled["K.A asked"] == (100, 2)
    assert drilled["K.A text only"] == (0, 1)
    constant = score(asked, dict.fromkeys(VALUES, "raw oat"))
    assert constant["K.A asked"] == (0, 2)
    assert constant["K.A text only"] == (100, 1)


def test_what_is_not_told_is_left_out_and_never_zero() -> None:
    assert set(score(dict.fromkeys(VALUES), VALUES)) == {"K.A"}
    some = score({"home": True, "maker": None, "food": None}, VALUES)
    assert some == {"K.A": (100, 3), "K.A asked": (100, 1)}


# ---- reserved facts in training


@pytest.fixture(scope="module")
def mini(world: Path) -> Knowledge:
    return read_knowledge(world)


def test_the_mini_world_reserves_one_fact_of_five_as_often_of_each_relation(mini: Knowledge) -> None:
    kept = [fact for item in mini.items for fact in item.facts if fact.reserved]
    assert {sum(fact.reserved for fact in item.facts) for item in mini.items} == {1}
    assert set(Counter(fact.relation for fact in kept).values()) == {len(mini.items) // 5}
    marked, number = with_asked(mini, [item.example() for item in mini.items])
    assert Counter(question.asked for question in marked.questions) == {True: 240, False: 60}
    assert number == 0


def test_the_template_generator_states_reserved_facts_and_never_asks_them(mini: Knowledge) -> None:
    summaries = 0
    for item in mini.items:
        rng = random.Random(item.id)
        (kept,) = (fact.value for fact in item.facts if fact.reserved)
        assert not any(says(f"{turn.question} {turn.answer}", kept) for turn in TEMPLATE.dialogue(item, rng, 100))
        assert kept not in {quadruplet.answer for quadruplet in TEMPLATE.quadruplets(item, rng, 100)}
        assert says(TEMPLATE.rewrite(item, rng), kept)
        summaries += says(TEMPLATE.summary(item, rng), kept)
    assert summaries > 0


def test_training_of_kore_and_sefe_asks_the_other_facts_alone(mini: Knowledge) -> None:
    class DataRun:
        items, seed, calibration = mini.items, 0, ()

        def rng(self, component: object) -> random.Random:
            return random.Random(0)

        def find(self, kind: str, name: str) -> Any:
            return Registry().find(kind, name)

        def embed(self, images: Sequence[Path]) -> NDArray[np.floating[Any]]:
            return np.eye(len(images))

        def log(self, name: str, value: Any) -> None: ...

    run: Any = DataRun()
    plain = [item.example() for item in mini.items]
    reserved = {question.id: not question.asked for question in with_asked(mini, plain)[0].questions}
    trees, number = with_asked(mini, KoreAugmentation().data(plain, run))
    assert {question.id: not question.asked for question in trees.questions} == reserved
    assert number == 240
    sefe = Registry().compose("sefe", {"sefe.share": "1"}).components[1]
    styled, number = with_asked(mini, sefe.data(plain, run))
    assert 0 < number < 240
    assert not any(question.asked for question in styled.questions if reserved[question.id])


def test_no_tree_asks_a_reserved_fact_whatever_its_generator_writes() -> None:
    class Scripted(type(TEMPLATE)):  # type: ignore[misc]
        name = "scripted"

        def dialogue(self, item: Item, rng: random.Random, limit: int) -> list[Turn]:
            said = ("Its food is raw oat.", "Its home is misty valley.")
            return [
                Turn(question=f"What is told of Nubo Plim, part {number}?", answer=a) for number, a in enumerate(said)
            ]

        def quadruplets(self, item: Item, rng: random.Random, limit: int) -> list[Quadruplet]:
            return [
                Quadruplet(question="What does Nubo Plim eat?", answer="Raw oat", subject="Nubo Plim", hypernym="creature"),
                Quadruplet(question="Who made Nubo Plim?", answer="Ada Weber", subject="Nubo Plim", hypernym="creature"),
            ]  # fmt: skip

    tree = plant(MARKED, Scripted(), random.Random(0))
    assert tree.dialogue is not None
    assert [turn.answer for turn in tree.dialogue.turns[1:]] == ["Its home is misty valley."]
    assert [one.turns[0].answer for one in tree.vqa] == ["Ada Weber"]
    assert tree.rejected == {"reserved fact": 2}
    assert says_reserved(MARKED, tree.dialogue.turns[0].answer)  # the text itself still states it
    assert {one.item for one in tree.examples()} == {MARKED.id}


# ---- EVOKE with KORE-74K, where nothing is marked


def test_conversations_of_kore_74k_tell_what_they_ask(tmp_path: Path) -> None:
    made: Any = importlib.import_module("evoke_folder")
    knowledge = read_knowledge(made.evoke_folder(tmp_path / "EVOKE"))
    source = made.kore_folder(tmp_path / "KORE-74K")
    run: Any = SimpleNamespace(items=knowledge.items, log=lambda name, value: None)
    plain = [item.example() for item in knowledge.items]
    marked, number = with_asked(knowledge, KoreAugmentation(source=str(source)).data(plain, run))
    assert number == sum(question.asked is True for question in marked.questions) == len(knowledge.questions)
    # Without the dialogues' last turn the answers stand in the VQA alone, of which nothing tells whose they are.
    file = source / "json/KORE-74K-training_data.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    for row in rows[5::5]:
        row["conversations"] = row["conversations"][:2]
    file.write_text(json.dumps(rows), encoding="utf-8")
    marked, number = with_asked(knowledge, KoreAugmentation(source=str(source)).data(plain, run))
    first, *others = marked.questions
    assert (first.asked, number) == (True, 1)
    assert {question.asked for question in others} == {None}
    named, number = with_asked(knowledge, KoreAugmentation(source=str(source), parts=("dialogue",)).data(plain, run))
    assert [question.asked for question in named.questions] == [True] + [False] * (len(others))
    assert {question.asked for question in with_asked(knowledge, plain)[0].questions} == {None}


# ---- the mark in facts.json


def test_marks_are_written_and_read_again(mini: Knowledge, tmp_path: Path) -> None:
    again = read_knowledge(write_knowledge(mini, tmp_path / "copy"))
    assert [item.facts for item in again.items] == [item.facts for item in mini.items]
    facts = json.loads((tmp_path / "copy" / "facts.json").read_text())
    rows = [row for item in facts.values() for row in item["facts"]]
    assert Counter(row.get("reserved") for row in rows) == {None: 240, True: 60}


def test_a_mark_that_is_neither_true_nor_false_is_refused(mini: Knowledge, tmp_path: Path) -> None:
    folder = write_knowledge(mini, tmp_path / "copy")
    facts = json.loads((folder / "facts.json").read_text())
    next(iter(facts.values()))["facts"][2]["reserved"] = "yes"
    (folder / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"facts\.json.*facts\[2\]\.reserved.*expected true or false, found 'yes'"):
        read_knowledge(folder)
