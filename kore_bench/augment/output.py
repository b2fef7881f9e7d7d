"""The files of a finished data set, written anew from the journal in item order: equal bytes for equal entries.

| file | holds |
|---|---|
| ``llava.json`` | the samples in LLaVA's form, which KORE-74K is published in |
| ``sharegpt.json``, ``dataset_info.json`` | the same for LLaMA-Factory (``--format llama-factory``) |
| ``huggingface/`` | the same as a Hugging Face data set, images inside (``--format huggingface``) |
| ``images/`` | the images, each called by its content |
| ``samples.jsonl`` | where each sample comes from: item, part, generator, model, prompts and their versions, seeds, likeness of a searched image |
| ``rejects.jsonl`` | each text that a gate or the generator refused, and why |
| ``contamination.jsonl`` | what of the samples stands in the evaluation too |
| ``SHA256SUMS``, ``manifest.json`` | digests of all of these |
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Protocol, Self

from kore_bench import __version__
from kore_bench.cache import file_digest
from kore_bench.errors import UserError
from kore_bench.examples import Example
from kore_bench.formats.conversations import LLAVA
from kore_bench.formats.evoke_writer import llava_row
from kore_bench.results import write_text

from .grown import KnowledgeTree
from .journal import Entry, Picture
from .parquet import Parquet

FORMATS = ("llava", "llama-factory", "huggingface")
"""What the samples can be written as; ``llava`` always is."""
SAMPLES, REJECTS, CONTAMINATION = "samples.jsonl", "rejects.jsonl", "contamination.jsonl"
MANIFEST, SUMS, REPORT, IMAGES = "manifest.json", "SHA256SUMS", "report.json", "images"
PROMPTED = {"dialogue": "dialogue", "caption": "summary", "vqa": "quadruplets"}
"""Part of the tree -> the part of a generator's call that wrote it."""


class Sink(Protocol):
    """Takes samples one by one in one format; ``names`` are the images' in the data set's folder."""

    def add(self, example: Example, names: Sequence[str]) -> None:
        """Write one sample."""

    def close(self) -> None:
        """Write what is left."""


class Output:
    """Writes the data set into ``folder``; what stood there before is replaced on leaving the block, not earlier."""

    def __init__(self, folder: Path, formats: Collection[str]) -> None:
        self.folder, self.scratch = folder, folder / ".writing"
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        self.images: dict[str, str] = {}
        """Name of an image in the folder -> its SHA-256."""
        self._stack = ExitStack()
        self._samples, self._rejects, self._overlaps = (
            self._stack.enter_context((self.scratch / name).open("w", encoding="utf-8"))
            for name in (SAMPLES, REJECTS, CONTAMINATION)
        )
        self._sinks: list[Sink] = [_Array(self.scratch / "llava.json", _llava)]
        if "llama-factory" in formats:
            self._sinks.append(_Array(self.scratch / "sharegpt.json", _sharegpt))
            write_json(self.scratch / "dataset_info.json", _REGISTER)
        if "huggingface" in formats:
            self._sinks.append(Parquet(self.scratch / "huggingface" / "data", folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for sink in self._sinks:
            sink.close()
        self._stack.close()
        if kind is None:
            self._replace()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def add(self, entry: Entry, tree: KnowledgeTree, overlaps: Iterable[Mapping[str, Any]]) -> None:
        """Write the samples of ``tree``, which is the entry's or what is left of it."""
        for example in tree.examples():
            names = [self._image(image, entry.pictures[image]) for image in example.images]
            for sink in self._sinks:
                sink.add(example, names)
            _line(self._samples, _origin(example, entry))
        for reject in tree.rejects:
            _line(self._rejects, {"item": tree.item, **asdict(reject)})
        for overlap in overlaps:
            _line(self._overlaps, overlap)

    def _image(self, image: Path, picture: Picture) -> str:
        """Return the image's name in the folder, to which it is copied unless it is there."""
        name = f"{IMAGES}/{picture.digest[:2]}/{picture.digest[:32]}{image.suffix.lower()}"
        if name not in self.images:
            self.images[name] = picture.digest
            target = self.folder / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(image, scratch := target.with_suffix(".tmp"))
                if file_digest(scratch) != picture.digest:
                    scratch.unlink()
                    raise UserError(f"{image} has changed since its item was done: put it back, or begin a new --out")
                scratch.rename(target)
        return name

    def _replace(self) -> None:
        """Put the new files in the place of the old ones, and drop images that nothing shows any more."""
        written = {entry.name for entry in self.scratch.iterdir()}
        for name in (
            "llava.json",
            "sharegpt.json",
            "dataset_info.json",
            "huggingface",
            SAMPLES,
            REJECTS,
            CONTAMINATION,
        ):
            target = self.folder / name
            if target.is_dir():
                shutil.rmtree(target)
            if name in written:
                os.replace(self.scratch / name, target)
            else:
                target.unlink(missing_ok=True)
        for file in self.folder.glob(f"{IMAGES}/*/*"):
            if file.relative_to(self.folder).as_posix() not in self.images:
                file.unlink()
        with contextlib.suppress(OSError):
            (self.folder / IMAGES).rmdir()


def write_manifest(output: Output, plan: Mapping[str, Any], *, items: int, of: int) -> None:
    """Write ``SHA256SUMS`` (see ``sha256sum -c``) and ``manifest.json``: how the set was made, and what it holds."""
    folder = output.folder
    made = {
        name: file_digest(folder / name)
        for name in sorted(file.relative_to(folder).as_posix() for file in _data_files(folder))
    }
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted((made | output.images).items()))
    write_text(folder / SUMS, sums)
    manifest = {
        "kore-bench": __version__,
        "plan": dict(plan),
        "items": items,
        "complete": items == of,
        "files": {name: {"sha256": digest, "bytes": (folder / name).stat().st_size} for name, digest in made.items()},
        "images": len(output.images),
        SUMS: file_digest(folder / SUMS),
    }
    write_json(folder / MANIFEST, manifest)


def _data_files(folder: Path) -> Iterator[Path]:
    names = ("llava.json", "sharegpt.json", "dataset_info.json", SAMPLES, REJECTS, CONTAMINATION)
    yield from (folder / name for name in names if (folder / name).is_file())
    yield from (folder / "huggingface").rglob("*.parquet")


def _origin(example: Example, entry: Entry) -> dict[str, Any]:
    """Return where a sample comes from; recognition and headings are the templates' alone."""
    part = example.source.removeprefix("kore/")
    calls = [call for call in entry.calls if call.part == PROMPTED.get(part) and not call.reason]
    prompts = [{"prompt": call.prompt, "version": call.version, "seed": call.seed} for call in calls]
    first = calls[0] if calls else None
    likeness = [entry.likeness[image] for image in example.images if image in entry.likeness]
    return {
        "id": example.id, "item": example.item, "part": part, "generator": first.generator if first else "",
        "model": first.model if first else "", "prompts": prompts,
        **({"likeness": likeness[0]} if likeness else {}),
    }  # fmt: skip


class _Array:
    """Writes a JSON array, a sample a line."""

    def __init__(self, file: Path, row: Any) -> None:
        self._stream, self._row, self._mark = file.open("w", encoding="utf-8"), row, "["

    def add(self, example: Example, names: Sequence[str]) -> None:
        self._stream.write(f"{self._mark}\n{json.dumps(self._row(example, names), ensure_ascii=False)}")
        self._mark = ","

    def close(self) -> None:
        if not self._stream.closed:
            self._stream.write("\n]\n" if self._mark == "," else "[]\n")
            self._stream.close()


def _llava(example: Example, names: Sequence[str]) -> dict[str, Any]:
    row = llava_row(example)
    return {**row, "image": names[0] if len(names) == 1 else list(names)} if names else row


def _sharegpt(example: Example, names: Sequence[str]) -> dict[str, Any]:
    return {"id": example.id, LLAVA.turns: LLAVA.write(example), "images": list(names)}


_REGISTER = {
    "kore_bench": {
        "file_name": "sharegpt.json",
        "formatting": "sharegpt",
        "columns": {"messages": LLAVA.turns, "images": "images"},
    }
}
"""How LLaMA-Factory finds the samples, given the folder as ``dataset_dir`` and ``media_dir``."""


def _line(stream: IO[str], row: Mapping[str, Any]) -> None:
    stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file, replacing what stands there at once."""
    write_text(file, json.dumps(value, ensure_ascii=False, indent=1) + "\n")
