"""The contamination guard: what counts as the same question or image, what does not, and what is taken out."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from kore_bench.augment.contamination import Guard, Overlap, asked_in, asked_of, decontaminated
from kore_bench.augment.data_set import picture
from kore_bench.augment.grown import KnowledgeTree
from kore_bench.augment.journal import Entry
from kore_bench.examples import Example, Item, Knowledge, Question, Turn

SHORT = "\nAnswer the question using a single word or phrase."


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Return an item's own image, an evaluation image, copies and near copies of it, and one like neither."""

    def draw(name: str, box: tuple[int, int, int, int], colour: str) -> Path:
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).rectangle(box, fill=colour)
        image.save(tmp_path / name)
        return tmp_path / name

    found = {
        "own": draw("own.png", (2, 2, 20, 60), "navy"),
        "asked": draw("asked.png", (30, 10, 60, 40), "red"),
        "recoloured": draw("recoloured.png", (30, 10, 60, 40), "darkgreen"),
        "other": draw("other.png", (5, 40, 60, 60), "red"),
    }
    found["copy"] = tmp_path / "copy.png"
    found["copy"].write_bytes(found["asked"].read_bytes())
    found["near"] = tmp_path / "near.jpg"
    Image.open(found["asked"]).resize((60, 60)).save(found["near"], quality=80)
    return found


def knowledge(images: dict[str, Path]) -> Knowledge:
    item = Item(id="a", image=images["own"], prompt="Describe it.", text="A text.", name="A", type="tower")
    questions = (
        Question(id="1", images=(images["asked"],), text=f"How tall is the tower in the image?{SHORT}", answer="9 m", group="a"),
        Question(id="2", images=(images["asked"],), text="Which maker of old does the tower in the image have?", answer="Bo Li", group="b"),
    )  # fmt: skip
    probe = Question(id="1", images=(), text="Where does A stand?", answer="Rome", group="a")
    return Knowledge(
        root=Path(), digest="", items=(item,), questions=questions, probes={"by-name": (probe,)}
    )  # fmt: skip


def entry(images: dict[str, Path], *asked: tuple[str, str], image: str = "other", item: str = "a") -> Entry:
    """Return an entry whose tree has a VQA sample for each question and answer."""
    vqa = tuple(
        Example(
            id=f"{item}/vqa/{number}", images=(images[image],), turns=(Turn(question=question, answer=answer),),
            source="kore/vqa", item=item,
        )
        for number, (question, answer) in enumerate(asked, start=1)
    )  # fmt: skip
    return Entry(tree=KnowledgeTree(item=item, vqa=vqa), pictures={images[image]: picture(images[image])})


def found(images: dict[str, Path], made: Entry) -> list[tuple[str, str, str]]:
    known = knowledge(images)
    shown = {image: picture(image) for _, question in asked_in(known) for image in question.images}
    overlaps = Guard(known, shown).overlaps(made, images["own"])
    return [(overlap.kind, overlap.asked, overlap.question) for overlap in overlaps]


@pytest.mark.parametrize(
    ("question", "answer", "item", "kinds"),
    [
        (f"How tall is the tower, in the image?{SHORT}", "nine metres", "a", [("same question", "evaluation", "1")]),
        (f"How tall is the tower in the image?{SHORT}", "9 m", "z", [("same question", "evaluation", "1")]),
        (f"How tall is the tower in the image?{SHORT}", "7 m", "z", []),  # another tower
        ("Now which maker of old does the tower in the image have?", "Bo Li", "z", [("near question", "evaluation", "2")]),
        ("Now which maker of old does the tower in the image have?", "Al Ba", "z", []),
        ("Whose work is the tower in the image?", "Bo Li", "b", []),
        ("Where does A stand?", "Rome", "a", [("same question", "by-name", "1")]),
    ],
)  # fmt: skip
def test_a_question_is_the_same_by_its_words_and_what_it_asks_for(
    images: dict[str, Path], question: str, answer: str, item: str, kinds: list[tuple[str, str, str]]
) -> None:
    assert found(images, entry(images, (question, answer), item=item)) == kinds


@pytest.mark.parametrize(
    ("image", "kinds"),
    [
        ("copy", ["same image"]),
        ("near", ["near image"]),
        ("recoloured", []),  # the hash alone would take it for the same
        ("other", []),
        ("own", []),
    ],
)
def test_an_image_is_the_same_by_its_bytes_or_nearly_so(images: dict[str, Path], image: str, kinds: list[str]) -> None:
    made = entry(images, ("What is it?", "iron"), image=image)
    assert [kind for kind, _, _ in found(images, made)] == kinds


def test_the_items_own_image_is_reported_and_stays(images: dict[str, Path]) -> None:
    known = knowledge(images)
    shown = {images["asked"]: picture(images["asked"])}
    made = entry(images, ("What is it?", "iron"), image="copy")
    overlaps = list(Guard(known, shown).overlaps(made, images["copy"]))
    assert [overlap.kind for overlap in overlaps] == ["own image"]
    assert decontaminated(made.tree, overlaps) == made.tree


def test_what_overlaps_is_taken_out_and_nothing_else() -> None:
    turns = (Turn(question="Describe it.", answer="A text."), Turn(question="How tall?", answer="9 m"),
             Turn(question="Where?", answer="Rome"))  # fmt: skip
    dialogue = Example(id="a/dialogue", images=(), turns=turns, source="kore/dialogue", item="a")
    vqa = tuple(
        Example(id=f"a/vqa/{number}", images=(), turns=turns[:1], source="kore/vqa", item="a") for number in (1, 2)
    )
    tree = KnowledgeTree(item="a", dialogue=dialogue, vqa=vqa)
    taken = decontaminated(
        tree,
        [
            Overlap(item="a", sample="a/dialogue", kind="same question", asked="evaluation", question="1", turn=1),
            Overlap(item="a", sample="a/vqa/2", kind="near image", asked="evaluation", question="1"),
        ],
    )
    assert taken.dialogue is not None
    assert taken.dialogue.turns == (turns[0], turns[2])
    assert taken.vqa == vqa[:1]


def test_the_instruction_is_no_part_of_a_question() -> None:
    assert asked_of(f"How tall is it?{SHORT}") == "How tall is it?"
    assert asked_of("How tall is it? Answer with one word.") == "How tall is it?"
    assert asked_of("Give the height.") == "Give the height."
