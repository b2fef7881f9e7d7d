"""What general augmentations share: changed copies of the items' conversations, and where changed pictures are kept."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from kore_bench.cache import cache_folder
from kore_bench.component import Component, Run
from kore_bench.errors import UserError
from kore_bench.examples import Example, Item, Turn

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Augmentation(Component):
    """Adds ``copies`` changed conversations of every item to the training data; the plain ones stay.

    Seven copies make eight conversations an item, as many as KORE's trees (74,734 of 9,422 items in KORE-74K), so that
    the rows of one table see as many examples; how many the paper's table 5 was measured with is not said there.
    """

    copies: int = 7

    def check(self) -> None:
        """Refuse a number of copies below one."""
        if self.copies < 1:
            raise UserError(f"{self.name}.copies={self.copies} must be at least 1")

    def data(self, examples: list[Example], run: Run) -> list[Example]:
        """Append every item's copies, each item's from a random stream of its own."""
        rng = run.rng(self)
        added = [copy for item in run.items for copy in self.vary(item, Random(rng.getrandbits(64)), run)]
        run.log(f"{self.name}/copies", len(added))
        return examples + added

    @abstractmethod
    def vary(self, item: Item, rng: Random, run: Run) -> list[Example]:
        """Return ``copies`` changed conversations of ``item``."""

    def copy(self, item: Item, number: int, *, text: str | None = None, image: Path | None = None) -> Example:
        """Return the item's plain conversation with another text or image, called after this augmentation."""
        turn = Turn(question=item.prompt, answer=item.text if text is None else text)
        name = f"{item.id}/{self.name}-{number + 1}"
        return replace(item.example(), id=name, images=(image or item.image,), turns=(turn,), source=self.name)


def keep_picture(picture: Image) -> Path:
    """Write a changed picture into the cache under the digest of its pixels, and return its file.

    PNG, so that nothing is lost; one that is there already is not written again.
    """
    content = hashlib.sha256(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()).hexdigest()
    file = cache_folder() / "pictures" / content[:2] / f"{content}.png"
    if not file.exists():
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", compress_level=3)
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as stream:
            stream.write(buffer.getvalue())
        os.replace(temporary, file)
    return file
