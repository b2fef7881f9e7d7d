"""Where cells run: long-lived worker processes on this machine, one compute thread each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from kore_bench.cache import fetch_folder, forget_folder, keep_folder
from kore_bench.errors import UserError
from kore_bench.grid import Cell
from kore_bench.plan import Request, make_plan
from kore_bench.results import CHECKPOINTS, Record, RunFolder

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


class _Worker:
    def __init__(self, request: Request, folder: Path, fresh: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, request, folder, fresh), daemon=True)
        self.process.start()
        other.close()
        self.cell: Cell | None = None

    def give(self, cell: Cell) -> None:
        self.cell = cell
        with contextlib.suppress(OSError):  # a worker that died meanwhile: its closed pipe is noticed next
            self.pipe.send(cell)


def run_cells(
    request: Request,
    folder: Path,
    cells: Sequence[Cell],
    jobs: int,
    listen: Callable[[Event], None],
    fresh: bool = False,
) -> None:
    """Run ``cells`` in ``jobs`` worker processes, in order; every cell leaves a record in ``folder``, failed ones too.

    ``fresh`` runs cells from their beginning instead of going on with what a stopped run left, and references anew
    instead of taking kept ones. A worker that dies (killed, out of memory) fails its cell alone; another takes its
    place. An interruption ends the workers, after a checkpoint of what is training, and passes on; finished cells keep
    their records.
    """
    waiting = list(cells)
    workers = [_Worker(request, folder, fresh) for _ in range(min(jobs, len(waiting)))]
    try:
        for worker in workers:
            worker.give(waiting.pop(0))
        while workers:
            ready = wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                try:
                    event = worker.pipe.recv()
                except (EOFError, OSError):
                    event = _died(worker, folder)
                listen(event)
                if event.kind != "end":
                    continue
                if not worker.process.is_alive():
                    workers.remove(worker)
                    if waiting:
                        worker = _Worker(request, folder, fresh)
                        workers.append(worker)
                if waiting:
                    worker.give(waiting.pop(0))
                elif worker in workers:
                    worker.pipe.close()
                    workers.remove(worker)
                    worker.process.join(10)
    finally:
        _end(workers)


def _end(workers: Sequence[_Worker]) -> None:
    """End workers: politely, so that one that trains leaves a checkpoint; by force after a while or a second signal."""
    for worker in workers:
        worker.process.terminate()
    try:
        limit = time.monotonic() + _PATIENCE
        for worker in workers:
            worker.process.join(max(0.0, limit - time.monotonic()))
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def _died(worker: _Worker, folder: Path) -> Event:
    worker.process.join()
    code = worker.process.exitcode or 0
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    assert worker.cell is not None
    record = failure(worker.cell, f"the worker process was ended {how}")
    RunFolder(folder).write(worker.cell.name, record)
    return Event("end", worker.cell, record=record)


def failure(cell: Cell, reason: str) -> Record:
    """Return the record of a cell that failed for ``reason``."""
    return Record(
        key=cell.key, model=cell.model, method=cell.method, seed=cell.seed, status="failed", reason=reason,
        reference=cell.reference, tuned=cell.tuned,
    )  # fmt: skip


def _work(pipe: Connection, request: Request, folder: Path, fresh: bool) -> None:
    """Serve cells from ``pipe`` until it closes (a worker's main function)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers

    from kore_bench.formats import read_knowledge

    # PEFT reads the old name of a transformers property; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    plan = make_plan(request)
    knowledge = read_knowledge(plan.knowledge_folder())
    while True:
        try:
            cell: Cell = pipe.recv()
        except EOFError:
            return
        pipe.send(Event("start", cell))
        record = _run(plan, cell, knowledge, RunFolder(folder), _throttled(pipe, cell), fresh)
        pipe.send(Event("end", cell, record=record))


def _run(
    plan: Any, cell: Cell, knowledge: Any, run: RunFolder, listener: Callable[[str, int, int], None], fresh: bool
) -> Record:
    from kore_bench.runner import run_cell

    if fresh:
        shutil.rmtree(run.cell(cell.name), ignore_errors=True)
    if cell.reference and not fresh and fetch_folder(cell.name, run.cell(cell.name)):
        kept = run.read(cell.name)
        if kept is not None:
            return kept
        forget_folder(cell.name)
    try:
        record = run_cell(plan, cell, knowledge, run.cell(cell.name), listener)
    except Exception as error:  # noqa: BLE001 (whatever went wrong becomes the record of a failed cell)
        shutil.rmtree(run.cell(cell.name) / "predictions", ignore_errors=True)  # it begins anew when it runs again
        trace = run.cell(cell.name) / "traceback.txt"
        trace.parent.mkdir(parents=True, exist_ok=True)
        trace.write_text(traceback.format_exc(), encoding="utf-8")
        text = " ".join(str(error).split())
        record = failure(cell, text if isinstance(error, UserError) else f"{type(error).__name__}: {text}")
    run.write(cell.name, record)
    shutil.rmtree(run.cell(cell.name) / CHECKPOINTS, ignore_errors=True)
    if record.reference and record.status == "done":
        keep_folder(run.cell(cell.name), cell.name)
    return record


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
