"""Hugging Face data sets with image columns: saved on disk, parquet files, or by their name on the hub.

A knowledge set has the splits ``injection`` and ``evaluation`` (and ``facts``, ``retention``, ``old_facts``,
``probes``, ``old``), whose columns are the fields of EVOKE's files; a conversation set has one split, with LLaVA's or sharegpt's columns.
The pictures in the columns are written into the cache once, for all else here reads image files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore_bench.errors import UserError, nearest
from kore_bench.examples import Knowledge

from .archives import SUFFIXES, written_once
from .conversations import LLAVA, OPENAI, Conversations, Problems, read
from .digests import content_digest
from .evoke import EVALUATION, FACTS, INJECTION, OLD, OLD_FACTS, PROBE_FILE, RETENTION
from .evoke_writer import tables_of
from .fields import Row
from .pictures import Pictures
from .writing import PATH_FIELDS, require_new

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS: Mapping[str, str] = {
    INJECTION: "injection", EVALUATION: "evaluation", FACTS: "facts", RETENTION: "retention", OLD_FACTS: "old_facts",
    PROBE_FILE: "probes", OLD: "old",
}  # fmt: skip
_BATCH = 1000
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_NO_PICTURE = ".bin"


def is_dataset(path: Path) -> bool:
    """Return whether ``path`` is a data set saved on disk, parquet, or else may be a name on the hub."""
    if path.is_file():
        return path.suffix == ".parquet"
    if path.is_dir():
        return any((path / name).exists() for name in ("dataset_dict.json", "state.json")) or bool(_parquet(path))
    return bool(_HUB_NAME.fullmatch(str(path))) and not path.parent.exists()


def load(path: Path) -> dict[str, Dataset]:
    """Return the splits of a data set by name; raises UserError where it cannot be read or had."""
    import datasets

    try:
        found = _local(path) if path.exists() else datasets.load_dataset(str(path))
    except Exception as error:  # readers of columns, files and networks raise anything
        first = str(error.__cause__ or error).strip().split("\n", 1)[0]
        if path.exists():
            raise UserError(f"{path} cannot be read as a Hugging Face data set: {first}") from error
        raise UserError(
            f"there is no folder or file {str(path)!r} here, and no such data set can be had from the hub: {first}"
        ) from error
    return dict(found) if isinstance(found, dict) else {str(found.split or "train"): found}


def _local(path: Path) -> Any:
    import datasets

    with _quiet():
        if not (files := _parquet(path)):
            return datasets.load_from_disk(str(path))
        splits: dict[str, list[str]] = {}
        for file in files:
            splits.setdefault(re.split(r"[-.]", file.name)[0], []).append(str(file))
        # One by one, for the splits of a knowledge set have columns of their own.
        return {
            split: datasets.load_dataset("parquet", data_files={split: names}, split=split)
            for split, names in splits.items()
        }


@contextmanager
def _quiet() -> Iterator[None]:
    """Show no progress bars, of which there would be several a split, unless that is so anyway."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def _parquet(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted({*path.glob("*.parquet"), *path.glob("data/*.parquet")})


class DatasetTables:
    """The splits of a knowledge set; see `kore_bench.formats.evoke.Tables`."""

    def __init__(self, root: Path) -> None:
        self.root, self.splits = root, load(root)
        self.files: dict[str, Path] = {}
        self._folders = {
            split: _pictures(self.splits[split], split) for split in SPLITS.values() if split in self.splits
        }
        self.pictures = Pictures(root, more=tuple(self._folders.values()))

    def rows(self, table: str) -> Iterator[Row] | None:
        """Return the rows of a split; raises UserError where a required one is missing."""
        split = SPLITS[table]
        if split not in self.splits:
            if table in (INJECTION, EVALUATION):
                raise UserError(f"the data set {self.root} has no split {split}; {nearest(split, self.splits)}")
            return None
        self.files |= _files(self.splits[split], split)
        return _rows(self.splits[split], split, self.root, self._folders[split])


def data_files(path: Path) -> tuple[Path, ...]:
    """Return the Arrow files that a data set's rows stand in."""
    return tuple(file for split, dataset in load(path).items() for file in _files(dataset, split).values())


def read_conversations(path: Path, problems: Problems) -> Conversations:
    """Return the conversations of a data set's only split, or of ``train``; raises UserError as `Problems` says."""
    splits = load(path)
    split = "train" if "train" in splits else next(iter(splits))
    if len(splits) > 1 and split != "train":
        raise UserError(f"{path} has the splits {', '.join(sorted(splits))}: conversations are read from train")
    dataset = splits[split]
    folder = _pictures(dataset, split)
    speech = OPENAI if OPENAI.turns in dataset.column_names else LLAVA
    images = "images" if "images" in dataset.column_names else "image"
    found = _rows(dataset, split, path, folder)
    return read(path, found, Pictures(path, more=(folder,)), speech, images, "huggingface", problems)


def _rows(dataset: Dataset, split: str, root: Path, folder: Path) -> Iterator[Row]:
    """Yield a split's rows, the pictures of its image columns as names below ``folder``."""
    columns = _image_columns(dataset)
    names = {
        column: {file.stem: f"{split}/{column}/{file.name}" for file in folder.glob(f"{split}/{column}/*")}
        for column in columns
    }
    number = 0
    for batch in dataset.remove_columns(columns).iter(_BATCH):
        for values in zip(*batch.values(), strict=True):
            data = {name: value for name, value in zip(batch, values, strict=True) if value is not None}
            for column in columns:
                if found := _of_row(names[column], number):
                    data[column] = found if len(found) > 1 else found[0]
            yield Row(f"{root} [{split}]", f"row {number}", data)
            number += 1


def _of_row(names: Mapping[str, str], number: int) -> list[str]:
    found: list[str] = []
    while (stem := f"{number}-{len(found)}") in names:
        found.append(names[stem])
    return found


def _image_columns(dataset: Dataset) -> list[str]:
    """Return the columns that hold a picture or a list of them."""
    from datasets import Image

    return [
        name for name, feature in dataset.features.items() if isinstance(getattr(feature, "feature", feature), Image)
    ]


def _files(dataset: Dataset, split: str) -> dict[str, Path]:
    return {f"{split}/{number}": Path(entry["filename"]) for number, entry in enumerate(dataset.cache_files)}


def _pictures(dataset: Dataset, split: str) -> Path:
    """Return the folder with the pictures of a split's image columns, ``SPLIT/COLUMN/ROW-NUMBER.SUFFIX``."""
    from datasets import Image, List

    columns = _image_columns(dataset)
    bare = dataset.select_columns(columns)
    with _quiet():
        for name in columns:
            one = isinstance(dataset.features[name], Image)
            bare = bare.cast_column(name, Image(decode=False) if one else List(Image(decode=False)))

    def write(folder: Path) -> None:
        for name in columns:
            (folder / split / name).mkdir(parents=True)
        for number, row in enumerate(bare):
            for name in columns:
                values = row[name] if isinstance(row[name], list) else [row[name]]
                for index, value in enumerate(value for value in values if value is not None):
                    suffix = Path(value["path"] or "").suffix.lower()
                    file = f"{number}-{index}{suffix if suffix in SUFFIXES else _NO_PICTURE}"
                    # A path without bytes leads to a file of whoever made the set: empty, it is named as broken.
                    (folder / split / name / file).write_bytes(value["bytes"] or b"")

    return written_once(content_digest(_files(dataset, split)), write)


# --- writing ---


def write_knowledge(knowledge: Knowledge, folder: Path) -> Path:
    """Save a knowledge set into a new folder, pictures inside; returns the folder."""
    from datasets import DatasetDict

    require_new(folder)
    with _quiet():
        tables = {SPLITS[name]: _dataset(rows) for name, rows in tables_of(knowledge).items()}
        DatasetDict(tables).save_to_disk(str(folder))
    return folder


def write_conversations(conversations: Conversations, folder: Path) -> Path:
    """Save a conversation set into a new folder, pictures inside; returns the folder."""
    require_new(folder)
    made = [
        {"id": example.id, "images": list(example.images), "conversations": LLAVA.write(example)}
        for example in conversations.examples
    ]
    with _quiet():
        _dataset(made).save_to_disk(str(folder))
    return folder


def _dataset(made: list[dict[str, Any]]) -> Dataset:
    """Return rows as a data set whose image columns hold lists of pictures."""
    from datasets import Dataset, Image, List

    fields = dict.fromkeys(field for row in made for field in row)
    dataset = Dataset.from_dict({field: [_value(field, row.get(field)) for row in made] for field in fields})
    for field in fields:
        if field in PATH_FIELDS:
            dataset = dataset.cast_column(field, List(Image()))
    return dataset


def _value(field: str, value: Any) -> Any:
    if field not in PATH_FIELDS:
        return value
    return [str(image) for image in (value if isinstance(value, list) else [value] if value else [])]
