"""Texts of the mini world for lm-eval: facts and paragraphs about the entities that mini-llava was pre-trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from datasets import Dataset, DatasetDict

from kore_bench.mini.language import RELATIONS, ask, wordings
from kore_bench.mini.world import cast, heading, paragraph

_CHOICES = 4
_SEED = 5


def facts(**_: Any) -> DatasetDict:
    """Return five facts an entity, each with three wrong values of the same relation; columns question, choices, label.

    lm-eval calls this with a task's metadata, which it has no use for.
    """
    return _test(_facts(Random(_SEED)))


def paragraphs(**_: Any) -> DatasetDict:
    """Return one paragraph an entity; columns question, paragraph."""
    rng = Random(_SEED)
    return _test({"question": heading(entity, rng), "paragraph": paragraph(entity, rng)} for entity in cast().old)


def _facts(rng: Random) -> Iterable[Mapping[str, Any]]:
    entities = cast().old
    for number in range(len(RELATIONS)):
        values = sorted({entity.values[number] for entity in entities})
        for entity in entities:
            right = entity.values[number]
            choices = [right, *rng.sample([value for value in values if value != right], _CHOICES - 1)]
            rng.shuffle(choices)
            question = ask(rng.choice(wordings(number, reserved=False)), entity.name)
            yield {"question": question, "choices": choices, "label": choices.index(right)}


def _test(rows: Iterable[Mapping[str, Any]]) -> DatasetDict:
    return DatasetDict({"test": Dataset.from_list(list(rows))})
