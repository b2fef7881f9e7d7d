"""KORE-74K as the source of the trees: which of its conversations belongs to which item, and what part it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from kore_bench.augment.grown import PARTS
from kore_bench.errors import UserError
from kore_bench.examples import Example, Item
from kore_bench.formats import MISSING, Problems, read_conversations

_INSTRUCTIONS = {
    "vqa": re.compile("single word or phrase", re.IGNORECASE),
    "recognition": re.compile("yes or no", re.IGNORECASE),
    "caption": re.compile("paragraph", re.IGNORECASE),
}
K = TypeVar("K")
_LONGEST_NAME = 16  # words of a name in a recognition question


@dataclass(frozen=True, kw_only=True)
class Matched:
    """The conversations of a source by item, the part of the tree in their ``source``.

    ``unnamed`` belong to no item in particular; ``foreign`` counts those left out: where the source has dialogues about
    other items, these and all that name no item.
    """

    by_item: Mapping[str, tuple[Example, ...]]
    unnamed: tuple[Example, ...]
    foreign: int

    def examples(self, parts: Sequence[str]) -> list[Example]:
        """Return the conversations of some parts, in the items' order, those without an item last."""
        every = [example for examples in (*self.by_item.values(), self.unnamed) for example in examples]
        return [example for example in every if part_of(example) in parts]


def match(source: Path, items: Sequence[Item]) -> Matched:
    """Read a conversation set and tell whose each conversation is.

    A dialogue belongs to the item whose text its first answer is, or whose image it shows; a caption to the item with
    whose name it begins; a recognition task to the item that it names. An id that is an item's, or an item's before
    ``/``, ``_`` or ``-``, tells too, where the ids of all such dialogues agree. Raises UserError where the source
    cannot be read, or has nothing about some item.
    """
    problems = Problems(collect=True)
    read = read_conversations(source, problems, known=tuple(item.image for item in items)).examples
    for error in problems.found:
        if error not in problems.missing:
            raise error
    examples = [replace(example, source=f"kore/{_part(example)}") for example in read]
    known = _Known(items)
    shown = {example.id: known.shown(example) for example in examples if part_of(example) == "dialogue"}
    by_id = {example.id: known.by_id(example.id) for example in examples}
    if any(item and by_id[id] != item for id, item in shown.items()):
        by_id = {}
    by_item: dict[str, list[Example]] = {item.id: [] for item in items}
    unnamed, foreign = [], 0
    for example in examples:
        owner = shown.get(example.id) or by_id.get(example.id) or known.named(example)
        if owner:
            by_item[owner].append(replace(example, item=owner))
        elif part_of(example) == "dialogue":
            foreign += 1
        else:
            unnamed.append(example)
    _check_covered(source, by_item)
    if foreign:
        foreign, unnamed = foreign + len(unnamed), []
    matched = Matched(by_item={id: tuple(own) for id, own in by_item.items()}, unnamed=tuple(unnamed), foreign=foreign)
    _check_images(examples, {example.id for example in matched.examples(PARTS)}, problems)
    return matched


def _check_images(examples: Sequence[Example], used: Collection[str], problems: Problems) -> None:
    """Raise the complaint about the first missing image of a conversation in use: other items' images may lack."""
    missing = iter(problems.missing)
    for example in examples:
        for image in example.images:
            if image.name == MISSING:
                error = next(missing)
                if example.id in used:
                    raise error


def part_of(example: Example) -> str:
    """Return the part of the tree that an example of it is."""
    return example.source.removeprefix("kore/").partition("/")[0]


def _part(example: Example) -> str:
    """Return the part that a conversation's instruction makes it; without one it is a dialogue."""
    question = example.turns[0].question
    return next((part for part, said in _INSTRUCTIONS.items() if said.search(question)), "dialogue")


def _check_covered(source: Path, by_item: Mapping[str, Sequence[Example]]) -> None:
    bare = [id for id, own in by_item.items() if not own]
    if bare:
        raise UserError(
            f"kore-augmentation.source={source} has no conversation about item {bare[0]!r}"
            + (f" and {len(bare) - 1:,} more of {len(by_item):,}" if len(bare) > 1 else "")
            + ": it must be made from the items of --data"
        )


class _Known:
    """The items, by all that a conversation may tell of one."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.ids = {item.id for item in items}
        self.texts = _unique((_plain(item.text), item.id) for item in items)
        self.images = _unique((item.image, item.id) for item in items)
        self.names = _unique((item.name.lower(), item.id) for item in items if item.name)

    def shown(self, example: Example) -> str:
        """Return the item that a dialogue is about, by its text or its image."""
        told = self.texts.get(_plain(example.turns[0].answer))
        return told or next((self.images[image] for image in example.images[:1] if image in self.images), "")

    def by_id(self, id: str) -> str:
        """Return the item whose id a conversation's is or begins with."""
        return next((head for head in (id, *(id.split(mark)[0] for mark in "/_-")) if head in self.ids), "")

    def named(self, example: Example) -> str:
        """Return the item that a caption begins with or a recognition task asks for."""
        part, turn = part_of(example), example.turns[0]
        if part == "caption":
            answer = turn.answer.lower()
            ends = (found.start() for found in re.finditer(r"\.\s", answer))
            return next((self.names[answer[:end]] for end in ends if answer[:end] in self.names), "")
        if part == "recognition":
            return next((self.names[words] for words in _runs(turn.question.lower()) if words in self.names), "")
        return ""


def _unique(pairs: Iterator[tuple[K, str]]) -> dict[K, str]:
    """Return key -> id for the keys that one item alone has."""
    found: dict[K, str] = {}
    for key, id in pairs:
        found[key] = "" if key in found else id
    return {key: id for key, id in found.items() if id}


def _plain(text: str) -> str:
    return " ".join(text.split())


def _runs(text: str) -> Iterator[str]:
    """Yield the runs of words of a text, the longest first, without the marks around them."""
    words = text.split()
    for length in range(min(len(words), _LONGEST_NAME), 0, -1):
        for start in range(len(words) - length + 1):
            run = " ".join(words[start : start + length])
            yield run
            yield run.strip("?!.,:;'\"")
