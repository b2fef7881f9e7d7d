"""General augmentation of pictures that knows nothing of what they show: flip, rotation, crop and colour jitter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from kore_bench.augment.changes import DEGREES, OPERATIONS, allowed, changed, readable
from kore_bench.augmentation import Augmentation, keep_picture
from kore_bench.component import Method, Run
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Example, Item

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class AugmentImageAgnostic(Augmentation):
    """Adds copies of every item whose picture is flipped, rotated, cropped and jittered in colour; the text stays.

    Each of ``operations`` is applied with probability 1/2, one at least: ``flip`` mirrors left and right, ``rotate``
    turns by up to ``degrees`` either way, ``crop`` cuts a window of 80 to 100 % of each side and scales it back,
    ``colour`` scales brightness, contrast and saturation by 0.8 to 1.2 each (the hue stays: colours keep their names).

    A flip turns what is left into right, and mirrors writing in the picture. It is left out for items whose text speaks
    of left or right (the record counts them); elsewhere it may make a picture that the world does not show.
    """

    name = "augment-image-agnostic"
    operations: tuple[str, ...] = OPERATIONS
    degrees: float = DEGREES

    def check(self) -> None:
        """Refuse unknown operations, none at all or the flip alone, and an angle outside (0, 180]."""
        super().check()
        for operation in self.operations:
            if operation not in OPERATIONS:
                hint = nearest(operation, OPERATIONS)
                raise UserError(f"augment-image-agnostic.operations: unknown operation {operation!r}: {hint}")
        if not set(self.operations) - {"flip"}:
            raise UserError(
                "augment-image-agnostic.operations needs one that every picture may undergo: rotate, crop or colour"
            )
        if not 0 < self.degrees <= 180:
            raise UserError(f"augment-image-agnostic.degrees={self.degrees} must be above 0 and at most 180")

    def vary(self, item: Item, rng: Random, run: Run) -> list[Example]:
        """Return copies with changed pictures, which are kept in the cache."""
        picture = readable(item.image)
        names = allowed(self.operations, item.text)
        if len(names) < len(self.operations):
            count = run.state(self)["unflipped"] = run.state(self).get("unflipped", 0) + 1
            run.log(f"{self.name}/items not flipped", count)
        copies = (self.change(picture, names, rng) for _ in range(self.copies))
        return [self.copy(item, number, image=keep_picture(copy)) for number, copy in enumerate(copies)]

    def change(self, picture: Image, operations: Sequence[str], rng: Random) -> Image:
        """Return ``picture`` (RGB) after those of ``operations`` that are drawn; it keeps its size."""
        return changed(picture, operations, rng, degrees=self.degrees)


METHOD = Method(
    name="augment-image-agnostic",
    summary="LoRA on copies of the items with changed pictures: flip, rotation, crop, colour jitter",
    source="KORE table 5 (arXiv 2510.19316): knowledge-agnostic image augmentation",
    components=(AugmentImageAgnostic(),),
)
