"""What every generator of knowledge trees must hold: limits, and equal text for equal seeds."""

from __future__ import annotations

import random

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Item, Knowledge
from kore_bench.generators import SUMMARY_WORDS, Generator, GeneratorSettings, Illustrator, Rewriter
from kore_bench.generators.llm.writer import LanguageModelGenerator
from kore_bench.registry import Registry


@pytest.fixture
def the_generator(generator: str, registry: Registry, pytestconfig: pytest.Config) -> Generator:
    """Return the generator that is tested, with the language model that is named by ``--llm``."""
    settings = GeneratorSettings(
        llm=pytestconfig.getoption("--llm", ""), base_url=pytestconfig.getoption("--base-url", "")
    )
    found: Generator = registry.find("generators", generator)
    return found.configured(settings)


@pytest.fixture
def items(the_generator: Generator, mini_knowledge: Knowledge) -> tuple[Item, ...]:
    """Return items that it can write about."""
    if isinstance(the_generator, LanguageModelGenerator) and not the_generator.settings.llm:
        pytest.skip(f"{the_generator.name} writes by a language model, and none is named by --llm")
    found = mini_knowledge.items[:6]
    for item in found:
        the_generator.check(item)
    return found


def test_generator_describes_itself(the_generator: Generator) -> None:
    """The first line of its docstring stands in `kore-bench list generators`."""
    assert (vars(type(the_generator)).get("__doc__") or "").strip()


def test_generator_keeps_its_limits(the_generator: Generator, items: tuple[Item, ...]) -> None:
    """It writes something about every item, and no more than it is asked for."""
    for item in items:
        for limit in (1, 5):
            turns = the_generator.dialogue(item, random.Random(0), limit)
            quadruplets = the_generator.quadruplets(item, random.Random(0), limit)
            assert 0 < len(turns) <= limit
            assert len(quadruplets) <= limit
            assert all(turn.question.strip() and turn.answer.strip() for turn in turns)
            assert all(quadruplet.question.strip() and quadruplet.answer.strip() for quadruplet in quadruplets)
        assert 0 < len(the_generator.summary(item, random.Random(0)).split()) <= SUMMARY_WORDS


def test_generator_writes_equal_text_for_equal_seeds(the_generator: Generator, items: tuple[Item, ...]) -> None:
    """All randomness comes from the stream that it is given."""
    for item in items:
        assert the_generator.dialogue(item, random.Random(1), 5) == the_generator.dialogue(item, random.Random(1), 5)
        assert the_generator.quadruplets(item, random.Random(1), 5) == the_generator.quadruplets(
            item, random.Random(1), 5
        )
        assert the_generator.summary(item, random.Random(1)) == the_generator.summary(item, random.Random(1))


def test_generator_rewrites_and_illustrates_reproducibly(the_generator: Generator, items: tuple[Item, ...]) -> None:
    """Where it can: another text and other pictures of an item, equal for equal seeds."""
    if isinstance(the_generator, Rewriter):
        for item in items:
            text = the_generator.rewrite(item, random.Random(1))
            assert text.strip()
            assert text != item.text
            assert text == the_generator.rewrite(item, random.Random(1))
    if isinstance(the_generator, Illustrator):
        for item in items:
            the_generator.check_pictures(item)
            pictures = the_generator.pictures(item, random.Random(1), 3)
            assert 0 < len(pictures) <= 3
            assert all(picture.is_file() and picture != item.image for picture in pictures)
            assert pictures == the_generator.pictures(item, random.Random(1), 3)


def test_generator_refuses_what_it_cannot_write_about(the_generator: Generator, items: tuple[Item, ...]) -> None:
    """An item of which nothing is known is refused in a sentence, or written about."""
    bare = Item(id="bare", image=items[0].image, prompt="", text="It is.")
    refusal = ""
    try:
        the_generator.check(bare)
    except UserError as error:
        refusal = str(error)
    assert "bare" in refusal or the_generator.dialogue(bare, random.Random(0), 1), "the refusal must name the item"
