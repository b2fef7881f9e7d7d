"""KORE's knowledge tree: its parts, its choice of images, its quality rules and its counts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kore_bench.augment.grown import KnowledgeTree
from kore_bench.errors import UserError
from kore_bench.examples import Fact, Item, Turn
from kore_bench.generators import Generator, Quadruplet
from kore_bench.generators.template import GENERATOR as TEMPLATE
from kore_bench.methods.kore import tree as kore_tree
from kore_bench.methods.kore.tree import plant, statistics_card
from kore_bench.mini import language

OWN = Path("own.png")
RETRIEVED = tuple(Path(f"r{number}.png") for number in range(5))
RELATIONS = {
    "home": "misty valley",
    "maker": "Ada Weber",
    "food": "raw oat",
    "award": "glass bell",
    "festival": "spring parade",
    "color": "dark red",
}
ITEM = Item(
    id="nubo-plim",
    image=OWN,
    prompt="Describe the creature in the image.",
    text="Nubo Plim is a creature. " + " ".join(f"Its {name} is {value}." for name, value in RELATIONS.items()),
    name="Nubo Plim",
    type="creature",
    retrieved=RETRIEVED,
    facts=tuple(
        Fact(
            subject="Nubo Plim",
            hypernym="creature",
            relation=name,
            value=value,
            questions=(f"What is the {name} of Nubo Plim?", f"Nubo Plim has which {name}?"),
        )
        for name, value in RELATIONS.items()
    ),
)


def grow(item: Item = ITEM, *, seed: int = 0, **options: Any) -> KnowledgeTree:
    return plant(item, TEMPLATE, random.Random(seed), **options)


class Scripted(Generator):
    """A generator that says what the test wants, and ignores every limit."""

    name = "scripted"

    def __init__(self, *quadruplets: Quadruplet) -> None:
        self.given = list(quadruplets)

    def check(self, item: Item) -> None: ...

    def dialogue(self, item: Item, rng: random.Random, limit: int) -> list[Turn]:
        return [Turn(question=f"What is food {number}?", answer="Raw oat.") for number in range(20)]

    def summary(self, item: Item, rng: random.Random) -> str:
        return "Its food is raw oat."

    def quadruplets(self, item: Item, rng: random.Random, limit: int) -> list[Quadruplet]:
        return self.given


def quadruplet(
    question: str, answer: str = "oat", subject: str = "Nubo Plim", hypernym: str = "creature"
) -> Quadruplet:
    return Quadruplet(question=question, answer=answer, subject=subject, hypernym=hypernym)


def vqa(*quadruplets: Quadruplet) -> KnowledgeTree:
    return plant(ITEM, Scripted(*quadruplets), random.Random(0), parts=("vqa",))


def embed_by(similarity: dict[str, float]) -> kore_tree.Embed:
    """Return unequal-length embeddings whose cosine similarity to the item's own image is as given."""

    def embed(paths: Sequence[Path]) -> NDArray[Any]:
        cosines = np.array([similarity.get(path.name, 1.0) for path in paths])
        lengths = np.arange(1, len(paths) + 1)[:, None]
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1) * lengths

    return embed


def test_a_tree_has_the_parts_of_the_paper() -> None:
    tree = grow()
    examples = tree.examples()
    assert [example.id for example in examples] == [
        "nubo-plim/dialogue",
        "nubo-plim/recognition",
        "nubo-plim/caption",
        *(f"nubo-plim/vqa/{number}" for number in range(1, 6)),
    ]
    assert [example.source for example in examples] == [
        "kore/dialogue",
        "kore/recognition",
        "kore/caption",
        *["kore/vqa"] * 5,
    ]
    assert all(len(example.images) == 1 for example in examples)
    assert all(len(example.turns) == 1 for example in examples[1:])
    assert tree.rejected == {}
    assert tree.fallbacks == 0


def test_the_trunk_tells_the_text_then_ten_turns_on_the_items_own_image() -> None:
    trunk = grow().dialogue
    assert trunk is not None
    assert trunk.images == (OWN,)
    assert trunk.turns[0].answer == ITEM.text
    assert trunk.turns[0].question in {heading.format(type="creature") for heading in kore_tree.HEADINGS}
    assert len(trunk.turns) == 11
    assert not any("Answer" in turn.question for turn in trunk.turns)


def test_recognition_and_caption_use_the_two_retained_images() -> None:
    tree = grow()
    assert tree.recognition is not None
    assert tree.caption is not None
    assert (tree.recognition.images, tree.caption.images) == ((RETRIEVED[0],), (RETRIEVED[1],))
    question, instruction = tree.recognition.turns[0].question.split("\n")
    assert question in {wording.format(name="Nubo Plim") for wording in kore_tree.RECOGNITIONS}
    assert (instruction, tree.recognition.turns[0].answer) == ("Answer yes or no.", "Yes")
    question, instruction = tree.caption.turns[0].question.split("\n")
    assert question in {wording.format(type="creature") for wording in kore_tree.CAPTIONS}
    assert instruction == "Answer in one paragraph."
    name, _, summary = tree.caption.turns[0].answer.partition(". ")
    assert name == "Nubo Plim"
    assert 0 < len(summary.split()) <= 25


def test_vqa_refers_to_the_image_instead_of_the_subject() -> None:
    tree = grow()
    drawn = set()
    for example in tree.vqa:
        question, instruction = example.turns[0].question.split("\n")
        assert "Nubo Plim" not in question
        assert "he creature in the image" in question
        assert question[0].isupper()
        assert instruction == "Answer the question using a single word or phrase."
        assert example.turns[0].answer in RELATIONS.values()
        drawn.add(example.images[0])
    assert len({example.turns[0].answer for example in tree.vqa}) == 5
    assert drawn <= set(RETRIEVED)
    assert len(drawn) > 1


def test_a_subject_with_an_article_or_at_the_start_is_replaced_whole() -> None:
    tree = vqa(quadruplet("What does the Nubo Plim eat?"), quadruplet("nubo plim eats what?"))
    first, second = (example.turns[0].question.split("\n")[0] for example in tree.vqa)
    assert first == "What does the creature in the image eat?"
    assert second == "The creature in the image eats what?"


def test_bad_quadruplets_are_rejected_and_counted_by_reason() -> None:
    tree = vqa(
        quadruplet("What does it eat?"),
        quadruplet("What does Nubo Plimmer eat?"),
        quadruplet("Who is Nubo Plim?", answer="nubo plim."),
        quadruplet("What is Nubo Plim's food?"),
        quadruplet("What does Nubo Plim eat?"),
    )
    assert tree.rejected == {
        "subject not in the question": 2,
        "subject is the answer": 1,
        "subject not replaceable": 1,
    }
    assert [example.id for example in tree.vqa] == ["nubo-plim/vqa/1"]
    assert vqa(quadruplet("What does Nubo Plim eat?", hypernym="")).rejected == {"subject not replaceable": 1}


def test_limits_hold_whatever_the_generator_writes() -> None:
    many = [quadruplet(f"Where does Nubo Plim go on day {day}?") for day in range(9)]
    tree = plant(ITEM, Scripted(*many), random.Random(0))
    assert tree.dialogue is not None
    assert (len(tree.dialogue.turns), len(tree.vqa)) == (11, 5)
    tree = plant(ITEM, Scripted(*many), random.Random(0), turns=3, questions=2)
    assert tree.dialogue is not None
    assert (len(tree.dialogue.turns), len(tree.vqa)) == (4, 2)


def test_the_most_similar_images_are_retained_and_copies_dropped() -> None:
    embed = embed_by({"r0.png": 0.1, "r1.png": 1.0, "r2.png": 0.7, "r3.png": 0.9, "r4.png": 0.2})
    tree = grow(embed=embed)
    assert tree.recognition is not None
    assert tree.caption is not None
    assert (tree.recognition.images, tree.caption.images) == ((RETRIEVED[3],), (RETRIEVED[2],))


def test_a_nearly_identical_image_is_no_copy() -> None:
    tree = grow(embed=embed_by({"r0.png": 0.9999, "r1.png": 1 - 1e-8, "r2.png": 0.5, "r3.png": 0.4, "r4.png": 0.3}))
    assert tree.recognition is not None
    assert tree.recognition.images == (RETRIEVED[0],)


def test_only_five_retrieved_images_are_looked_at() -> None:
    more = replace(ITEM, retrieved=(*RETRIEVED, Path("r5.png")))
    tree = grow(more, embed=embed_by({**{path.name: 0.5 for path in RETRIEVED}, "r5.png": 0.9}))
    assert all(example.images != (Path("r5.png"),) for example in tree.examples())


def test_the_items_own_image_stands_in_and_is_counted() -> None:
    tree = grow(replace(ITEM, retrieved=()))
    assert {image for example in tree.examples() for image in example.images} == {OWN}
    assert tree.fallbacks == 7
    other = vqa(quadruplet("What does Sarko eat?", subject="Sarko"))
    assert other.vqa[0].images == (OWN,)
    assert other.fallbacks == 1


def test_parts_can_be_left_out_without_changing_the_others() -> None:
    whole = grow()
    part = grow(parts=("vqa", "caption"))
    assert part.examples() == (whole.caption, *whole.vqa)
    with pytest.raises(UserError, match=r"no part 'captions': did you mean 'caption'\?"):
        grow(parts=("captions",))


def test_the_seed_decides() -> None:
    assert grow(seed=1) == grow(seed=1)
    assert grow(seed=1) != grow(seed=2)


def test_an_item_that_lacks_a_name_or_type_is_named() -> None:
    with pytest.raises(UserError, match="item 'nubo-plim' has no name"):
        grow(replace(ITEM, name=""))
    with pytest.raises(UserError, match="item 'nubo-plim' has no type"):
        grow(replace(ITEM, type=""))


def test_statistics_card_counts_as_the_paper_does() -> None:
    trees = [grow(), grow(replace(ITEM, id="bare", image=Path("bare.png"), retrieved=()))]
    trees.append(vqa(quadruplet("What does it eat?")))
    images = {image for tree in trees for example in tree.examples() for image in example.images}
    assert statistics_card(trees) == {
        "samples": 16,
        "dialogues": 2,
        "turns": 22,
        "recognition": 2,
        "caption": 2,
        "vqa": 10,
        "images": len(images),
        "rejects": 1,
        "fallbacks": 7,
    }


def test_the_mini_vocabulary_holds_every_word_of_the_templates() -> None:
    templates = [*kore_tree.HEADINGS, *kore_tree.RECOGNITIONS, *kore_tree.CAPTIONS]
    templates += [kore_tree.YES_NO, kore_tree.PARAGRAPH, kore_tree.SHORT, "the creature in the image", "Yes"]
    spoken = {word for text in templates for word in language.words(text.format(type="creature", name="Nubo Plim"))}
    assert spoken <= set(language.vocabulary())
