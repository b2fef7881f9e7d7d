"""Training rows that are made when they are asked for, so that no data set is encoded before the first batch."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, overload

from kore_bench.chat import Chat
from kore_bench.examples import Example

KEPT_TOKENS = 2**23
"""How many tokens are kept encoded, eight bytes each with their labels: all rows of a small data set."""


class Rows(Sequence[dict[str, Any]]):
    """``input_ids``, ``labels`` and ``images`` (paths) of each example; pictures are opened when a batch is made.

    ``truncated`` holds the positions of the rows made so far that fill the longest length, and so may be cut.
    """

    def __init__(self, chat: Chat, examples: Sequence[Example]) -> None:
        self.chat, self.examples = chat, examples
        self.truncated: set[int] = set()
        self._kept: dict[int, tuple[array[int], array[int]]] = {}
        self._room = KEPT_TOKENS

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        place = range(len(self))[place]
        images = [str(image) for image in self.examples[place].images]
        if place in self._kept:
            ids, labels = self._kept[place]
            return {"input_ids": ids.tolist(), "labels": labels.tolist(), "images": images}
        row = self.chat.encode(self.examples[place].turns, self.examples[place].images)
        if len(row["input_ids"]) >= self.chat.max_length:
            self.truncated.add(place)
        self._keep(place, row)
        return {**row, "images": images}

    def _keep(self, place: int, row: dict[str, list[int]]) -> None:
        if len(row["input_ids"]) <= self._room:
            self._room -= len(row["input_ids"])
            self._kept[place] = array("i", row["input_ids"]), array("i", row["labels"])
