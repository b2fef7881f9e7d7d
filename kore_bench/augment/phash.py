"""The perceptual hash of an image: equal or nearly so for copies that were scaled, re-encoded or touched up a little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kore_bench.errors import UserError
from kore_bench.formats.pictures import IMAGE_FORMATS

if TYPE_CHECKING:
    from PIL import Image

BITS = 64
"""The length of a hash."""
NEAR = 6
"""Up to this many differing bits, two pictures may be copies of one."""
TOLERANCE = 32.0
"""Where no part of two pictures whose hashes are near differs in colour by more (of 255), they are copies of one."""

_SIDE = 32  # pixels before the transform
_KEPT = 8  # lowest frequencies of either direction: 8 x 8 bits
_ENOUGH = 448  # pixels a side of which nothing here, nor CLIP, needs more
_NOTHING = 1e-6  # a coefficient below this is rounding, not light: they reach 255 x 32


def perceptual_hash(path: Path) -> int:
    """Return the 64-bit pHash of an image file; raises UserError for one that cannot be read."""
    return picture_hash(decoded(path, path))


def picture_hash(picture: Image.Image) -> int:
    """Return the 64-bit pHash of a picture (RGB): the signs, about their median, of its lowest frequencies.

    The luminance, 32 x 32, is taken to frequencies by a DCT-II; each of the lowest 8 x 8 gives a bit, whether it lies
    above their median (the constant one left out of that median, for it dwarfs the rest). Colour is not looked at, nor
    anything smaller than about an eighth of a side: of small drawings, quite different ones may be near.
    """
    from PIL import Image
    from scipy.fft import dctn

    grey = np.asarray(picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = dctn(grey, norm="ortho")[:_KEPT, :_KEPT].ravel()
    low[np.abs(low) < _NOTHING] = 0.0
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hamming(one: int, other: int) -> int:
    """Return how many bits of two hashes differ."""
    return (one ^ other).bit_count()


def copies(one: Path, other: Path) -> bool:
    """Return whether two image files show the same picture: their hashes are near, and their colours agree.

    Scaled, re-encoded or slightly brightened copies do. Raises UserError for a file that cannot be read.
    """
    return hamming(perceptual_hash(one), perceptual_hash(other)) <= NEAR and same_colours(one, other)


def same_colours(one: Path, other: Path) -> bool:
    """Return whether no part of two pictures, whose hashes are near, differs in colour by more than ``TOLERANCE``.

    The hash alone takes two drawings that differ in colour, or in one small sign on a wide ground, for one another.
    """
    return float(np.abs(_colours(one) - _colours(other)).max()) <= TOLERANCE


@contextmanager
def opened(source: Path | IO[bytes], name: Path) -> Iterator[Image.Image]:
    """Open an image file called ``name`` and close it; raises UserError where it, or work with it, fails to decode."""
    from PIL import Image

    try:
        with Image.open(source, formats=IMAGE_FORMATS) as picture:
            yield picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{name} cannot be read as an image: {error}") from None


def decoded(source: Path | IO[bytes], name: Path) -> Image.Image:
    """Return an image upright, in RGB, on white where it is seen through; of a large JPEG, smaller than it is.

    Raises UserError, which names ``name``, where it cannot be read.
    """
    from PIL import Image, ImageOps

    with opened(source, name) as picture:
        picture.draft("RGB", (_ENOUGH, _ENOUGH))
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright.convert("RGBA"))
        return upright.convert("RGB")


@lru_cache(maxsize=1024)
def _colours(path: Path) -> NDArray[np.float64]:
    """Return ``[8, 8, 3]``: the mean colours of 8 x 8 parts, 0 to 255."""
    from PIL import Image

    small = decoded(path, path).resize((_KEPT, _KEPT), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)
