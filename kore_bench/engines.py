"""Where cells run: long-lived worker processes on this machine, one compute thread each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

from kore_bench.cache import fetch_folder, forget_folder, keep_folder
from kore_bench.distributed import Place, first, free_port, the_first, wait_for_all, world
from kore_bench.errors import UserError
from kore_bench.grid import Cell
from kore_bench.integrity import damaged, sums, whole
from kore_bench.launch import ALONE, Launch
from kore_bench.plan import Request, make_plan
from kore_bench.results import CHECKPOINTS, Record, RunFolder, needs_checkpoint

_PROGRESS_INTERVAL = 0.2
_PATIENCE = 60.0  # seconds for a training step and its checkpoint


@dataclass(frozen=True)
class Event:
    """What a worker tells: ``kind`` is start, phase or end; ``done`` of ``total`` within a phase; a record at the end."""

    kind: str
    cell: Cell
    phase: str = ""
    done: int = 0
    total: int = 0
    record: Record | None = None


_STARTING = threading.Lock()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the program that is running while a worker process starts, which needs nothing of it.

    The new process would run it again for what it defines: a script that calls `kore_bench.run` outside of
    ``if __name__ == "__main__"`` would start itself, and one that came through standard input is not there.
    """
    with _STARTING:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


class _Worker:
    """The processes that run one cell at a time together: one, or one a GPU; the first of them tells."""

    def __init__(self, job: _Job, devices: tuple[int, ...], world: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.devices = devices
        self.cell: Cell | None = None
        self.pipes: list[Connection] = []
        self.processes: list[multiprocessing.process.BaseProcess] = []
        port = free_port() if world > 1 else 0
        for rank in range(world):
            pipe, other = context.Pipe()
            place = Place(rank=rank, world=world, devices=devices, port=port)
            process = context.Process(target=_work, args=(other, job, place), daemon=True)
            with _without_main():
                process.start()
            other.close()
            self.pipes.append(pipe)
            self.processes.append(process)

    def give(self, cell: Cell) -> None:
        self.cell = cell
        for pipe in self.pipes:
            with contextlib.suppress(OSError):  # a process that died meanwhile: its closed pipe is noticed next
                pipe.send(cell)

    def event(self, ready: Sequence[Any]) -> Event | None:
        """Return what there is to hear; raises EOFError where one of the processes is gone."""
        heard = None
        for number, pipe in enumerate(self.pipes):
            if pipe in ready:
                event = pipe.recv()
                heard = event if number == 0 else heard
        return heard

    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def dismiss(self) -> None:
        """Let the processes end by themselves: there is no further cell."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(10)

    def terminate(self) -> None:
        for process in self.processes:
            process.terminate()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


@dataclass(frozen=True)
class _Job:
    """What every worker of a run needs; ``fresh``: see `run_cells`."""

    request: Request
    folder: Path
    fresh: bool
    launch: Launch


def run_cells(
    request: Request,
    folder: Path,
    cells: Sequence[Cell],
    jobs: int,
    listen: Callable[[Event], None],
    fresh: bool = False,
    launch: Launch = ALONE,
    gpus: int = 0,
) -> None:
    """Run ``cells``, ``jobs`` at once, in order; every cell leaves a record in ``folder``, failed ones too.

    ``launch`` says how many processes share each cell and how. With ``gpus``, every process has one of the machine's
    ``gpus`` GPUs to itself; ``jobs`` times the processes of a cell must not exceed them. ``fresh`` runs cells from their beginning instead of going on with
    what a stopped run left, and references anew instead of taking kept ones. A worker that dies (killed, out of
    memory) fails its cell alone; another takes its place. An interruption ends the workers, after a checkpoint of what
    is training, and passes on; finished cells keep their records.
    """
    job, world = _Job(request, folder, fresh, launch), launch.gpus_per_cell
    waiting = list(cells)
    slots = [tuple(range(slot * world, (slot + 1) * world)) if gpus else () for slot in range(min(jobs, len(waiting)))]
    workers = [_Worker(job, devices, world) for devices in slots]
    try:
        for worker in workers:
            worker.give(waiting.pop(0))
        while workers:
            ready = wait([pipe for worker in workers for pipe in worker.pipes])
            for worker in list(workers):
                try:
                    event = worker.event(ready)
                except (EOFError, OSError):
                    event = _died(worker, folder)
                if event is None:
                    continue
                listen(event)
                if event.kind != "end":
                    continue
                if not worker.alive():
                    worker.kill()
                    workers.remove(worker)
                    if waiting:
                        worker = _Worker(job, worker.devices, world)
                        workers.append(worker)
                if waiting:
                    worker.give(waiting.pop(0))
                elif worker in workers:
                    workers.remove(worker)
                    worker.dismiss()
    finally:
        _end(workers)


def _end(workers: Sequence[_Worker]) -> None:
    """End workers: politely, so that one that trains leaves a checkpoint; by force after a while or a second signal."""
    for worker in workers:
        worker.terminate()
    try:
        limit = time.monotonic() + _PATIENCE
        for process in [process for worker in workers for process in worker.processes]:
            process.join(max(0.0, limit - time.monotonic()))
    finally:
        for worker in workers:
            worker.kill()


def _died(worker: _Worker, folder: Path) -> Event:
    """Return the end of a cell of whose processes one is gone; the others, which wait for it, are ended.

    One that was killed is the cause; else one that failed has said why, in the cell's record.
    """
    gone = wait([process.sentinel for process in worker.processes], timeout=10)
    for process in worker.processes:
        process.join(10 if process.sentinel in gone else 0)
    codes = [process.exitcode for process in worker.processes if process.exitcode is not None]
    worker.kill()
    assert worker.cell is not None
    run = RunFolder(folder)
    record = run.read(worker.cell.name)
    code = min(codes, default=0)
    if record is None or code < 0:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        record = failure(worker.cell, f"the worker process was ended {how}")
        run.write(worker.cell.name, record)
    return Event("end", worker.cell, record=record)


def failure(cell: Cell, reason: str) -> Record:
    """Return the record of a cell that failed for ``reason``."""
    return Record(
        key=cell.key, model=cell.model, method=cell.method, seed=cell.seed, status="failed", reason=reason,
        reference=cell.reference, tuned=cell.tuned,
    )  # fmt: skip


def _work(pipe: Connection, job: _Job, place: Place) -> None:
    """Serve cells from ``pipe`` until it closes (a worker process's main function)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers

    from kore_bench.calibration import plan_knowledge

    # PEFT reads the old name of a transformers property; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    place.enter()
    plan = make_plan(job.request)
    known: dict[int, Any] = {}
    while True:
        try:
            cell: Cell = pipe.recv()
        except EOFError:
            return
        if first():
            pipe.send(Event("start", cell))
        listener = _throttled(pipe, cell) if first() else _quiet
        draw = plan.world.draw(cell.seed)
        if draw not in known:
            known[draw] = plan_knowledge(plan, cell.seed)
        record = _run(plan, cell, known[draw], RunFolder(job.folder), listener, job)
        if first():
            pipe.send(Event("end", cell, record=record))


def _run(
    plan: Any, cell: Cell, knowledge: Any, run: RunFolder, listener: Callable[[str, int, int], None], job: _Job
) -> Record:
    from kore_bench.memory import with_less
    from kore_bench.runner import run_cell

    fresh = job.fresh
    if first() and not fresh and damaged(run, cell.name):
        shutil.rmtree(run.cell(cell.name))
    earlier = the_first(run.read(cell.name) if first() and not fresh else None)
    if first():
        if not needs_checkpoint(earlier):
            run.forget(cell.name)
        if fresh:
            shutil.rmtree(run.cell(cell.name), ignore_errors=True)
    wait_for_all()
    if cell.reference and not fresh and (kept := the_first(_kept(cell, run) if first() else None)) is not None:
        return kept
    try:
        record = with_less(
            job.launch, plan.train.batch_size,
            lambda launch: run_cell(plan, cell, knowledge, run.cell(cell.name), listener, earlier, launch),
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 (whatever went wrong becomes the record of a failed cell)
        record = _failed(cell, error, run.cell(cell.name))
        if world() > 1:  # the others may wait for this process for ever
            run.write(cell.name, record)
            os._exit(1)
    if first():
        if record.status == "done":
            record = replace(record, files=sums(run.cell(cell.name)))
        run.write(cell.name, record)
        if not needs_checkpoint(record):
            shutil.rmtree(run.cell(cell.name) / CHECKPOINTS, ignore_errors=True)
        if record.reference and record.status == "done" and not record.failed_tasks:
            keep_folder(run.cell(cell.name), cell.name)
    return record


def _kept(cell: Cell, run: RunFolder) -> Record | None:
    """Return the record of a reference that was evaluated before, its folder put in place; None where there is none."""
    if not fetch_folder(cell.name, run.cell(cell.name)):
        return None
    kept = whole(run, cell.name)
    if kept is None:
        forget_folder(cell.name)
        shutil.rmtree(run.cell(cell.name))
    return kept


def _failed(cell: Cell, error: Exception, folder: Path) -> Record:
    """Return the record of a cell that an error ended; its traceback stands beside it, its answers go."""
    shutil.rmtree(folder / "predictions", ignore_errors=True)  # it begins anew when it runs again
    trace = folder / "traceback.txt"
    trace.parent.mkdir(parents=True, exist_ok=True)
    trace.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    text = " ".join(str(error).split())
    return failure(cell, text if isinstance(error, UserError) else f"{type(error).__name__}: {text}")


def _quiet(phase: str, done: int, total: int) -> None:
    """Say nothing: the first process of a cell speaks for all."""


def _throttled(pipe: Connection, cell: Cell) -> Callable[[str, int, int], None]:
    """Return a listener that passes on new phases at once, and progress within one a few times a second."""
    last = 0.0

    def listen(phase: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == 0 or done == total or now - last > _PROGRESS_INTERVAL:
            last = now
            try:
                pipe.send(Event("phase", cell, phase, done, total))
            except OSError:  # the run that this worker served is gone: leave its folder alone
                os._exit(1)

    return listen
