"""Conversation sets: what LLaVA's, LLaMA-Factory's and Hugging Face's rows of turns have in common."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from kore_bench.errors import UserError
from kore_bench.examples import Example, Turn

from .fields import ID, IMAGE_MARK, PATHS, PLAIN, ROWS, TEXT, Fields, Row, RowError, one_of, optional
from .pictures import Pictures

T = TypeVar("T")
MISSING = "(missing)"
"""Stands for an image that was not found, where reading goes on; no file has this name."""


@dataclass(frozen=True, kw_only=True)
class Conversations:
    """A set of training conversations read from ``file``; ``unpacked`` are folders outside of ``root`` with images."""

    root: Path
    file: Path
    examples: tuple[Example, ...]
    unpacked: tuple[Path, ...] = ()


@dataclass(kw_only=True)
class Problems:
    """What is wrong with a data set: raised at once, or with ``collect`` kept, so that reading goes on.

    ``missing`` are those of them about images that were not found, one an image: such rows stay in use, with `MISSING`
    in the image's place.
    """

    collect: bool = False
    found: list[RowError] = field(default_factory=list)
    missing: list[RowError] = field(default_factory=list)

    def add(self, error: RowError) -> None:
        """Raise an error or keep it."""
        if not self.collect:
            raise error
        self.found.append(error)

    def usable(self, rows: Iterable[Row], build: Callable[[Row], T]) -> Iterator[T]:
        """Yield what is built of each row that can be used."""
        for row in rows:
            try:
                built = build(row)
            except RowError as error:
                self.add(error)
            else:
                yield built


@dataclass(frozen=True, kw_only=True)
class Speech:
    """How a format writes down who says what: the fields of a row and of a turn, and the two speakers' names."""

    turns: str
    speaker: str
    text: str
    human: str
    model: str

    @property
    def speakers(self) -> tuple[str, str]:
        """The two speakers, in the order in which they speak."""
        return self.human, self.model

    @cached_property
    def turn_fields(self) -> Fields:
        """The fields of one turn."""
        return {self.speaker: one_of(self.human, self.model), self.text: TEXT}

    def row_fields(self, images: str) -> Fields:
        """Return the fields of a row whose images stand in the field ``images``."""
        return {"id": optional(ID), images: optional(PATHS), self.turns: ROWS}

    def write(self, example: Example) -> list[dict[str, str]]:
        """Return the turns of a conversation, an image mark for each image in front of the first question."""
        marks = f"{IMAGE_MARK}\n" * len(example.images)
        said = [text for turn in example.turns for text in (turn.question, turn.answer)]
        return [
            {self.speaker: self.speakers[i % 2], self.text: text if i else marks + text} for i, text in enumerate(said)
        ]


LLAVA = Speech(turns="conversations", speaker="from", text="value", human="human", model="gpt")
"""The spelling of LLaVA, KORE-74K, EVOKE's injection file, and LLaMA-Factory's default."""
OPENAI = Speech(turns="messages", speaker="role", text="content", human="user", model="assistant")
"""The spelling of chat completions, LLaMA-Factory's other one."""


def read(
    file: Path, rows: Iterable[Row], pictures: Pictures, speech: Speech, images: str, source: str, problems: Problems
) -> Conversations:
    """Return the conversations of ``rows``, whose images stand in the field ``images``; ``source`` is every example's.

    A row without an ``id`` is called by its place, such as ``line-3``; of rows with one id, the second is called
    ``ID/2``, and so on. Raises UserError as `Problems` says.
    """
    fields, seen = speech.row_fields(images), Counter[str]()

    def build(row: Row) -> Example:
        row.check(fields)
        id = row.text("id") or row.place.replace(" ", "-")
        seen[id] += 1
        found = paths(row, images, pictures, problems)
        said = turns(row, len(found), speech)
        return Example(id=f"{id}/{seen[id]}" if seen[id] > 1 else id, images=found, turns=said, source=source)

    with _without_collection():
        examples = tuple(problems.usable(rows, build))
    if not examples and not problems.found:
        raise UserError(f"{file} holds no rows")
    unpacked = pictures.unpacked if pictures.outside else ()
    return Conversations(root=pictures.root, file=file, examples=examples, unpacked=unpacked)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Look for no cycles, which rows do not make: among ever more of them that takes a fifth of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def paths(row: Row, field: str, pictures: Pictures, problems: Problems) -> tuple[Path, ...]:
    """Return the image files of a field; none where the field is absent."""
    found = []
    for name in row.names(field):
        path, problem = pictures.find(name)
        if path is None:
            problems.missing.append(row.error(field, problem))
            problems.add(problems.missing[-1])
        found.append(path or pictures.root / MISSING)
    return tuple(found)


def turns(row: Row, images: int, speech: Speech = LLAVA) -> tuple[Turn, ...]:
    """Return the exchanges of a conversation, the image marks of its first question taken off."""
    texts = []
    for i, said in enumerate(row.data[speech.turns]):
        speaker, text = speech.speakers[i % 2], said.get(speech.text)
        # The later turns are nearly all of a large set, and nearly all as they should be.
        plain = i > 0 and said.get(speech.speaker) == speaker and PLAIN.accepts(text)
        texts.append(text if plain else _said(row.part(speech.turns, i), speech, speaker, 0 if i else images))
    if len(texts) % 2:
        raise row.error(speech.turns, "the last question has no answer")
    return tuple(
        Turn(question=question, answer=answer) for question, answer in zip(texts[::2], texts[1::2], strict=True)
    )


def _said(part: Row, speech: Speech, speaker: str, images: int) -> str:
    """Return the text of one turn; raises RowError for what is wrong with it."""
    part.check(speech.turn_fields)
    if part.data[speech.speaker] != speaker:
        raise part.error(speech.speaker, f"expected {speaker!r} (the two take turns, {speech.human!r} first)")
    return unmarked(part, speech.text, images)


def unmarked(row: Row, field: str, images: int, *, unmarked_too: bool = False) -> str:
    """Return a text without its image marks, of which there must be one an image (or none, if ``unmarked_too``)."""
    text: str = row.data[field]
    marks = text.count(IMAGE_MARK)
    if not marks and (unmarked_too or not images):
        return text
    if marks != images:
        problem = f"expected {images} {IMAGE_MARK} (one for each image, in the first question only), found {marks}"
        raise row.error(field, problem)
    rest = text.replace(IMAGE_MARK, "").strip()
    if not rest:
        raise row.error(field, f"no text beside {IMAGE_MARK}")
    return rest
