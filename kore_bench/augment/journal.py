"""What `kore-bench augment` has made so far: a line an item, appended as items are done, whatever their order."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from kore_bench.errors import UserError
from kore_bench.examples import Example, Turn
from kore_bench.generators import Call

from .grown import KnowledgeTree, Reject

JOURNAL, PLAN = "journal.jsonl", "plan.json"
_SYNC = 1.0
"""Seconds between two syncs: what is written is the system's at once, and a lost machine loses no more than this."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of a sample: the SHA-256 of its bytes, and its perceptual hash."""

    digest: str
    hash: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was made of one item: its tree, the calls that its texts come from, and the images that it shows.

    ``usage`` is what all of the data set had used by then (see `Generator.usage`); ``likeness`` the cosine of a retrieved
    image and the item's own, where it was measured.
    """

    tree: KnowledgeTree
    calls: tuple[Call, ...] = ()
    pictures: Mapping[Path, Picture] = field(default_factory=dict)
    usage: Mapping[str, float] = field(default_factory=dict)
    likeness: Mapping[Path, float] = field(default_factory=dict)


class Journal:
    """The entries in ``folder``, for one process at a time; a last line that was cut off is dropped.

    Of an item that stands there twice the first entry counts. Raises UserError where another process writes there, where
    ``plan`` is not the one that the entries were made under, naming what differs, and for a line that is damaged.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder, self.file = folder, folder / JOURNAL
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{folder} is written to by another process: wait for it, or name another --out") from None
        try:
            self._check_plan(plan)
            self.usage: Mapping[str, float] = {}
            self._places = self._read()
        except BaseException:
            self._lock.release()
            raise
        self._stream = self.file.open("ab")
        self._end, self._synced = self._stream.tell(), time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sync()
        self._stream.close()
        self._lock.release()

    def __contains__(self, item: str) -> bool:
        return item in self._places

    def __len__(self) -> int:
        return len(self._places)

    def append(self, entry: Entry) -> None:
        """Add the entry of an item that has none."""
        line = json.dumps(_row(entry), ensure_ascii=False).encode() + b"\n"
        self._stream.write(line)
        self._stream.flush()
        self._places[entry.tree.item], self.usage = self._end, entry.usage
        self._end += len(line)
        if time.monotonic() - self._synced > _SYNC:
            self._sync()

    def entries(self, items: Iterable[str]) -> Iterator[Entry]:
        """Yield the entries that there are of ``items``, in their order, one at a time from the disk."""
        with self.file.open("rb") as stream:
            for item in items:
                if item in self._places:
                    stream.seek(self._places[item])
                    yield _entry(json.loads(stream.readline()))

    def _sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._synced = time.monotonic()

    def _check_plan(self, plan: Mapping[str, Any]) -> None:
        file = self.folder / PLAN
        if not file.exists():
            if any(entry.name != ".lock" for entry in self.folder.iterdir()):
                raise UserError(f"{self.folder} is no folder of kore-bench augment and not empty: name another --out")
            scratch = file.with_suffix(".tmp")
            scratch.write_text(json.dumps(plan, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            scratch.rename(file)
            return
        before = json.loads(file.read_text(encoding="utf-8"))
        for name in dict.fromkeys([*before, *plan]):
            if before.get(name) != plan.get(name):
                raise UserError(
                    f"{self.folder} was begun with {name} {_said(before.get(name))}, now it is "
                    f"{_said(plan.get(name))}: give what it was begun with, or name another --out"
                )

    def _read(self) -> dict[str, int]:
        """Return where the line of each item begins, a torn last line cut off; the last line's usage is kept."""
        places: dict[str, int] = {}
        if not self.file.exists():
            return places
        with self.file.open("r+b") as stream:
            start = 0
            for number, line in enumerate(iter(stream.readline, b""), start=1):
                if not line.endswith(b"\n"):
                    stream.truncate(start)
                    break
                try:
                    row = json.loads(line)
                    places.setdefault(row["item"], start)
                    self.usage = row["usage"]
                except (ValueError, KeyError, TypeError):
                    raise UserError(
                        f"{self.file}, line {number}: not what was written; take the line out, and its item is made again"
                    ) from None
                start += len(line)
        return places


def _said(value: Any) -> str:
    return "not set" if value in (None, "") else str(value)


def _row(entry: Entry) -> dict[str, Any]:
    tree = entry.tree
    return {
        "item": tree.item,
        "examples": [
            {
                "id": example.id,
                "images": [str(image) for image in example.images],
                "turns": [[turn.question, turn.answer] for turn in example.turns],
                "source": example.source,
            }
            for example in tree.examples()
        ],
        "rejects": [asdict(reject) for reject in tree.rejects],
        "fallbacks": tree.fallbacks,
        "calls": [asdict(call) for call in entry.calls],
        "pictures": {str(path): [picture.digest, picture.hash] for path, picture in entry.pictures.items()},
        "usage": dict(entry.usage),
        "likeness": {str(path): likeness for path, likeness in entry.likeness.items()},
    }


def _entry(row: Mapping[str, Any]) -> Entry:
    examples = [
        Example(
            id=given["id"],
            images=tuple(map(Path, given["images"])),
            turns=tuple(Turn(question=question, answer=answer) for question, answer in given["turns"]),
            source=given["source"],
            item=row["item"],
        )
        for given in row["examples"]
    ]
    single = {example.source.removeprefix("kore/"): example for example in examples if example.source != "kore/vqa"}
    tree = KnowledgeTree(
        item=row["item"],
        vqa=tuple(example for example in examples if example.source == "kore/vqa"),
        rejects=tuple(Reject(**reject) for reject in row["rejects"]),
        fallbacks=row["fallbacks"],
        **single,
    )
    return Entry(
        tree=tree,
        calls=tuple(Call(**call) for call in row["calls"]),
        pictures={Path(path): Picture(digest=digest, hash=hash) for path, (digest, hash) in row["pictures"].items()},
        usage=row["usage"],
        likeness={Path(path): likeness for path, likeness in row["likeness"].items()},
    )
