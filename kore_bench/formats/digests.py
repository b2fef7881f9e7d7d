"""The SHA-256 over the files of a data set, remembered for large sets as long as no file changes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kore_bench.cache import cache_folder, digest, file_digest
from kore_bench.errors import UserError

_LARGE = 2**26
"""Bytes from which on a digest is remembered: smaller sets are read again each time."""


def content_digest(files: Mapping[str, Path]) -> str:
    """Return the SHA-256 over the names and the bytes of files, in the names' order, wherever they lie.

    That of a large set is kept in the cache under the files' names, sizes, times and inodes. Raises UserError for a
    file that cannot be read.
    """
    ordered = sorted(files.items())
    try:
        stats = [path.stat() for _, path in ordered]
        if sum(stat.st_size for stat in stats) < _LARGE:
            return _digest(ordered)
        key = digest([
            [name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            for (name, _), stat in zip(ordered, stats, strict=True)
        ])  # fmt: skip
        note = cache_folder() / "digests" / key
        if note.exists():
            return note.read_text()
        value = _digest(ordered)
        _write(note, value)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    return value


def _digest(ordered: list[tuple[str, Path]]) -> str:
    total = hashlib.sha256()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        inner = pool.map(file_digest, (path for _, path in ordered))
        for (name, _), found in zip(ordered, inner, strict=True):
            # The inner digest has one length, so that no name can pass for another file's bytes.
            total.update(bytes.fromhex(found) + name.encode() + b"\0")
    return total.hexdigest()


def _write(note: Path, text: str) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=note.parent)
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
    os.replace(scratch, note)
