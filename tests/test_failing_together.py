"""What several processes of one cell do where one of them fails at a task: all give it up, and ask the next (gloo)."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kore_bench.distributed import Place, attempt, everyone, first, free_port, rank, wait_for_all
from kore_bench.errors import UserError
from kore_bench.evaluation import Evaluation, Evaluator
from kore_bench.examples import Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.measures import Score
from kore_bench.registry import Registry
from kore_bench.results import Outcome
from kore_bench.task import Card, Task, ToolkitTask
from kore_bench.task import Evaluation as Found

LONGEST = 240  # seconds until a pair of processes counts as locked


@dataclass(frozen=True, kw_only=True)
class Failing(ToolkitTask):
    """Fails in the processes ``where``, before or after (``late``) they have met."""

    card: ClassVar[Card] = Card(name="failing", title="", source="", metric="m", licence="", citation="")
    where: tuple[int, ...] = ()
    late: bool = False

    def skip(self, knowledge: Knowledge) -> str | None:
        return None

    def evaluate(self, model: Any, answers: Path, progress: Callable[[int, int], None]) -> Found:
        if self.late:
            assert everyone(rank()) == list(range(len(everyone(0))))
        if rank() in self.where:
            raise (UserError if self.late else RuntimeError)(f"no memory for {rank()}")
        wait_for_all()
        value = float(sum(everyone(1)))
        return Found(scores={"m": Score(value=value, low=value, high=value, n=1)})


def named(name: str, **settings: Any) -> Task:
    card = Card(name=name, title="", source="", metric="m", licence="", citation="")
    return type("Named", (Failing,), {"card": card, "__module__": __name__})(**settings)  # type: ignore[no-any-return]


@contextlib.contextmanager
def no_phase(name: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def evaluate(data: Path, folder: Path) -> Evaluation:
    """Ask tasks of which several fail, one after the other, and between them some that do not."""
    from kore_bench.conformance.prepared import mini_card
    from kore_bench.lmm import LMM

    asking = Registry().find("tasks", "adaptation")
    tasks = (
        named("second", where=(1,)), asking, named("first", where=(0,), late=True), named("fine"),
        named("both", where=(0, 1)), named("late", where=(1,), late=True), named("last", late=True),
    )  # fmt: skip
    evaluator = Evaluator(
        model=LMM.load(mini_card()), knowledge=read_knowledge(data), folder=folder, in_context=False,
        seen_skills=frozenset(),
    )  # fmt: skip
    return evaluator.evaluate(tasks, no_phase, None)


def serve(place: Place, data: Path, folder: Path, pipe: Any) -> None:
    place.enter()
    found = evaluate(data, folder)
    pipe.send((found.tasks, found.scores))


def together(data: Path, folder: Path) -> list[Any]:
    """Return what `evaluate` gives in each of two processes that share a cell."""
    context = multiprocessing.get_context("spawn")
    pipes, processes, port = [], [], free_port()
    for number in range(2):
        pipe, other = context.Pipe()
        place = Place(rank=number, world=2, port=port)
        processes.append(context.Process(target=serve, args=(place, data, folder, other), daemon=True))
        processes[-1].start()
        other.close()
        pipes.append(pipe)
    try:
        assert all(pipe.poll(LONGEST) for pipe in pipes), "the processes wait for each other"
        return [pipe.recv() for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_a_task_that_fails_in_one_process_fails_in_all_and_the_others_are_scored(
    small_world: Path, tmp_path: Path
) -> None:
    (tasks, scores), (others, same) = together(small_world, tmp_path / "two")
    assert {name: outcome.status for name, outcome in tasks.items()} == {
        "second": "failed", "adaptation": "done", "first": "failed", "fine": "done", "both": "failed", "late": "failed",
        "last": "done",
    }  # fmt: skip
    assert {name: outcome.reason for name, outcome in tasks.items() if outcome.reason} == {
        "second": "in process 1 of the cell: RuntimeError: no memory for 1",
        "first": "no memory for 0",
        "both": "RuntimeError: no memory for 0",
        "late": "in process 1 of the cell: no memory for 1",
    }
    assert {name: outcome.status for name, outcome in others.items()} == {
        name: outcome.status for name, outcome in tasks.items()
    }
    assert scores == same
    assert scores["fine"]["m"].value == scores["last"]["m"].value == 2
    alone = evaluate(small_world, tmp_path / "one")
    assert alone.scores["adaptation"] == scores["adaptation"]
    assert alone.tasks["second"] == Outcome(metric="m")
    traces = {file.name for file in (tmp_path / "two").glob("traceback-*")}
    assert traces == {f"traceback-{name}.txt" for name in ("second", "first", "both", "late")}
    assert "raise (UserError if self.late" in (tmp_path / "two" / "traceback-second.txt").read_text()


def test_an_attempt_alone_is_a_value_or_its_error() -> None:
    assert first()
    assert attempt(lambda: 3) == 3
    failed = attempt(lambda: 1 / 0)
    assert isinstance(failed, ZeroDivisionError)
    with pytest.raises(KeyboardInterrupt):
        attempt(interrupted)


def interrupted() -> int:
    raise KeyboardInterrupt
