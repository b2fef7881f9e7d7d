"""Asks a data set's rows of the loaded model: in batches over rows, turn after turn, with every answer kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from kore_bench.distributed import everyone, first, rank, the_first, wait_for_all, world
from kore_bench.results import whole_lines, write_lines
from kore_bench.vlmevalkit.questions import Asked

if TYPE_CHECKING:
    from kore_bench.lmm import LMM

T = TypeVar("T")
Progress = Callable[[int, int], None]


def ask(
    model: LMM, rows: Sequence[Asked], answers: Path, max_new_tokens: int, progress: Progress
) -> list[list[str]]:  # fmt: skip
    """Return the answers to each row's turns; a later turn is asked with the model's own answers before it.

    New answers are added to the file ``answers`` batch by batch. What it and the files of other processes of the cell
    hold already (`kore_bench.evaluation`) is not asked again.
    """
    given = _given(answers)
    said: list[list[str]] = [[] for _ in rows]
    total, done = sum(len(row.turns) for row in rows), 0
    with answers.open("a", encoding="utf-8") as kept:
        for turn in range(max((len(row.turns) for row in rows), default=0)):
            places = [place for place, row in enumerate(rows) if len(row.turns) > turn]
            told = _Turn(turn, places, given, kept)
            before = done
            model.generate(
                [(rows[place].dialogue(said[place]), rows[place].images(turn + 1)) for place in places],
                max_new_tokens=max_new_tokens, given=dict(told.answers), keep=told.keep, share=(rank(), world()),
                progress=lambda now, _, before=before: progress(before + now, total),
            )  # fmt: skip
            for place, text in zip(places, told.all(), strict=True):
                said[place].append(text)
            done += len(places)
    return said


class _Turn:
    """The answers to one turn of the rows at ``places``, by number in that order; new ones go to the file ``kept``."""

    def __init__(self, turn: int, places: list[int], given: Mapping[tuple[int, int], str], kept: IO[str]) -> None:
        self.turn, self.places, self.kept = turn, places, kept
        self.answers = {number: given[place, turn] for number, place in enumerate(places) if (place, turn) in given}

    def keep(self, batch: Mapping[int, str]) -> None:
        """Keep a new batch's answers."""
        self.answers |= batch
        for number, text in batch.items():
            self.kept.write(json.dumps({"row": self.places[number], "turn": self.turn, "prediction": text}) + "\n")
        self.kept.flush()

    def all(self) -> list[str]:
        """Return all answers, of every process of the cell."""
        found = {number: text for part in everyone(self.answers) for number, text in part.items()}
        return [found[number] for number in range(len(self.places))]


def from_first(compute: Callable[[], T]) -> T:
    """Return what the cell's first process computes, or raise in all of them what it raised."""
    value: Any = None
    error: Exception | None = None
    if first():
        try:
            value = compute()
        except Exception as raised:  # noqa: BLE001 (the other processes wait: they must hear of it)
            error = raised
    value, error = the_first((value, error))
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def _given(answers: Path) -> dict[tuple[int, int], str]:
    parts = sorted(answers.parent.glob(f"{answers.stem}.answers-*"))
    given = {(line["row"], line["turn"]): line["prediction"] for part in parts for line in whole_lines(part)}
    wait_for_all()  # nobody writes before everybody has read
    write_lines(answers, whole_lines(answers))
    return given
