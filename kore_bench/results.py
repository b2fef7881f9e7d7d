"""Records on disk: what one cell leaves, written atomically, and read back for resuming and for reports."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from kore_bench.cache import digest, file_digest
from kore_bench.errors import UserError
from kore_bench.measures import Score

FORMAT = 1
"""Of records and plans."""
POOLED = "benchmarks"
"""Stands among the tasks of a record's scores for K.R and the dimensions over all benchmarks of retention."""
FRONTIER = "frontier.jsonl"
"""In a cell's folder: its points at smaller scales, one a line: ``scale``, ``K.A`` and ``K.R`` (each a Score)."""
_SUM = "sha256"
CHECKPOINTS = "checkpoints"
"""The folder within a cell's that is there until its record stands."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a cell cost.

    ``seconds`` maps phases (load, data, measure, train, evaluate, ...) to wall time; ``old_samples`` counts the
    distinct old-knowledge samples that the method read; ``peak_memory`` is in bytes (resident set on a CPU, allocated
    memory on a GPU).
    """

    trainable_parameters: int = 0
    total_parameters: int = 0
    examples: int = 0
    samples: int = 0
    steps: int = 0
    tokens: int = 0
    old_samples: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one task in a cell: ``status`` is ``done``, ``skipped`` or ``failed``, with the reason.

    ``metric`` names the headline figure among its scores, ``dimension`` the dimension of retention that it measures (empty: it is no part of the paper's K.R), ``judge``
    the name of the model that graded its answers, ``limit`` the number of questions that were drawn (0: all are
    asked), ``note`` what a reader of its scores must know.
    """

    status: str = "done"
    reason: str = ""
    metric: str = ""
    dimension: str = ""
    judge: str = ""
    limit: int = 0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one cell (model x method x seed) leaves.

    ``status`` is ``done``, ``failed`` or ``skipped``, with the ``reason`` of the last two. ``reference`` marks the rows
    that train nothing (``base``, ``in-context``). ``scores`` maps task -> measure -> Score (0-100, with the number of
    questions and a 95 % interval), ``tasks`` maps task -> Outcome. ``settings`` holds every hyper-parameter, so that
    the cell can be run again from its record. ``tuned`` says where the learning rate came from. ``files`` maps what lies
    beside the record (answers, the training log, the adapter) to its SHA-256; the record's own stands in its JSON.
    """

    key: str
    model: str
    method: str
    seed: int
    status: str
    reason: str = ""
    reference: bool = False
    tuned: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    tasks: Mapping[str, Outcome] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    versions: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed_tasks(self) -> dict[str, str]:
        """The tasks that could not be scored, with the reasons: they alone run again."""
        return {name: outcome.reason for name, outcome in self.tasks.items() if outcome.status == "failed"}

    @property
    def shortfall(self) -> str:
        """What the cell lacks, in words: its own reason, or the tasks that failed; empty where it lacks nothing."""
        return self.reason or "; ".join(f"{name} failed: {reason}" for name, reason in self.failed_tasks.items())

    def score(self, measure: str) -> Score | None:
        """Return the score called ``measure`` (such as ``K.A``) of whichever task gives it, or None.

        K.R and a dimension are those of the benchmarks, where some were scored, before those of the data's own task.
        """
        for task in (POOLED, *self.scores):
            if measure in self.scores.get(task, {}):
                return self.scores[task][measure]
        return None

    def to_json(self) -> str:
        """Return the record as indented JSON with sorted keys, and the SHA-256 of all else in it."""
        body = json.loads(json.dumps({"format": FORMAT, **asdict(self)}))  # as it will be read: keys are texts
        return json.dumps({**body, _SUM: digest(body)}, indent=1, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read a record; raises ValueError where the text is no record of this format, or not as it was written."""
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise ValueError(f"not a record of format {FORMAT}")
        expected = raw.pop(_SUM, None)
        if expected is not None and expected != digest(raw):  # records of earlier versions have none
            raise ValueError("not the record that was written: its SHA-256 is another")
        del raw["format"]
        raw["scores"] = {
            task: {name: Score(**score) for name, score in measures.items()} for task, measures in raw["scores"].items()
        }
        raw["tasks"] = {task: Outcome(**outcome) for task, outcome in raw.get("tasks", {}).items()}
        raw["cost"] = Cost(**raw["cost"])
        return cls(**raw)


def needs_checkpoint(record: Record | None) -> bool:
    """Return whether the cell's trained weights are needed again: some task was not scored and is asked once more."""
    return record is not None and bool(record.failed_tasks)


@dataclass(frozen=True)
class RunFolder:
    """One run on disk: ``plan.yaml``, ``environment.json``, ``tuning.json`` and ``cells/<cell>/``."""

    path: Path

    def cell(self, name: str) -> Path:
        """Return the folder of the cell called ``name`` (which may not exist yet)."""
        return self.path / "cells" / name

    def read(self, name: str) -> Record | None:
        """Return the record of a cell, or None where it is missing or damaged (the cell then runs again)."""
        try:
            return Record.from_json((self.cell(name) / "record.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def write(self, name: str, record: Record) -> None:
        """Write a cell's record; a cell is done when its record stands."""
        write_text(self.cell(name) / "record.json", record.to_json() + "\n")

    def forget(self, name: str) -> None:
        """Drop a cell's record: the cell is being run again."""
        (self.cell(name) / "record.json").unlink(missing_ok=True)

    def records(self) -> list[Record]:
        """Return the records of the cells that the plan names, in the plan's order.

        Raises UserError where a record was written in another format, by another version.
        """
        names = [str(name) for name in self.plan()["cells"]]
        found = {name: self.read(name) for name in names}
        for name in (name for name, record in found.items() if record is None):
            self._refuse_other_format(self.cell(name) / "record.json")
        return [record for record in found.values() if record is not None]

    def _refuse_other_format(self, file: Path) -> None:
        try:
            written = json.loads(file.read_text(encoding="utf-8"))["format"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return  # missing or damaged: the cell runs again
        if written != FORMAT:
            raise UserError(
                f"{file} was written by another version of kore-bench (record format {written}; this one reads {FORMAT}): "
                "use that version, or run the cells again into another folder with --name"
            )

    def plan(self) -> dict[str, Any]:
        """Return the plan as written; raises UserError where the folder is not a run."""
        file = self.path / "plan.yaml"
        try:
            plan = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError:
            raise UserError(f"{self.path} is not a run folder: it has no plan.yaml") from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
        plan = plan if isinstance(plan, dict) else {}
        if plan.get("format", FORMAT) != FORMAT:
            raise UserError(
                f"{file} has format {plan['format']}, and this version of kore-bench reads format {FORMAT}: use the "
                "version that made the run"
            )
        cells = plan.get("cells")
        if not isinstance(cells, list) or not all(isinstance(name, str) for name in cells):
            raise UserError(f"{file} is not a plan of this version: it lists no cells")
        return plan

    def tuning(self) -> list[dict[str, Any]]:
        """Return the tuning trials behind this run's learning rates (empty where nothing was tuned)."""
        file = self.path / "tuning.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []

    def name_of(self, record: Record) -> str:
        """Return the folder name of a record's cell."""
        return cell_name(record.model, record.method, record.seed, record.key)

    def training_log(self, record: Record) -> list[dict[str, float]]:
        """Return the rows of a cell's ``train.jsonl``: step, loss, learning_rate and ``penalty/<component>``."""
        return list(read_lines(self.cell(self.name_of(record)) / "train.jsonl"))

    def predictions(self, record: Record, task: str) -> list[dict[str, Any]]:
        """Return the rows of a cell's predictions on ``task``: id, images, text, answer, prediction, correct, ...

        Raises UserError where the file is not what was written: nothing is compared on damaged answers.
        """
        name = f"predictions/{task}.jsonl"
        file = self.cell(self.name_of(record)) / name
        if name in record.files and (not file.exists() or file_digest(file) != record.files[name]):
            raise UserError(
                f"{file} is missing or damaged (its SHA-256 is not the one in the cell's record): "
                "the command that made the run asks these questions again"
            )
        return list(read_lines(file))


def cell_name(model: str, method: str, seed: int, key: str) -> str:
    """Return the folder name of a cell: readable, and unique by the start of its key."""
    return f"{model}--{method}--seed{seed}--{key[:10]}"


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file; a missing file has none."""
    if file.exists():
        with file.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines)


def whole_lines(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file that was being written when its writer was stopped: a cut last line goes."""
    if not file.exists():
        return []
    *lines, _ = file.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines]


def write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file atomically."""
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(file: Path, text: str) -> None:
    """Write ``text`` as `replacing` does: readers see the old file or the whole new one."""
    with replacing(file) as stream:
        stream.write(text)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[IO[str]]:
    """Yield a stream under a temporary name, which is synced and takes the place of ``file`` when the block ends.

    Where the block raises, the old file stays.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
