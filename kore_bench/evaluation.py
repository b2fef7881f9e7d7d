"""Asks a cell's tasks of its model: answers kept as they come, one task's failure told apart from the others' scores."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kore_bench.benchmarks import pool
from kore_bench.distributed import PeerError, attempt, everyone, first, rank, wait_for_all, world
from kore_bench.errors import UserError
from kore_bench.examples import Knowledge, Question
from kore_bench.forgetting.options import choose
from kore_bench.judge import JudgeError
from kore_bench.lmm import LMM
from kore_bench.measures import Score
from kore_bench.results import POOLED, Outcome, Record, read_lines, whole_lines, write_lines
from kore_bench.task import ChoiceTask, Task, ToolkitTask

Phase = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Begins a phase of the cell and gives what tells of its progress."""


@dataclass(kw_only=True)
class Evaluation:
    """What the tasks of a cell gave: the record's parts of the same names."""

    scores: dict[str, Mapping[str, Score]] = field(default_factory=dict)
    tasks: dict[str, Outcome] = field(default_factory=dict)
    diagnostics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Asks tasks of one loaded model; predictions go below ``folder``, the cell's own.

    ``seen_skills`` are the skills whose old samples the cell's method could read, ``seen_questions`` how many of a
    task's own questions it has read (`kore_bench.calibration.seen_questions`): the task's note says so.
    """

    model: LMM
    knowledge: Knowledge
    folder: Path
    in_context: bool
    seen_skills: frozenset[str]
    seen_questions: Mapping[str, int] = field(default_factory=dict)

    def evaluate(self, tasks: tuple[Task, ...], phase: Phase, earlier: Record | None) -> Evaluation:
        """Ask every task that can be asked, and score it; tasks that ``earlier``, of the same weights, has scored stay.

        A task that fails leaves its reason, and its answers for the next time. Where several processes share the cell
        it fails in all of them as soon as it does in one.
        """
        found = Evaluation()
        for task in tasks:
            name = task.card.name
            if earlier and name in earlier.scores:
                _take(found, earlier, name)
            elif reason := task.skip(self.knowledge):
                found.tasks[name] = _outcome(task, "skipped", reason)
            else:
                with phase("evaluate") as progress:
                    self._try(task, found, progress)
        if pooled := pool(found.scores, found.tasks):
            found.scores[POOLED] = pooled
        return found

    def _try(self, task: Task, found: Evaluation, progress: Callable[[int, int], None]) -> None:
        name = task.card.name
        self.folder.mkdir(parents=True, exist_ok=True)
        trace = self.folder / f"traceback-{name}.txt"
        trace.unlink(missing_ok=True)

        def scored() -> dict[str, Score]:
            if isinstance(task, ToolkitTask):
                return self._let(task, found.diagnostics, progress)
            return _directed(task, self._ask(task, progress))

        result = attempt(scored, _sentence)
        if isinstance(result, Exception):
            if first():
                trace.write_text("".join(traceback.format_exception(result)), encoding="utf-8")
            found.tasks[name] = _outcome(task, "failed", _sentence(result))
        else:
            found.scores[name] = result
            notes = [str(found.diagnostics.pop(f"{name}/note", "")), task.note(self.knowledge)]
            if count := self.seen_questions.get(name):
                notes.append(f"{count} of its questions are among the old samples that the method read")
            found.tasks[name] = _outcome(task, "done", note="; ".join(filter(None, notes)))

    def _ask(self, task: Task, progress: Callable[[int, int], None]) -> dict[str, Score]:
        questions = task.asked(self.knowledge)
        prompts = [(task.prompt(question, in_context=self.in_context), question.images) for question in questions]
        file = self._file(task)
        given = _given(file, len(questions))
        own: dict[int, str] = {}
        with _answers(file).open("a", encoding="utf-8") as kept:

            def keep(batch: Mapping[int, str]) -> None:
                own.update(batch)
                rows = ({"index": index, "prediction": text} for index, text in batch.items())
                kept.write("".join(json.dumps(row) + "\n" for row in rows))
                kept.flush()

            passing: dict[str, Any] = {"progress": progress, "given": given, "keep": keep, "share": (rank(), world())}
            if isinstance(task, ChoiceTask):
                choose(self.model, prompts, task.options(self.knowledge, questions), **passing)
            else:
                self.model.generate(prompts, max_new_tokens=task.max_new_tokens, **passing)
        answers = {index: text for part in (given, *everyone(own)) for index, text in part.items()}
        predictions = [answers[index] for index in range(len(questions))]
        scores = task.score(questions, predictions, seen_skills=self.seen_skills)
        _finish(file, [self._row(task, *pair) for pair in zip(questions, predictions, strict=True)])
        return scores

    def _let(
        self, task: ToolkitTask, diagnostics: dict[str, Any], progress: Callable[[int, int], None]
    ) -> dict[str, Score]:
        file = self._file(task)
        self.model.model.eval()
        found = task.evaluate(self.model, _answers(file), progress)
        wait_for_all()  # nobody deletes answers before everybody has read them
        _finish(file, list(found.rows))
        diagnostics |= {f"{task.card.name}/{name}": fact for name, fact in found.facts.items()}
        return found.scores

    def _file(self, task: Task) -> Path:
        file = self.folder / "predictions" / f"{task.card.name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _row(self, task: Task, question: Question, prediction: str) -> dict[str, Any]:
        return {
            "id": question.id,
            "images": [self.knowledge.name_of(image) for image in question.images],
            "text": question.text,
            "answer": question.answer,
            "prediction": prediction,
            "correct": task.correct(question, prediction),
            "type": question.type,
            "kind": question.kind,
            "group": question.group,
            **({} if question.asked is None else {"asked": question.asked}),
        }


def _directed(task: Task, scores: dict[str, Score]) -> dict[str, Score]:
    """Return the scores with the headline figure's direction, which the task's card gives."""
    if task.card.higher_is_better is not False:
        return scores
    return scores | {task.card.metric: replace(scores[task.card.metric], higher_is_better=False)}


def _outcome(task: Task, status: str, reason: str = "", note: str = "") -> Outcome:
    """Return what came of a task, with what its card and its settings say of its scores."""
    judge = str(getattr(task, "judge", "")) if task.card.judge else ""
    return Outcome(
        status=status, reason=reason, metric=task.card.metric, dimension=task.card.dimension, judge=judge,
        limit=task.limit, note=note,
    )  # fmt: skip


def _take(found: Evaluation, earlier: Record, name: str) -> None:
    """Take over what an earlier evaluation of the same weights has scored."""
    found.scores[name], found.tasks[name] = earlier.scores[name], earlier.tasks[name]
    found.diagnostics |= {key: fact for key, fact in earlier.diagnostics.items() if key.startswith(f"{name}/")}


def _sentence(error: Exception) -> str:
    """Return an error on one line, with its class unless it is meant for the user as it is."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError | JudgeError | PeerError) else f"{type(error).__name__}: {text}"


def _finish(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write a task's predictions; the answers that were kept meanwhile go."""
    if first():
        write_lines(file, rows)
        for part in _all_answers(file):
            part.unlink()
    wait_for_all()


def _answers(file: Path) -> Path:
    """Return where this process keeps the answers behind a predictions file while they are being given."""
    return file.with_suffix(f".answers-{rank()}")


def _all_answers(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.stem}.answers-*"))


def _given(file: Path, questions: int) -> dict[int, str]:
    """Return the answers that an earlier, stopped evaluation of the same model gave, by the question's index."""
    if file.exists():
        finished = [row["prediction"] for row in read_lines(file)]
        given = dict(enumerate(finished)) if len(finished) == questions else {}
    else:
        given = {row["index"]: row["prediction"] for part in _all_answers(file) for row in whole_lines(part)}
    wait_for_all()  # nobody writes before everybody has read
    write_lines(_answers(file), whole_lines(_answers(file)))
    return given
