"""Inside the scoring process: VLMEvalKit's data sets by name, checked, and their rows as questions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kore_bench.errors import UserError
from kore_bench.vlmevalkit.client import check_columns
from kore_bench.vlmevalkit.sampling import choose, group_of

_CIRCULAR = ("mmbench", "ccbench", "circular", "mmcr")  # parts of names that VLMEvalKit scores in circles
_built: dict[str, Found] = {}


@dataclass(frozen=True)
class Found:
    """A data set that was built: ``dataset`` is VLMEvalKit's object, ``file`` what it was read from."""

    name: str
    dataset: Any
    file: str

    @property
    def data(self) -> Any:
        """Return the table (pandas)."""
        return self.dataset.data

    @property
    def kind(self) -> str:
        """Return ``MCQ``, ``Y/N``, ``VQA``, ``MT`` (several turns) or another of VLMEvalKit's types."""
        return str(getattr(self.dataset, "TYPE", ""))

    def rule(self, groups: str) -> str:
        """Return the rule of `group_of`: ``groups``, or what the data set's name asks for."""
        circular = any(part in self.name.lower() for part in _CIRCULAR)
        return "circle" if groups == "row" and circular else groups

    def chosen(self, groups: str, stratum: str, counted: Mapping[str, str], limit: int) -> list[int]:
        """Return the places of the rows to ask: all, or whole groups of those that ``counted`` picks."""
        if not limit:
            return list(range(len(self.data)))
        rule = self.rule(groups)
        rows = [dict(self.data.iloc[place]) for place in range(len(self.data))]
        places = [place for place, row in enumerate(rows) if _counts(row, counted)]
        names = [group_of(rows[place], rule) for place in places]
        strata = [str(rows[place][stratum]) if stratum else "" for place in places]
        return [places[index] for index in choose(names, strata, limit)]

    def question(self, place: int, rule: str, counted: Mapping[str, str]) -> dict[str, Any]:
        """Return one row as plain values: its id, user turns, right answers, group and category, and whether it counts.

        Raises UserError where its picture cannot be read, or it asks with something else than texts and pictures.
        """
        row = self.data.iloc[place]
        try:
            message = self.dataset.build_prompt(row)
        except Exception as error:
            self._drop_pictures(str(row["index"]))
            raise UserError(f"{self._where(row)}: {_why(error)}") from error
        turns = [part["content"] for part in message if part["role"] == "user"] if self.kind == "MT" else [message]
        for part in (part for turn in turns for part in turn):
            if part["type"] not in ("text", "image"):
                raise UserError(f"{self._where(row)} asks with a {part['type']}, which this harness does not show")
        return {
            "id": str(row["index"]), "turns": [[{key: str(part[key]) for key in ("type", "value")} for part in turn]
                                               for turn in turns],
            "answers": self._answers(row, len(turns)), "group": group_of(row, rule),
            "category": str(row["category"]) if "category" in row else "", "counted": _counts(dict(row), counted),
        }  # fmt: skip

    def _answers(self, row: Any, turns: int) -> list[str]:
        from vlmeval.smp import toliststr

        answer = row.get("answer", "")
        if self.kind != "MT":
            return [str(answer)]
        return list(toliststr(answer)) if answer else [""] * turns

    def _where(self, row: Any) -> str:
        return f"{self.file}: the row with index {row['index']}"

    def _drop_pictures(self, index: str) -> None:
        """Drop a picture that was half written, which VLMEvalKit would take for whole the next time."""
        for file in Path(self.dataset.img_root).glob(f"{index}*.png"):
            if file.stem == index or file.stem.startswith(f"{index}_"):
                file.unlink()


def names() -> dict[str, dict[str, Any]]:
    """Return all data sets of pictures and texts: whether answers are matched ``exact``, and its file's ``md5``."""
    from vlmeval import dataset as known

    found: dict[str, dict[str, Any]] = {}
    for kind in (kind for kind in known.DATASET_CLASSES if kind not in known.VIDEO_DATASET):
        exact = getattr(kind, "TYPE", "") in ("MCQ", "Y/N") or issubclass(kind, known.ImageVQADataset)
        for name in kind.supported_datasets():
            found.setdefault(name, {"exact": exact, "md5": str(kind.DATASET_MD5.get(name) or "")})
    return found


def kept(name: str) -> Found:
    """Return the data set as `build` made it, again where this process is a new one."""
    return _built.get(name) or build(name, (), offline=True)


def build(name: str, columns: Sequence[str], *, offline: bool) -> Found:
    """Return a data set, fetching its file where it is missing and ``offline`` allows it.

    Raises UserError for a file that is missing, or was fetched and is not the published one, and for a missing column.
    """
    source = _Source(name)
    if offline and not source.there:
        raise UserError(f"{source.file} is not there, and --offline forbids to download {name} from {source.url}")
    fetched = not source.there
    source.trust()
    check_columns(source.file, columns)
    from vlmeval.dataset import build_dataset

    try:
        dataset = build_dataset(name)
    except AssertionError as error:
        raise UserError(f"{source.file}: {_lost_picture(source.file)}") from error
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"VLMEvalKit cannot build {name} of {source.file}: {_why(error)}") from error
    if dataset is None or not hasattr(dataset, "data"):
        raise UserError(f"VLMEvalKit cannot build {name}: {source.file} is missing or has no column 'question'")
    if fetched and source.changed:  # VLMEvalKit fetches without checking who sends it
        raise UserError(
            f"{source.file}, just fetched from {source.url}, is not the file that VLMEvalKit knows: remove it"
        )
    check_columns(source.file, columns)
    _built.clear()
    _built[name] = Found(name, dataset, str(source.file))
    return _built[name]


@dataclass(frozen=True)
class _Source:
    """Where a data set's file is or comes from."""

    name: str

    @cached_property
    def classes(self) -> list[Any]:
        from vlmeval.dataset import DATASET_CLASSES

        return [kind for kind in DATASET_CLASSES if self.name in kind.supported_datasets()]

    @property
    def url(self) -> str:
        return next((str(kind.DATASET_URL.get(self.name, "")) for kind in self.classes), "")

    @property
    def file(self) -> Path:
        from vlmeval.smp import LMUDataRoot

        return Path(LMUDataRoot()) / f"{self.name}.tsv"

    @property
    def there(self) -> bool:
        """Return whether its file is there, under its name or the one that it is published under."""
        return self.file.exists() or (bool(self.url) and (self.file.parent / self.url.rsplit("/", 1)[-1]).exists())

    @cached_property
    def md5(self) -> str:
        return next((str(kind.DATASET_MD5.get(self.name) or "") for kind in self.classes), "")

    @property
    def changed(self) -> bool:
        """Return whether its file is another than the published one, as far as VLMEvalKit knows that."""
        if not self.md5 or not self.file.exists():
            return False
        with self.file.open("rb") as stream:
            return hashlib.file_digest(stream, "md5").hexdigest() != self.md5

    def trust(self) -> None:
        """Keep VLMEvalKit from fetching over a file that is there, which may be one of the user's own."""
        for kind in self.classes:
            if self.there:
                kind.DATASET_MD5 = {key: value for key, value in kind.DATASET_MD5.items() if key != self.name}


def _counts(row: Mapping[str, Any], counted: Mapping[str, str]) -> bool:
    return all(row.get(column) == value for column, value in counted.items())


def _lost_picture(file: Path) -> str:
    """Return which row has neither a picture nor the index of a row that has one."""
    import pandas

    table = pandas.read_csv(file, sep="\t", dtype=str)
    pictures = dict(zip(table["index"], table["image"].fillna(""), strict=True))
    for index, picture in pictures.items():
        if 0 < len(picture) <= 64 and len(pictures.get(picture, "")) <= 64:
            return f"the row with index {index} has as its image neither base64 nor the index of a row that has one"
    return "one of its rows cannot be used"


def _why(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if type(error).__name__ in ("Error", "UnidentifiedImageError", "OSError", "SyntaxError"):  # binascii's, Pillow's
        return "its image is no base64 of a whole picture"
    return f"{type(error).__name__}: {text}"
