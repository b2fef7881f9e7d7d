"""Whether a run's files are what was written: SHA-256 sums kept in each cell's record, and the search for damage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kore_bench.cache import file_digest
from kore_bench.results import Record, RunFolder

_KEPT = ("predictions/*.jsonl", "train.jsonl", "adapter/*", "adapter/*/*")
"""What of a cell's folder its record answers for."""


@dataclass(frozen=True)
class Damage:
    """A file of a run that is not what was written, and what is wrong with it."""

    file: Path
    what: str


def sums(cell: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that a cell's record answers for, by its path below the cell's folder."""
    found = sorted({file for pattern in _KEPT for file in cell.glob(pattern) if file.is_file()})
    return {file.relative_to(cell).as_posix(): file_digest(file) for file in found}


def damages(cell: Path, record: Record, *, weights: bool = True) -> Iterator[Damage]:
    """Yield what of a cell is missing or changed since its record was written.

    Without ``weights`` the adapter is left out: it may be large, or deleted to save room, and no score rests on it.
    """
    for name, expected in record.files.items():
        file = cell / name
        if name.startswith("adapter/") and not weights:
            continue
        if not file.is_file():
            yield Damage(file, "is missing")
        elif file_digest(file) != expected:
            yield Damage(file, "is not what was written (another SHA-256)")


def damaged(run: RunFolder, name: str) -> bool:
    """Return whether a cell has a record that cannot be trusted: damaged itself, or in what it answers for."""
    return (run.cell(name) / "record.json").exists() and whole(run, name) is None


def whole(run: RunFolder, name: str) -> Record | None:
    """Return the record of a cell all of whose answers and logs are what was written, else None: the cell runs again."""
    record = run.read(name)
    return None if record is None or any(damages(run.cell(name), record, weights=False)) else record


def search(run: RunFolder) -> Iterator[tuple[str, Record | None, list[Damage]]]:
    """Yield the name of every cell of the plan, its record (None: there is none, or no whole one), and its damages.

    Raises UserError where the folder is not a run, or was written in another format.
    """
    run.records()
    for name in run.plan()["cells"]:
        file = run.cell(name) / "record.json"
        record = run.read(name)
        if record is not None:
            yield name, record, list(damages(run.cell(name), record))
        else:
            yield name, None, [Damage(file, "is not the record that was written")] if file.exists() else []
