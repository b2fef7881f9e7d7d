"""What every cell answered: predictions read once into arrays that summaries and the question browser share."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kore_bench import sheet
from kore_bench.errors import UserError
from kore_bench.results import Record, RunFolder, read_lines

State = tuple[tuple[str, int, int, int], ...]
"""Which files stand in a run folder, by path, size, time of writing (ns) and inode: equal states, equal contents."""


class Asked(NamedTuple):
    """One question as the predictions tell it; ``images`` are relative to the data folder."""

    id: str
    text: str
    answer: str
    type: str
    kind: str
    group: str
    images: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Answers:
    """All answers that the cells of one model gave on one task.

    ``cells`` maps a cell's name to its row in ``correct`` (``[cells, questions]``, 0 to 1, NaN where there is no
    answer) and ``said`` (``[cells, questions]``, the place of the answer in ``texts``, -1 where there is none).
    """

    task: str
    questions: tuple[Asked, ...]
    cells: Mapping[str, int]
    correct: NDArray[np.float64]
    said: NDArray[np.int32]
    texts: tuple[str, ...]

    @cached_property
    def groups(self) -> NDArray[np.str_]:
        """What each question's answer depends on jointly, ``[questions]``."""
        return np.array([question.group for question in self.questions], dtype=np.str_)

    @cached_property
    def types(self) -> NDArray[np.str_]:
        """Each question's type, ``[questions]``."""
        return np.array([question.type for question in self.questions], dtype=np.str_)

    def mean(self, cells: Sequence[str]) -> NDArray[np.float64]:
        """Return how right ``cells`` answer each question, ``[questions]``: the mean of those that answered, or NaN."""
        rows = self.correct[[self.cells[name] for name in cells if name in self.cells]]
        answered = (~np.isnan(rows)).sum(axis=0)
        total: NDArray[np.float64] = np.nansum(rows, axis=0)
        mean = np.full(len(self.questions), np.nan)
        np.divide(total, answered, out=mean, where=answered > 0)
        return mean


def state_of(run: RunFolder) -> State:
    """Return the state of everything that summaries and answers are read from."""
    files = [
        run.path / "plan.yaml",
        *run.path.glob("cells/*/record.json"),
        *run.path.glob("cells/*/predictions/*.jsonl"),
    ]
    stats = [(file, file.stat()) for file in sorted(files) if file.exists()]
    return tuple((str(file), stat.st_size, stat.st_mtime_ns, stat.st_ino) for file, stat in stats)


def answers_of(run: RunFolder, model: str) -> dict[str, Answers]:
    """Return task -> the answers of a model's finished cells, tasks in the plan's order; read once a state of the run.

    Raises UserError where a predictions file is damaged.
    """
    return _answers(run, model, state_of(run))


def sheet_of(run: RunFolder, model: str, methods: Sequence[str]) -> sheet.Sheet:
    """Return what `kore_bench.sheet.read_sheet` reads for ``methods`` of a model, from the answers read already."""
    records = [record for record in run.records() if record.model == model and record.status == "done"]
    kept = [record for record in records if record.method in methods]
    names, seeds = tuple(dict.fromkeys(record.method for record in kept)), sorted({record.seed for record in kept})
    answers = answers_of(run, model)
    tasks = [
        answers[task] for task in dict.fromkeys(task for record in kept for task in record.scores) if task in answers
    ]
    asked = [
        sheet.Asked(one.task, question.id, question.type, question.group, question.text, question.answer)
        for one in tasks
        for question in one.questions
    ]
    values = np.full((len(names), len(seeds), len(asked)), np.nan)
    for record in kept:
        cell = run.name_of(record)
        rows = [one.correct[one.cells[cell]] for one in tasks]
        values[names.index(record.method), seeds.index(record.seed)] = np.concatenate(rows)
    return sheet.make_sheet(
        names, tuple(seeds), tuple(asked), values, sheet.draws_of(kept, seeds), sheet.falling_of(kept)
    )


@lru_cache(maxsize=4)
def _answers(run: RunFolder, model: str, state: State) -> dict[str, Answers]:
    records = [record for record in run.records() if record.model == model and record.status == "done"]
    asked = list((run.plan().get("request") or {}).get("tasks") or ())
    tasks = dict.fromkeys([*asked, *(task for record in records for task in record.scores)])
    found = {task: _read(run, records, task) for task in tasks}
    return {task: answers for task, answers in found.items() if answers.questions}


def _read(run: RunFolder, records: Sequence[Record], task: str) -> Answers:
    places: dict[str, int] = {}
    questions: list[Asked] = []
    texts: dict[str, int] = {}
    rows: dict[str, list[tuple[int, float, int]]] = {}
    for record in records:
        name = run.name_of(record)
        given = rows.setdefault(name, [])
        file = run.cell(name) / "predictions" / f"{task}.jsonl"
        try:
            for row in read_lines(file):
                place = places.setdefault(str(row["id"]), len(questions))
                if place == len(questions):
                    questions.append(_asked(row))
                text = row.get("prediction")
                code = -1 if text is None else texts.setdefault(sys.intern(text), len(texts))
                given.append((place, float(row["correct"]), code))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} line {len(given) + 1} is no prediction ({type(error).__name__}: {error}): "
                f"remove the cell's folder and run again"
            ) from None
    correct = np.full((len(rows), len(questions)), np.nan)
    said = np.full((len(rows), len(questions)), -1, dtype=np.int32)
    for index, given in enumerate(rows.values()):
        if given:
            columns, values, codes = zip(*given, strict=True)
            correct[index, list(columns)], said[index, list(columns)] = values, codes
    cells = {name: index for index, name in enumerate(rows)}
    return Answers(task, tuple(questions), cells, correct, said, tuple(texts))


def _asked(row: Mapping[str, Any]) -> Asked:
    text, answer, type, kind = (str(row.get(name) or "") for name in ("text", "answer", "type", "kind"))
    group, images = str(row.get("group") or row["id"]), tuple(row.get("images") or ())
    return Asked(str(row["id"]), text, answer, type, kind, group, images)
