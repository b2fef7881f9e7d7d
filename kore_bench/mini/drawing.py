"""Drawing of the mini world: symbols on a 4 x 4 grid of 8-pixel cells, as arrays and as PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 4
CELL = 8
SIZE = GRID * CELL

Pixels = NDArray[np.uint8]

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 150, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 220, 50),
    "purple": (140, 50, 170),
    "orange": (245, 135, 25),
    "cyan": (60, 215, 220),
    "black": (25, 25, 25),
}

TINTS: dict[str, tuple[int, int, int]] = {
    "rose": (230, 190, 200),
    "mint": (190, 225, 200),
    "sky": (190, 210, 235),
    "sand": (228, 216, 186),
    "lilac": (212, 198, 232),
    "snow": (242, 242, 242),
}

_BITMAPS = {
    "square": "........ .######. .######. .######. .######. .######. .######. ........",
    "circle": "........ ..####.. .######. .######. .######. .######. ..####.. ........",
    "triangle": "........ ...##... ...##... ..####.. ..####.. .######. .######. ........",
    "diamond": "........ ...##... ..####.. .######. .######. ..####.. ...##... ........",
    "cross": "........ ...##... ...##... .######. .######. ...##... ...##... ........",
    "ring": "........ ..####.. .##..##. .#....#. .#....#. .##..##. ..####.. ........",
    "heart": "........ .##..##. .######. .######. .######. ..####.. ...##... ........",
    "arrow": "........ ....#... ....##.. .######. .######. ....##.. ....#... ........",
}
SHAPES: tuple[str, ...] = tuple(_BITMAPS)

# The usual 5 x 7 font, one byte a column, lowest bit on top; A, I and O are left out: "a" is an article that the
# measures delete, I and O look like 1 and 0.
_FONT = {
    "0": "3E5149453E", "1": "00427F4000", "2": "4261514946", "3": "2141454B31", "4": "1814127F10",
    "5": "2745454539", "6": "3C4A494930", "7": "0171090503", "8": "3649494936", "9": "064949291E",
    "b": "7F49494936", "c": "3E41414122", "d": "7F4141413E", "e": "7F49494941", "f": "7F09090901",
    "g": "3E4149497A", "h": "7F0808087F", "j": "2040413F01", "k": "7F08142241", "l": "7F40404040",
    "m": "7F020C027F", "n": "7F0408107F", "p": "7F09090906", "q": "3E4151215E", "r": "7F09192946",
    "s": "4649494931", "t": "01017F0101", "u": "3F4040403F", "v": "1F2040201F", "w": "3F4038403F",
    "x": "6314081463", "y": "0708700807", "z": "6151494543",
}  # fmt: skip
GLYPHS: tuple[str, ...] = tuple(_FONT)
DIGITS: tuple[str, ...] = GLYPHS[:10]


def _shape_mask(bitmap: str) -> NDArray[np.bool_]:
    return np.array([[pixel == "#" for pixel in row] for row in bitmap.split()])


def _glyph_mask(columns: str) -> NDArray[np.bool_]:
    mask = np.zeros((CELL, CELL), dtype=bool)
    for x, column in enumerate(bytes.fromhex(columns)):
        mask[:7, x + 1] = [bool(column >> y & 1) for y in range(7)]
    return mask


_MASKS = {name: _shape_mask(bitmap) for name, bitmap in _BITMAPS.items()}
_MASKS |= {name: _glyph_mask(columns) for name, columns in _FONT.items()}


class Symbol(NamedTuple):
    """A shape or glyph ``name`` in ``color``, on a ``tint`` or, where that is empty, on the picture's grey."""

    name: str
    color: str
    tint: str = ""


Cells = Mapping[int, Symbol]
"""What stands in which cell; cell ``i`` is row ``i // 4``, column ``i % 4``."""


def draw(cells: Cells, rng: Random) -> Pixels:
    """Render ``cells`` as uint8 pixels ``[32, 32, 3]``; grey level, brightness and noise come from ``rng``.

    The noise has three levels, the same in all channels, so that files stay small.
    """
    canvas = np.full((SIZE, SIZE, 3), rng.randint(160, 200), dtype=np.float32)
    for place, symbol in cells.items():
        y, x = CELL * (place // GRID), CELL * (place % GRID)
        cell = canvas[y : y + CELL, x : x + CELL]
        if symbol.tint:
            cell[:] = TINTS[symbol.tint]
        cell[_MASKS[symbol.name]] = COLORS[symbol.color]
    canvas *= rng.uniform(0.85, 1.0)
    noise = np.frombuffer(rng.randbytes(SIZE * SIZE), dtype=np.uint8).reshape(SIZE, SIZE, 1) % 3
    canvas += (noise.astype(np.float32) - 1) * rng.randint(3, 9)
    return canvas.clip(0, 255).astype(np.uint8)


def save(pixels: Pixels, path: Path) -> None:
    """Write ``pixels`` (uint8 ``[height, width, 3]``) as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    path.write_bytes(buffer.getvalue())
