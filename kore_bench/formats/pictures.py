"""Finds the pictures that rows name, beside the data or in its archives, and decodes them to see that they are whole."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from .archives import archives, unpacked
from .fields import closest

_PUBLISHED = ("imgs", "injection", "evaluation")
# Only decoders of plain pictures: Pillow would hand EPS to Ghostscript whatever the file is called.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


class Pictures:
    """The pictures of one data set, by the names that its rows give them.

    A name is looked for in the data's folder, then where EVOKE and KORE-74K publish pictures: in and below ``imgs/``,
    ``injection/`` and ``evaluation/``, and in archives there or in the folder. ``more`` are folders where pictures were
    written already; ``known`` are files that stand for themselves: a name that ends one of their paths means it.
    """

    def __init__(self, root: Path, more: Sequence[Path] = (), known: Iterable[Path] = ()) -> None:
        self.root, self.more = root, tuple(more)
        self.outside = False
        """Whether a picture was found that does not lie in the data's folder."""
        self._known: dict[str, list[Path]] = {}
        for file in known:
            self._known.setdefault(file.name, []).append(file)

    @cached_property
    def unpacked(self) -> tuple[Path, ...]:
        """The folders outside of the data's that hold its pictures; archives are unpacked when this is first asked."""
        found = [archive for name in _PUBLISHED for archive in archives(self.root / name, depth=2)]
        return (*self.more, *map(unpacked, archives(self.root) + found))

    @cached_property
    def places(self) -> tuple[Path, ...]:
        """The folders below which a name may lie, beside the data's own."""
        levels = [f"{name}/{level}" for name in _PUBLISHED for level in ("", "*/", "*/*/")]
        published = [folder for level in levels for folder in sorted(self.root.glob(level))]
        return tuple(place for folder in (*published, *self.unpacked) for place in (folder, *_only_folder(folder)))

    def find(self, name: str) -> tuple[Path | None, str]:
        """Return the file that ``name`` means and, where there is none, why."""
        absolute = os.path.isabs(name)
        if ".." in name.split("/") or (absolute and not Path(name).is_relative_to(self.root.absolute())):
            return None, f"{name!r} leads out of the data folder"
        if os.path.isfile(inside := name if absolute else f"{self.root}/{name}"):  # Path's own joins are slow
            return Path(inside), ""
        relative = Path(name)
        for known in self._known.get(relative.name, ()):
            if known.parts[-len(relative.parts) :] == relative.parts:
                return known, ""
        for place in self.places:
            if os.path.isfile(file := f"{place}/{name}"):
                self.outside |= not place.is_relative_to(self.root)
                return Path(file), ""
        return None, f"no file {name!r} in {str(self.root)!r}{self._hint(relative)}"

    def _hint(self, relative: Path) -> str:
        try:
            return closest(relative.name, os.listdir((self.root / relative).parent))
        except OSError:  # only ever asked for a hint
            return ""


def _only_folder(folder: Path) -> list[Path]:
    """Return the folder that an archive was made of, where it holds nothing else."""
    try:
        inside = list(os.scandir(folder))
    except OSError:
        return []
    return [Path(inside[0].path)] if len(inside) == 1 and inside[0].is_dir() else []


class Look(NamedTuple):
    """What a look at an image file gave: the SHA-256 of its bytes, and why it cannot be used (empty: it can)."""

    path: Path
    digest: str
    problem: str


def look(paths: Iterable[Path]) -> Iterator[Look]:
    """Decode images, as many at once as there are cores, and yield what was found, in order."""
    with bombs_refused(), ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(_look, paths)


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Let Pillow raise DecompressionBombWarning, where it would only warn, for as long as this lasts."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _look(path: Path) -> Look:
    try:
        data = path.read_bytes()
    except OSError as error:
        return Look(path, "", f"cannot be read ({error.strerror})")
    return Look(path, hashlib.sha256(data).hexdigest(), _decoding_problem(data))


def _decoding_problem(data: bytes) -> str:
    """Return why an image cannot be used, or nothing."""
    if not data:
        return "is empty (0 bytes)"
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            image.verify()  # check sums, which load() passes over; it leaves the image unusable
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            image.load()
    except UnidentifiedImageError:
        return f"is no picture of a known format ({', '.join(IMAGE_FORMATS)})"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down"
    except Exception as error:  # noqa: BLE001  # on bytes that they did not foresee, decoders raise anything
        return f"cannot be decoded ({error})"
    return ""
