"""An index of picture files by CLIP: every file's vector and perceptual hash, computed once for each content."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kore_bench.augment.clip import Clip, Vectors
from kore_bench.augment.collection import Known, Listing, Stamp, stamp
from kore_bench.augment.phash import decoded, picture_hash
from kore_bench.augment.vectors import VectorStore
from kore_bench.cache import cache_folder, digest
from kore_bench.errors import UserError
from kore_bench.formats.pictures import bombs_refused

if TYPE_CHECKING:
    from PIL.Image import Image

    from kore_bench.augment.providers import Progress

BATCH = 32
"""Pictures that go through CLIP at once."""
_SHARD = 512  # new pictures that a killed run may lose


@dataclass(frozen=True)
class _Read:
    """What was read of a file: its digest, and the picture where the store has no vector of it."""

    path: Path
    stamp: Stamp | None
    digest: bytes = b""
    picture: Image | None = None
    hash: int = 0
    problem: str = ""


class PictureIndex:
    """The vectors of picture files under one CLIP model; ``name`` tells listings of files apart.

    `read` takes files in, `rows` tells where they stand. What was computed lies in the cache, by model and content: a
    killed run goes on, a moved or copied file costs a look, a changed one is computed anew, one that is gone is left out.
    """

    def __init__(self, clip: Clip, name: str) -> None:
        self.clip = clip
        self.store = VectorStore(cache_folder() / "clip" / digest(["kore-bench clip 1", clip.content])[:32])
        self.rows: dict[Path, int] = {}
        self.problems: dict[Path, str] = {}
        self._listing = Listing(name)

    def read(self, paths: Sequence[Path], what: str, progress: Progress | None = None) -> None:
        """Find every file's row, computing what is not known; files that cannot be read go to ``problems``."""
        todo = [path for path in paths if not self._is_known(path)]
        done = len(paths) - len(todo)
        new: list[tuple[Known, Path]] = []
        pending: dict[bytes, tuple[int, NDArray[np.float32]]] = {}
        try:
            for batch in self._batches(todo):
                pending |= self._computed(batch, pending)
                new += [(_known(read), read.path) for read in batch if read.stamp]
                self.problems |= {read.path: read.problem for read in batch if read.problem}
                done += len(batch)
                if progress:
                    progress(what, done, len(paths))
                if len(pending) >= _SHARD:
                    self._keep(new, pending)
        finally:
            self._keep(new, pending)

    def nearest(self, queries: Vectors, rows: NDArray[np.int64], count: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Return ``[queries, count]`` cosines, the largest first, and the rows that they belong to.

        ``rows`` (ascending) are those that are searched; where they are fewer than ``count``, so are the columns.
        """
        best = np.empty((len(queries), 0), dtype=np.float32)
        where = np.empty((len(queries), 0), dtype=np.int64)
        for some, vectors in self.store.blocks(rows):
            best = np.concatenate([best, queries @ vectors.T], axis=1)
            where = np.concatenate([where, np.broadcast_to(some, (len(queries), len(some)))], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :count]
            best, where = np.take_along_axis(best, order, axis=1), np.take_along_axis(where, order, axis=1)
        return best, where

    def _is_known(self, path: Path) -> bool:
        known = self._listing.known(path)
        if known is None:
            return False
        if known.problem:
            self.problems[path] = known.problem
            return True
        content = bytes.fromhex(known.digest)
        if content in self.store:
            self.rows[path] = self.store.row(content)
            return True
        return False

    def _batches(self, paths: Sequence[Path]) -> Iterator[list[_Read]]:
        rest = iter(paths)
        with bombs_refused(), ThreadPoolExecutor(os.cpu_count()) as pool:
            while batch := list(islice(rest, BATCH)):
                yield list(pool.map(self._look, batch))

    def _look(self, path: Path) -> _Read:
        before = stamp(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            return _Read(path, before, problem=f"cannot be read ({error.strerror})")
        content = hashlib.sha256(data).digest()
        if content in self.store:
            return _Read(path, before, content)
        try:
            picture = decoded(io.BytesIO(data), path)
        except UserError as error:
            return _Read(path, before, problem=str(error).removeprefix(f"{path} "))
        return _Read(path, before, content, picture, picture_hash(picture))

    def _computed(
        self, batch: Sequence[_Read], pending: dict[bytes, tuple[int, NDArray[np.float32]]]
    ) -> dict[bytes, tuple[int, NDArray[np.float32]]]:
        """Return hash and vector of those of a batch that are new, by digest."""
        new = {read.digest: read for read in batch if read.picture is not None and read.digest not in pending}
        vectors: Iterable[NDArray[np.float32]] = self.clip.pictures(_pictures(new.values())) if new else []
        return {read.digest: (read.hash, vector) for read, vector in zip(new.values(), vectors, strict=True)}

    def _keep(self, new: list[tuple[Known, Path]], pending: dict[bytes, tuple[int, NDArray[np.float32]]]) -> None:
        """Write down what was computed, first the vectors and then the files that have them; both lists are emptied."""
        if pending:
            hashes, vectors = zip(*pending.values(), strict=True)
            self.store.add(list(pending), hashes, np.stack(vectors))
            pending.clear()
        for known, path in new:
            self._listing.add(path, known)
            if known.digest and (content := bytes.fromhex(known.digest)) in self.store:
                self.rows[path] = self.store.row(content)
        if new:
            self._listing.keep()
            new.clear()


def _pictures(reads: Iterable[_Read]) -> list[Image]:
    return [read.picture for read in reads if read.picture is not None]


def _known(read: _Read) -> Known:
    return Known(read.stamp or Stamp(0, 0), read.digest.hex() if not read.problem else "", read.problem)
