"""Training rows made when asked for: equal to encoding at once, no picture opened early, memory bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kore_bench import rows
from kore_bench.chat import Chat
from kore_bench.examples import Example
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.models.mini_llava import CARD
from kore_bench.rows import Rows


@pytest.fixture(scope="module")
def model() -> LMM:
    return LMM.load(CARD)


@pytest.fixture(scope="module")
def examples(small_world: Path) -> list[Example]:
    return [item.example() for item in read_knowledge(small_world).items]


def encoded(model: LMM, example: Example) -> dict[str, object]:
    return {**model.encode(example.turns, example.images), "images": [str(image) for image in example.images]}


def test_rows_are_those_of_encoding_at_once(model: LMM, examples: list[Example]) -> None:
    made = model.rows(examples)
    expected = [encoded(model, example) for example in examples]
    for _ in range(2):  # made, then kept
        assert list(made) == made[:] == expected
    assert made[-1] == expected[-1]
    assert made[1:3] == expected[1:3]
    with pytest.raises(IndexError):
        made[len(examples)]


def test_nothing_is_opened_before_it_is_asked_for(model: LMM, examples: list[Example]) -> None:
    gone = replace(examples[0], images=(Path("gone.png"),))
    made = model.rows([gone, examples[1]])
    assert made[1] == encoded(model, examples[1])
    with pytest.raises(FileNotFoundError):
        made[0]


def test_what_does_not_fit_the_memory_is_made_again(
    model: LMM, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    length = len(encoded(model, examples[0])["input_ids"])  # type: ignore[arg-type]
    monkeypatch.setattr(rows, "KEPT_TOKENS", length)
    calls: list[int] = []

    class Counting(Chat):
        def encode(self, turns, images):  # type: ignore[no-untyped-def]
            calls.append(len(images))
            return super().encode(turns, images)

    made = Rows(Counting(model.processor, CARD, 1000), [examples[0], examples[0]])
    assert made[0] == made[1] == made[0] == made[1]
    assert len(calls) == 3  # the first once, the second each time


def test_long_rows_are_counted_once(model: LMM, examples: list[Example]) -> None:
    longest = max(len(row["input_ids"]) for row in model.rows(examples))
    made = Rows(Chat(model.processor, CARD, longest), examples)
    for place in (*range(len(examples)), *range(len(examples))):
        made[place]
    assert made.truncated == {n for n, row in enumerate(model.rows(examples)) if len(row["input_ids"]) == longest}
