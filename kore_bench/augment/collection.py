"""A local collection of pictures: which files there are, and the digests of those that were read before."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kore_bench.cache import cache_folder, digest
from kore_bench.errors import UserError
from kore_bench.results import write_text

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Of the files that count as pictures, in either case."""


@dataclass(frozen=True)
class Stamp:
    """What tells that a file is as it was: its size in bytes, and when it was last written, in nanoseconds."""

    size: int
    written: int


@dataclass(frozen=True)
class Known:
    """What is known of a file from an earlier look: the SHA-256 of its bytes, or the ``problem`` that it has."""

    stamp: Stamp
    digest: str = ""
    problem: str = ""


class Listing:
    """What was found in files before, kept in the cache: an unchanged file is not read again.

    A file is known by its path; ``name`` tells the listings of several folders apart.
    """

    def __init__(self, name: str) -> None:
        self._file = cache_folder() / "clip" / "listings" / f"{digest(name)}.json"
        self._known: dict[str, Known] = {}
        try:
            rows = json.loads(self._file.read_text(encoding="utf-8"))
            self._known = {path: Known(Stamp(size, at), sha, why) for path, size, at, sha, why in rows}
        except (OSError, ValueError, TypeError):
            pass  # there is none yet, or it is damaged: every file is read

    def known(self, path: Path) -> Known | None:
        """Return what is known of a file as it is now; None where it is new, changed or gone."""
        found = self._known.get(str(path))
        return found if found and found.stamp == stamp(path) else None

    def add(self, path: Path, known: Known) -> None:
        """Remember what was found in a file."""
        self._known[str(path)] = known

    def keep(self) -> None:
        """Write the listing."""
        rows = [(path, one.stamp.size, one.stamp.written, one.digest, one.problem) for path, one in self._known.items()]
        write_text(self._file, json.dumps(rows, separators=(",", ":")))


def stamp(path: Path) -> Stamp | None:
    """Return a file's stamp; None where it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns)


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in and below a folder by their names, in order; hidden files and folders are left out.

    Raises UserError where the folder is not there, or holds none.
    """
    if not folder.is_dir():
        raise UserError(f"--images folder:{folder}: there is no such folder")
    found = sorted(_walk(folder))
    if not found:
        raise UserError(f"--images folder:{folder}: no picture in it or below ({', '.join(ENDINGS)})")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith(".") and name.lower().endswith(ENDINGS))
