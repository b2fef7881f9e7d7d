"""The general augmentations: what each changes and keeps, equal copies for equal seeds, and what is refused."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from kore_bench.augmentation import Augmentation, keep_picture
from kore_bench.card import ModelCard
from kore_bench.component import AdapterSpec, Budget
from kore_bench.errors import UserError
from kore_bench.examples import Example, Item, Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.generators.template import GENERATOR as TEMPLATE
from kore_bench.methods.augment_image_agnostic import AugmentImageAgnostic
from kore_bench.methods.augment_text_agnostic import AugmentTextAgnostic
from kore_bench.plan import Request, make_plan, preflight
from kore_bench.registry import Registry
from kore_bench.runner import CellRun

NAMES = ("augment-text-agnostic", "augment-text-aware", "augment-image-agnostic", "augment-image-aware")


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


def augmented(items: tuple[Item, ...], method: str, seed: int = 0, **settings: str) -> tuple[list[Example], CellRun]:
    """Return the training data of ``items`` after every `data` hook of a method, without a model."""
    given = {f"{method}.{name}": value for name, value in settings.items()}
    components = Registry().compose(method, given).components
    card: ModelCard = Registry().find("models", "mini-llava")
    run = CellRun(
        seed=seed, items=items, calibration=(), held_out=(), budget=Budget(steps=1, epochs=0, batch_size=1),
        spec=AdapterSpec(kind="lora"),
        train_projector=False, base={"test": card.name}, embed=lambda images: np.eye(len(images)),
    )  # fmt: skip
    examples = [item.example() for item in items]
    for component in components:
        examples = component.data(examples, run)
    return examples, run


@pytest.mark.parametrize("method", NAMES)
def test_every_item_has_its_plain_conversation_and_its_copies(method: str, knowledge: Knowledge) -> None:
    items = knowledge.items[:4]
    examples, run = augmented(items, method, copies="3")
    assert [example for example in examples if example.source == "injection"] == [item.example() for item in items]
    assert Counter(example.source for example in examples) == {"injection": 4, method: 12}
    assert len({example.id for example in examples}) == 16
    assert run.diagnostics[f"{method}/copies"] == 12
    for item in items:
        for copy in (example for example in examples if example.id.startswith(f"{item.id}/")):
            changed = (copy.images != (item.image,), copy.turns[0].answer != item.text)
            assert copy.turns[0].question == item.prompt
            # an edit may draw two equal words, and a deletion none: a text copy can be equal, the other side never moves
            assert changed[0] is ("image" in method)
            assert "image" not in method or not changed[1]
            assert all(image.is_file() for image in copy.images)


@pytest.mark.parametrize("method", NAMES)
def test_equal_seeds_give_equal_copies_and_an_items_do_not_hang_on_the_others(
    method: str, knowledge: Knowledge
) -> None:
    items = knowledge.items[:3]
    one, again = augmented(items, method)[0], augmented(items, method)[0]
    assert one == again
    assert one != augmented(items, method, seed=1)[0]
    fewer = augmented(items[:2], method)[0]
    assert [example for example in one if not example.id.startswith(items[2].id)] == fewer


def test_there_are_as_many_conversations_as_in_kore_74k() -> None:
    for method in NAMES:
        component = Registry().compose(method).components[-1]
        assert isinstance(component, Augmentation)
        assert round(74_734 / 9_422) == component.copies + 1


def test_order_does_not_matter_beside_trees(knowledge: Knowledge) -> None:
    items = knowledge.items[:2]
    both = [
        augmented(items, "+".join(names))[0]
        for names in (("kore-augmentation", "augment-text-aware"), ("augment-text-aware", "kore-augmentation"))
    ]
    assert sorted(both[0], key=lambda example: example.id) == sorted(both[1], key=lambda example: example.id)


# ---- words


def words(text: str) -> Counter[str]:
    return Counter(word.strip(".!?,") for word in text.split())


TEXT = "The old mill of Brenlow burnt down in 1911. It was never built again. A park with 40 lime trees lies there now."


def edited(operation: str, strength: float = 0.1, seed: int = 0) -> str:
    text: str = AugmentTextAgnostic(operations=(operation,), strength=strength).edit(TEXT, Random(seed))
    return text


def test_a_swap_keeps_the_words_of_each_sentence() -> None:
    for seed in range(20):
        text = edited("swap", seed=seed)
        for before, after in zip(TEXT.split(". "), text.split(". "), strict=True):
            assert words(before) == words(after)
            moved = [a != b for a, b in zip(before.split(), after.split(), strict=True)]
            assert sum(moved) in (0, 2)


def test_a_deletion_takes_the_asked_share_and_nothing_else() -> None:
    counts = []
    for seed in range(300):
        left = words(edited("delete", strength=0.2, seed=seed))
        assert left <= words(TEXT)
        counts.append((words(TEXT) - left).total())
    free = words(TEXT).total() - 3  # 1911, never and 40 are never dropped
    assert np.mean(counts) == pytest.approx(0.2 * free, rel=0.1)


def test_an_insertion_adds_words_that_the_sentence_has() -> None:
    for seed in range(20):
        for before, after in zip(TEXT.split(". "), edited("insert", strength=0.3, seed=seed).split(". "), strict=True):
            added = words(after) - words(before)
            assert words(before) <= words(after)
            assert added.total() == max(1, round(0.3 * len(before.split())))
            assert added.keys() <= words(before).keys()


@pytest.mark.parametrize("operation", ["swap", "delete", "insert"])
def test_numbers_and_negations_stay_where_they_are(operation: str) -> None:
    for seed in range(50):
        text = edited(operation, strength=0.6, seed=seed)
        assert [word for word in text.replace(".", "").split() if word in ("1911", "never", "40")] == [
            "1911", "never", "40",
        ]  # fmt: skip
        if operation == "swap":
            at = [TEXT.replace(".", "").split().index(word) for word in ("1911", "never", "40")]
            assert [text.replace(".", "").split()[place] for place in at] == ["1911", "never", "40"]


def test_texts_that_leave_nothing_to_edit_stay() -> None:
    for operation in ("swap", "delete", "insert"):
        component = AugmentTextAgnostic(operations=(operation,), strength=0.9)
        assert component.edit("1911.", Random(0)) == "1911."
        assert component.edit("", Random(0)) == ""
        assert component.edit("Yes", Random(0)).replace("Yes", "") in ("", " ")


# ---- rewriting


def test_a_rewritten_text_states_every_fact_in_new_sentences(knowledge: Knowledge) -> None:
    for item in knowledge.items:
        text = TEMPLATE.rewrite(item, Random(0))
        sentences = text.split(". ")
        assert sentences[0] == f"{item.name} is a {item.type}"
        for fact in item.facts:
            [stating] = [sentence for sentence in sentences if fact.value.lower() in sentence.lower()]
            assert fact.relation in stating
            assert fact.subject in stating
        assert len(sentences) == len(item.facts) + 1
        assert difflib.SequenceMatcher(None, text, item.text).ratio() < 1


# ---- pictures


@pytest.fixture
def item(tmp_path: Path) -> Item:
    pixels = np.zeros((24, 36, 3), dtype=np.uint8)
    pixels[:, :12] = (200, 30, 30)
    pixels[:12, 24:] = (30, 30, 200)
    Image.fromarray(pixels).save(tmp_path / "own.png")
    return Item(id="x", image=tmp_path / "own.png", prompt="Describe it.", text="It stands there.")


def pixels_of(example: Example) -> np.ndarray:
    with Image.open(example.images[0]) as picture:
        return np.asarray(picture.convert("RGB"))


def copies(item: Item, *operations: str, count: int = 12) -> list[np.ndarray]:
    examples, _ = augmented((item,), "augment-image-agnostic", copies=str(count), operations=",".join(operations))
    return [pixels_of(example) for example in examples[1:]]


def test_a_flip_mirrors_and_never_where_the_text_speaks_of_sides(item: Item) -> None:
    with Image.open(item.image) as picture:
        own = np.asarray(picture)
    component = AugmentImageAgnostic()
    flipped = component.change(Image.fromarray(own), ["flip"], Random(0))
    assert np.array_equal(np.asarray(flipped), own[:, ::-1])
    sided = replace(item, text="The door is on the LEFT.")
    drawn = [
        augmented((item_,), "augment-image-agnostic", operations="flip,colour", copies="24") for item_ in (item, sided)
    ]
    left_is_red = [
        [bool(pixels_of(copy)[0, 0, 0] > pixels_of(copy)[0, 0, 2]) for copy in found[0][1:]] for found in drawn
    ]
    assert not all(left_is_red[0])
    assert any(left_is_red[0])
    assert all(left_is_red[1])
    assert "augment-image-agnostic/items not flipped" not in drawn[0][1].diagnostics
    assert drawn[1][1].diagnostics["augment-image-agnostic/items not flipped"] == 1


@pytest.mark.parametrize("operation", ["rotate", "crop", "colour"])
def test_each_operation_changes_the_pixels_and_keeps_the_size(operation: str, item: Item) -> None:
    with Image.open(item.image) as picture:
        own = np.asarray(picture)
    found = copies(item, operation)
    assert {copy.shape for copy in found} == {own.shape}
    assert all(not np.array_equal(copy, own) for copy in found)
    assert len({copy.tobytes() for copy in found}) == len(found)


def test_the_colour_jitter_keeps_the_hue(item: Item) -> None:
    for copy in copies(item, "colour"):
        red, blue = copy[12, 4].astype(int), copy[4, 30].astype(int)
        assert red[0] - max(red[1], red[2]) > 80
        assert blue[2] - max(blue[0], blue[1]) > 80


def test_a_picture_is_kept_once(cache: Path) -> None:
    picture = Image.new("RGB", (3, 3), (1, 2, 3))
    file = keep_picture(picture)
    before = file.stat().st_mtime_ns
    assert (keep_picture(picture), file.stat().st_mtime_ns) == (file, before)
    assert file.is_relative_to(cache)
    assert keep_picture(Image.new("RGB", (3, 3), (1, 2, 4))) != file


def test_other_pictures_take_turns(knowledge: Knowledge) -> None:
    [item] = knowledge.items[:1]
    examples, _ = augmented((item,), "augment-image-aware", copies="7")
    counts = Counter(example.images[0] for example in examples[1:])
    assert counts.keys() == set(item.retrieved)
    assert sorted(counts.values()) == [1, 1, 1, 2, 2]


# ---- what is refused


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("augment-text-agnostic", "copies=0", "augment-text-agnostic.copies=0 must be at least 1"),
        ("augment-text-agnostic", "operations=swop", "unknown operation 'swop': did you mean 'swap'?"),
        ("augment-text-agnostic", "operations=", "operations is empty: use some of swap, delete, insert"),
        ("augment-text-agnostic", "strength=1", "strength=1.0 is a share of words"),
        ("augment-image-agnostic", "operations=rotat", "unknown operation 'rotat': did you mean 'rotate'?"),
        ("augment-image-agnostic", "operations=flip", "needs one that every picture may undergo"),
        ("augment-image-agnostic", "degrees=0", "degrees=0.0 must be above 0"),
        ("augment-text-aware", "generator=templat", "augment-text-aware: unknown generator 'templat'"),
    ],
)
def test_wrong_settings_are_refused(method: str, settings: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        make_plan(Request(methods=(method,), settings=(f"{method}.{settings}",)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("augment-text-aware", "augment-text-aware.generator=sentences rewrites no texts: use one that does"),
        ("augment-image-aware", "augment-image-aware.generator=sentences gives no pictures: use one that does"),
    ],
)
def test_a_generator_that_cannot_is_refused(method: str, message: str, world: Path, tmp_path: Path) -> None:
    plugin = Path(__file__).parent / "plugins/tiny/kore_bench_tiny/generators.py"
    request = Request(methods=(method,), settings=(f"{method}.generator=sentences",), plugins=(str(plugin),))
    with pytest.raises(UserError) as error:
        preflight(make_plan(request), tmp_path)
    assert message in str(error.value)


def test_items_without_facts_or_pictures_are_refused(knowledge: Knowledge) -> None:
    bare = replace(knowledge, items=(replace(knowledge.items[0], facts=(), retrieved=()),))
    registry = Registry()
    for method, message in (
        ("augment-text-aware", r"augment-text-aware: the template generator needs facts\.json with facts"),
        ("augment-image-aware", r"augment-image-aware: the template generator needs facts\.json with retrieved"),
    ):
        component = registry.compose(method).components[-1]
        with pytest.raises(UserError, match=message):
            component.check_data(bare, registry.find)
        component.check_data(knowledge, registry.find)
