"""Changes of a picture that know nothing of what it shows: flip, rotation, crop and colour jitter."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from kore_bench.augment.phash import opened

if TYPE_CHECKING:
    from PIL.Image import Image

DEGREES = 15.0
"""The largest angle of a rotation, either way."""

_SIDES = re.compile(r"\b(?:left|right|clockwise|counter-?clockwise)\b", re.IGNORECASE)


def readable(path: Path) -> Image:
    """Return an image file as RGB; raises UserError where it cannot be read."""
    with opened(path, path) as picture:
        return picture.convert("RGB")


def allowed(operations: Sequence[str], text: str) -> list[str]:
    """Return the operations that leave ``text`` true: a flip turns what is left into right."""
    return [name for name in operations if name != "flip" or not _SIDES.search(text)]


def changed(
    picture: Image, operations: Sequence[str], rng: Random, *, degrees: float = DEGREES, text: str = ""
) -> Image:
    """Return ``picture`` (RGB) after those of ``operations`` that are drawn, each with probability 1/2, one at least.

    ``flip`` mirrors left and right, ``rotate`` turns by up to ``degrees`` either way, ``crop`` cuts a window of 80 to
    100 % of each side and scales it back, ``colour`` scales brightness, contrast and saturation by 0.8 to 1.2 each.
    The size stays. Operations that ``text`` forbids are left out first.
    """
    names = allowed(operations, text)
    drawn = [name for name in names if rng.random() < 0.5] or [rng.choice(names)]
    for name in drawn:
        picture = _CHANGES[name](picture, degrees, rng)
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
OPERATIONS = tuple(_CHANGES)
"""The names of the changes."""
