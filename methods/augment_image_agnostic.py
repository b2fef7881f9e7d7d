"""General augmentation of pictures that knows nothing of what they show: flip, rotation, crop and colour jitter."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from kore_bench.augmentation import Augmentation, keep_picture
from kore_bench.component import Method, Run
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Example, Item

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDES = re.compile(r"\b(?:left|right|clockwise|counter-?clockwise)\b", re.IGNORECASE)


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
    operations: tuple[str, ...] = ("flip", "rotate", "crop", "colour")
    degrees: float = 15.0

    def check(self) -> None:
        """Refuse unknown operations, none at all or the flip alone, and an angle outside (0, 180]."""
        super().check()
        for operation in self.operations:
            if operation not in _CHANGES:
                hint = nearest(operation, _CHANGES)
                raise UserError(f"augment-image-agnostic.operations: unknown operation {operation!r}: {hint}")
        if not set(self.operations) - {"flip"}:
            raise UserError(
                "augment-image-agnostic.operations needs one that every picture may undergo: rotate, crop or colour"
            )
        if not 0 < self.degrees <= 180:
            raise UserError(f"augment-image-agnostic.degrees={self.degrees} must be above 0 and at most 180")

    def vary(self, item: Item, rng: Random, run: Run) -> list[Example]:
        """Return copies with changed pictures, which are kept in the cache."""
        from PIL import Image

        with Image.open(item.image) as opened:
            picture = opened.convert("RGB")
        allowed = [name for name in self.operations if name != "flip" or not _SIDES.search(item.text)]
        if len(allowed) < len(self.operations):
            count = run.state(self)["unflipped"] = run.state(self).get("unflipped", 0) + 1
            run.log(f"{self.name}/items not flipped", count)
        changed = (self.change(picture, allowed, rng) for _ in range(self.copies))
        return [self.copy(item, number, image=keep_picture(copy)) for number, copy in enumerate(changed)]

    def change(self, picture: Image, operations: list[str], rng: Random) -> Image:
        """Return ``picture`` (RGB) after those of ``operations`` that are drawn; it keeps its size."""
        drawn = [name for name in operations if rng.random() < 0.5] or [rng.choice(operations)]
        for name in drawn:
            picture = _CHANGES[name](picture, self.degrees, rng)
        return picture


def _flip(picture: Image, degrees: float, rng: Random) -> Image:
    from PIL import ImageOps

    return ImageOps.mirror(picture)


def _rotate(picture: Image, degrees: float, rng: Random) -> Image:
    """Turn about the centre; corners that come free take the picture's mean colour."""
    from PIL import Image, ImageStat

    mean = tuple(round(value) for value in ImageStat.Stat(picture).mean)
    return picture.rotate(rng.uniform(-degrees, degrees), resample=Image.Resampling.BICUBIC, fillcolor=mean)


def _crop(picture: Image, degrees: float, rng: Random) -> Image:
    from PIL import Image

    width, height = (rng.uniform(0.8, 1.0) * side for side in picture.size)
    left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
    box = (left, top, left + width, top + height)
    return picture.resize(picture.size, resample=Image.Resampling.BICUBIC, box=box)


def _colour(picture: Image, degrees: float, rng: Random) -> Image:
    from PIL import ImageEnhance

    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(rng.uniform(0.8, 1.2))
    return picture


_CHANGES: dict[str, Callable[[Image, float, Random], Image]] = {
    "flip": _flip,
    "rotate": _rotate,
    "crop": _crop,
    "colour": _colour,
}

METHOD = Method(
    name="augment-image-agnostic",
    summary="LoRA on copies of the items with changed pictures: flip, rotation, crop, colour jitter",
    source="KORE table 5 (arXiv 2510.19316): knowledge-agnostic image augmentation",
    components=(AugmentImageAgnostic(),),
)
