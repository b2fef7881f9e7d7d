"""The cells of a run as a person names them: by method, by method and seed, or by the start of the folder's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kore_bench.errors import UserError, nearest
from kore_bench.results import CHECKPOINTS, Record, RunFolder


@dataclass(frozen=True, kw_only=True)
class Place:
    """One cell of a run's plan: its folder's name, and what is there.

    ``status`` is that of the record (done, failed, skipped), else ``unreadable`` where the record is damaged,
    ``unfinished`` where the cell began, and ``not run``; ``reason`` says why it is not done, or which tasks failed.
    """

    name: str
    method: str
    seed: int
    status: str
    reason: str = ""
    record: Record | None = None

    @property
    def label(self) -> str:
        """Return the cell as ``METHOD@SEED``."""
        return f"{self.method}@{self.seed}"


def list_places(run: RunFolder) -> list[Place]:
    """Return every cell of a run's plan, in its order; raises UserError where the folder is not a run."""
    return [_place(run, name) for name in run.plan()["cells"]]


def find_places(run: RunFolder, text: str) -> list[Place]:
    """Return the cells of one method that ``text`` names: METHOD (all its seeds), METHOD@SEED, or a folder's start.

    ``METHOD--seedN`` does too. Raises UserError with the nearest names where there is none, and where the start of a
    name fits cells of several methods.
    """
    places = list_places(run)
    found = [place for place in places if text in (place.method, place.label, f"{place.method}--seed{place.seed}")]
    found = found or [place for place in places if text and place.name.startswith(text)]
    if not found:
        raise UserError(f"{run.path} has no cell {text!r}: {nearest(text, _choices(places, text))}")
    methods = list(dict.fromkeys(place.method for place in found))
    if len(methods) > 1:
        raise UserError(f"{text!r} begins the names of {len(found)} cells, of {', '.join(methods)}: give more of it")
    return found


def repeated(places: Sequence[Place]) -> bool:
    """Return whether two cells have one method and one seed, as a tuning's trials do."""
    return len({place.label for place in places}) < len(places)


def _choices(places: Sequence[Place], text: str) -> set[str]:
    method, at, _ = text.partition("@")
    own = {place.label for place in places if place.method == method}
    return own if at and own else {place.method for place in places}


def _place(run: RunFolder, name: str) -> Place:
    method, seed = _parts(name)
    record = run.read(name)
    if record is not None:
        method, seed = record.method, record.seed
        return Place(
            name=name, method=method, seed=seed, status=record.status, reason=record.shortfall, record=record
        )  # fmt: skip
    folder = run.cell(name)
    if (folder / "record.json").exists():
        return Place(name=name, method=method, seed=seed, status="unreadable", reason="its record is damaged")
    if folder.is_dir():
        return Place(name=name, method=method, seed=seed, status="unfinished", reason=_reached(folder))
    return Place(name=name, method=method, seed=seed, status="not run")


def _parts(name: str) -> tuple[str, int]:
    """Return method and seed of a folder's name, ``MODEL--METHOD--seedN--KEY``."""
    parts = name.split("--")
    if len(parts) < 4 or not parts[-2].removeprefix("seed").isdigit():
        return name, 0
    return "--".join(parts[1:-2]), int(parts[-2].removeprefix("seed"))


def _reached(folder: Path) -> str:
    """Return how far a cell came that has no record: it runs still, or was stopped."""
    steps = [path.name.rpartition("-")[2] for path in (folder / CHECKPOINTS).glob("*-*")]
    kept = max((int(step) for step in steps if step.isdigit()), default=0)
    return f"trained to step {kept} at least" if kept else "running, or stopped"
