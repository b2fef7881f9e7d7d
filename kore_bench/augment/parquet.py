"""Samples as a Hugging Face data set with images inside: parquet files, written piece by piece, equal for equal rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kore_bench.examples import Example
from kore_bench.formats.conversations import LLAVA

PIECE = 2**26
"""Bytes of images from which on the rows gathered are written."""
FILE = 2**29
"""Bytes of images from which on another file is begun."""


class Parquet:
    """Writes ``train-NNNNN.parquet`` files into ``folder``; image names are below ``root``."""

    def __init__(self, folder: Path, root: Path) -> None:
        from datasets import Features, Image, List, Value

        self.folder, self.root = folder, root
        folder.mkdir(parents=True)
        turn = {LLAVA.speaker: Value("string"), LLAVA.text: Value("string")}
        features = Features({"id": Value("string"), "images": List(Image()), LLAVA.turns: List(turn)})
        self._schema: Any = features.arrow_schema
        self._rows: list[dict[str, Any]] = []
        self._gathered = self._written = self._files = 0
        self._writer: Any = None

    def add(self, example: Example, names: Sequence[str]) -> None:
        """Write one sample."""
        pictures = [{"bytes": (self.root / name).read_bytes(), "path": Path(name).name} for name in names]
        self._rows.append({"id": example.id, "images": pictures, LLAVA.turns: LLAVA.write(example)})
        self._gathered += sum(len(picture["bytes"]) for picture in pictures)
        if self._gathered >= PIECE or len(self._rows) >= 1000:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._end_file()

    def _flush(self) -> None:
        import pyarrow
        import pyarrow.parquet

        if not self._rows:
            return
        if self._writer is None:
            file = self.folder / f"train-{self._files:05}.parquet"
            self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
            self._files += 1
        self._writer.write_table(pyarrow.Table.from_pylist(self._rows, schema=self._schema))
        self._written += self._gathered
        self._rows, self._gathered = [], 0
        if self._written >= FILE:
            self._end_file()

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._written = None, 0
