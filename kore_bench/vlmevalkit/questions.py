"""A data set's questions as the model is asked them, and as examples to calibrate on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from kore_bench.cache import cache_folder
from kore_bench.examples import Example, Turn
from kore_bench.vlmevalkit.client import Toolkit, toolkit


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One row of a data set: its ``place`` in the table, the user's turns as parts, and the right answers, one a turn.

    A part is ``{"type": "text" | "image", "value": TEXT | PATH}``, in the order in which the model sees them. ``counted``
    says whether the headline figure counts the row.
    """

    place: int
    id: str
    turns: tuple[tuple[dict[str, str], ...], ...]
    answers: tuple[str, ...]
    group: str
    category: str
    counted: bool

    def images(self, turns: int) -> list[Path]:
        """Return the pictures of the first ``turns`` turns, in order."""
        return [Path(part["value"]) for turn in self.turns[:turns] for part in turn if part["type"] == "image"]

    def text(self, turn: int) -> str:
        """Return the words of one turn, a line break between parts."""
        return "\n".join(part["value"] for part in self.turns[turn] if part["type"] == "text")

    def dialogue(self, said: Sequence[str]) -> list[dict[str, Any]]:
        """Return the messages up to the turn after those that were answered by ``said``, as chat templates read them."""
        messages: list[dict[str, Any]] = []
        for number, turn in enumerate(self.turns[: len(said) + 1]):
            content = [
                {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["value"]}
                for part in turn
            ]
            messages.append({"role": "user", "content": content})
            if number < len(said):
                messages.append({"role": "assistant", "content": [{"type": "text", "text": said[number]}]})
        return messages


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked of a data set of ``total`` rows; ``kind`` is VLMEvalKit's type (``MT``: several turns)."""

    rows: tuple[Asked, ...]
    total: int
    kind: str
    file: str


def read_questions(
    kit: Toolkit, name: str, *, columns: Sequence[str] = (), groups: str = "row", stratum: str = "",
    counted: Mapping[str, str] | None = None, limit: int = 0, offline: bool = False,
) -> Questions:  # fmt: skip
    """Return the questions of a data set; its pictures are written under ``LMUData``, its file is fetched if missing.

    With a ``limit``, whole groups by the rule ``groups`` (see `sampling.group_of`) of the rows that ``counted`` picks, over
    all values of the column ``stratum``. Raises UserError for an unknown name, a missing column or a broken picture.
    """
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vlmevalkit-") as folder:
        file = Path(folder) / "questions.jsonl"
        with FileLock(locks / f"vlmevalkit-{name}.lock"):  # a picture that another process is writing looks whole
            about = kit.ask(
                "questions", name=name, file=str(file), columns=list(columns), groups=groups, stratum=stratum,
                counted=dict(counted or {}), limit=limit, offline=offline,
            )  # fmt: skip
        rows = [_asked(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    return Questions(rows=tuple(rows), total=about["rows"], kind=about["kind"], file=about["file"])


def samples(name: str, number: int = 0, *, python: str = "", offline: bool = False) -> list[Example]:
    """Return ``number`` rows of a VLMEvalKit data set (0: all) that have a right answer, drawn with a fixed seed.

    Pictures stand in front of the first question, as everywhere in training. Raises UserError where VLMEvalKit is
    missing, the name is unknown, or the data set cannot be read.
    """
    kit = toolkit(python, f"vlmeval:{name}")
    found = read_questions(kit, name, limit=number, offline=offline)
    return [
        Example(
            id=f"{name}/{row.id}", images=tuple(row.images(len(row.turns))), source=name,
            turns=tuple(Turn(question=row.text(turn), answer=answer) for turn, answer in enumerate(row.answers)),
        )
        for row in found.rows if all(answer and answer != "nan" for answer in row.answers)
    ]  # fmt: skip


def _asked(row: dict[str, Any]) -> Asked:
    turns = tuple(tuple(turn) for turn in row["turns"])
    return Asked(
        place=row["place"], id=row["id"], turns=turns, answers=tuple(row["answers"]), group=row["group"],
        category=row["category"], counted=row["counted"],
    )  # fmt: skip
