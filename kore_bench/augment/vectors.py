"""Vectors of pictures that were computed once, by the content of the files: shards of safetensors, one folder a model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kore_bench.augment.clip import Vectors

_WIDTH = 32  # bytes of a SHA-256


class VectorStore:
    """The vectors and the perceptual hashes of pictures, by the SHA-256 of their files.

    Rows are numbered through all shards. Only digests and hashes are held in memory; vectors are read shard by shard.
    A shard appears whole or not at all, and one that cannot be read is dropped: what it held is computed again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[bytes, int] = {}
        self._hashes: list[NDArray[np.uint64]] = []
        self._shards: list[Path] = []
        self._starts = [0]
        for file in sorted(folder.glob("*.safetensors")):
            self._open(file)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._rows

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._starts[-1]

    def row(self, digest: bytes) -> int:
        """Return the row of a picture that is in the store."""
        return self._rows[digest]

    def hash(self, row: int) -> int:
        """Return the perceptual hash of a row."""
        shard = self._shard_of(row)
        return int(self._hashes[shard][row - self._starts[shard]])

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """Return ``[rows, features]``, in the order of ``rows``."""
        found: dict[int, NDArray[np.float32]] = {}
        for some, vectors in self.blocks(np.unique(rows)):
            found.update(zip(some.tolist(), vectors, strict=True))
        return np.stack([found[row] for row in rows])

    def blocks(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """Yield ``rows`` (ascending) with their vectors, shard by shard."""
        edges = np.searchsorted(rows, self._starts)
        for shard, (start, end) in enumerate(pairwise(edges)):
            if start < end:
                some = rows[start:end]
                yield some, self._read(shard, some - self._starts[shard])

    def add(self, digests: Sequence[bytes], hashes: Sequence[int], vectors: Vectors) -> None:
        """Keep new pictures as one shard."""
        from safetensors.numpy import save_file

        tensors: dict[str, NDArray[Any]] = {
            "digests": np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, _WIDTH),
            "hashes": np.array(hashes, dtype=np.uint64),
            "vectors": np.ascontiguousarray(vectors, dtype=np.float32),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
        os.close(handle)
        save_file(tensors, temporary)
        file = self.folder / f"{digests[0].hex()}-{len(digests)}.safetensors"
        os.replace(temporary, file)
        self._open(file)

    def _open(self, file: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="np") as shard:
                digests, hashes = shard.get_tensor("digests"), shard.get_tensor("hashes")
        except (SafetensorError, OSError):
            file.unlink(missing_ok=True)
            return
        start = self._starts[-1]
        for number, digest in enumerate(digests):
            self._rows[digest.tobytes()] = start + number
        self._hashes.append(hashes)
        self._shards.append(file)
        self._starts.append(start + len(digests))

    def _read(self, shard: int, rows: NDArray[np.int64]) -> Vectors:
        """Return some rows of a shard; where they are few, no more than them is read."""
        from safetensors import safe_open

        with safe_open(self._shards[shard], framework="np") as opened:
            if len(rows) * 16 > len(self._hashes[shard]):
                every: Vectors = opened.get_tensor("vectors")
                return every[rows]
            some = opened.get_slice("vectors")
            return np.concatenate([some[row : row + 1] for row in rows.tolist()])

    def _shard_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1
