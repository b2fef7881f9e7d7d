"""The question browser's pictures: where the data folder lies, and small copies of its images within a byte budget."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps

from kore_bench.cache import cache_folder
from kore_bench.formats.pictures import IMAGE_FORMATS
from kore_bench.results import Record, RunFolder

NOT_FOUND, LEFT_OUT = -1, -2
"""Stand for a picture that the page does not hold, by the reason."""

Folders = tuple[Path, ...]
"""Where the images of a run are looked for, in order."""

_SIDE = 256
_EXACT = 64  # pixel art up to this size is kept exactly
_CHUNK = 192 * 2**10
_AT_ONCE = 256


@dataclass
class Pictures:
    """The pictures of one page, up to ``budget`` bytes: (folders, path) -> index into ``copies``, or why there is none."""

    budget: int
    copies: list[bytes] = field(default_factory=list)
    places: dict[tuple[Folders, str], int] = field(default_factory=dict)
    found: dict[bytes, int] = field(default_factory=dict)
    size: int = 0

    def add(self, folders: Folders, paths: Iterable[str]) -> None:
        """Copy the images at ``paths`` below ``folders``, in order, until the budget is spent."""
        wanted = [path for path in dict.fromkeys(paths) if (folders, path) not in self.places]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                full = self.size >= self.budget
                files = [None if full else inside(folders, path) for path in some]
                for path, copy in zip(some, pool.map(_copy, files), strict=True):
                    self.places[folders, path] = LEFT_OUT if full else self._keep(copy)

    def _keep(self, copy: bytes) -> int:
        if not copy:
            return NOT_FOUND
        if copy not in self.found:
            if self.size + len(copy) > self.budget:
                self.size = self.budget  # no more pictures, so that those left out are the last ones
                return LEFT_OUT
            self.found[copy] = len(self.copies)
            self.copies.append(copy)
            self.size += len(copy)
        return self.found[copy]

    def chunks(self) -> list[list[str]]:
        """Return the copies as base64, in lists of about ``_CHUNK`` bytes."""
        chunks: list[list[str]] = []
        size = _CHUNK
        for copy in self.copies:
            if size >= _CHUNK:
                chunks.append([])
                size = 0
            chunks[-1].append(base64.b64encode(copy).decode())
            size += len(copy)
        return chunks


def image_folders(run: RunFolder, records: Sequence[Record]) -> Folders:
    """Return the folders with the images that ``records`` were run on: the data folder and what was unpacked from it.

    A record holds the data folder's name, the plan the path that the user gave, which may be relative to where the run
    was started: it is looked for from here and from the folders above the run. The mini world and unpacked archives
    lie in the cache; where seeds drew entities of their own, there is a world for each. A folder that is gone is left out.
    """
    request = run.plan().get("request") or {}
    data = {str(record.data["root"]): record.data for record in records if record.data.get("root")}
    given, split = str(request.get("data") or ""), str(request.get("split") or "")
    if given == "mini":
        candidates = sorted(cache_folder().glob("mini-world-*"))
    else:
        candidates = [parent / given for parent in (Path(), *run.path.absolute().parents)] if given else []
    places = [candidate / split if split else candidate for candidate in candidates]
    found = {place.resolve().name: place for place in reversed(places) if place.is_dir()}
    names = dict.fromkeys(str(name) for one in data.values() for name in one.get("unpacked", ()))
    unpacked = [cache_folder() / name for name in names if _leads_down(name)]
    return (*(found[root] for root in data if root in found), *(folder for folder in unpacked if folder.is_dir()))


def inside(folders: Folders, path: str) -> Path | None:
    """Return the file at ``path`` below the first of ``folders`` that has it, None where it leads out of them."""
    files = [folder / path for folder in folders] if _leads_down(path) else []
    return next((file for file in files if file.is_file()), None)


def _leads_down(path: str) -> bool:
    return "\0" not in path and not Path(path).is_absolute() and ".." not in Path(path).parts


def _copy(file: Path | None) -> bytes:
    """Return a small WebP copy without metadata, nothing where there is no image that can be read."""
    if file is None:
        return b""
    out = io.BytesIO()
    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
            upright = ImageOps.exif_transpose(image)
            exact = max(upright.size) <= _EXACT
            seen_through = upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info
            plain = upright.convert("RGBA" if seen_through else "RGB")
            plain.thumbnail((_SIDE, _SIDE))
            plain.save(out, "WEBP", lossless=exact, quality=75, method=2, exact=exact)
    except (OSError, ValueError, Image.DecompressionBombError):
        return b""
    return out.getvalue()
