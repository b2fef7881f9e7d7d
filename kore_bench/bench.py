"""One whole run: its folder, the cells still to do, the engine, and the reports."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from kore_bench.calibration import draws
from kore_bench.card import TrainSettings
from kore_bench.engines import Event, run_cells
from kore_bench.errors import UserError
from kore_bench.generators.chosen import check_ready
from kore_bench.grid import Cell, judged, list_cells, versions
from kore_bench.integrity import whole
from kore_bench.launch import ALONE, Launch
from kore_bench.offline import go_offline
from kore_bench.plan import OldSettings, Plan, Request, check_chat, make_plan, preflight
from kore_bench.results import CHECKPOINTS, FORMAT, RunFolder, needs_checkpoint, write_text

Rerun = Literal["never", "failed", "always"]

_FREE = ("methods", "seeds", "frontier", "plugins", "offline", "judge_url", "base_url")
"""What may change when a run goes on: which cells it has, and how things are got."""


def prepare(request: Request, folder: Path) -> tuple[Plan, list[Cell]]:
    """Plan a request, check everything that can be checked, and list its cells; loads no model and writes nothing."""
    if request.offline:
        go_offline()
    plan = make_plan(request)
    run = RunFolder(folder)
    if folder.exists() and any(folder.iterdir()):
        check_same_run(run, plan)
    knowledge = preflight(plan, folder)
    return plan, list_cells(plan, knowledge, draws(plan))


def check_name(name: str) -> str:
    """Return the name of a run; raises UserError for one that is no plain name of a folder."""
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise UserError(f"--name {name} must be a plain name, such as rank64: --runs says where its folder lies")
    return name


def check_same_run(run: RunFolder, plan: Plan) -> None:
    """Raise UserError where ``run`` was made under another plan; only methods and seeds may be added to a run.

    A judge may be named later, see `adopt`. An option that the run's version did not have counts as its default, which
    says what that version did.
    """
    old = run.plan()
    new = describe(plan)
    standard = {"request": _plain(Request()), "train": _plain(plan.card.train), "old": _plain(OldSettings())}
    for part in ("request", "train", "old"):
        before = _deciding(standard[part] | dict(old.get(part) or {}))
        for name, now in _deciding(new[part]).items():
            if before[name] != now and (name != "judge" or before[name]):
                raise UserError(
                    f"{run.path} is a run with {name} {before[name]!r}, not {now!r}: give this one another --name"
                )


def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a plan that its cells share and that decide a result."""
    kept = {name: value for name, value in settings.items() if name not in _FREE}
    if "settings" in kept:
        kept["settings"] = [text for text in kept["settings"] if not text.startswith(("judge.", "generator."))]
    return kept


def adopt(run: RunFolder, plan: Plan, cells: Sequence[Cell]) -> None:
    """Take over what a run without a judge has done, now that there is one: only the skipped judged tasks are lacking.

    They stand as failed in the record, so that they are asked in this call or in the next one.
    """
    graded = {task.card.name for task in plan.tasks if judged(task)}
    for cell in cells:
        record = whole(run, cell.unjudged) if cell.unjudged else None
        if record is None or record.status != "done" or run.read(cell.name):
            continue
        asked = {
            name: replace(outcome, status="failed", reason="skipped when there was no judge, and not asked since")
            for name, outcome in record.tasks.items()
            if name in graded and outcome.status == "skipped"
        }
        run.write(cell.unjudged, replace(record, key=cell.key, tasks={**record.tasks, **asked}))
        shutil.rmtree(run.cell(cell.name), ignore_errors=True)
        run.cell(cell.unjudged).rename(run.cell(cell.name))


def pending(run: RunFolder, cells: Sequence[Cell], rerun: Rerun) -> list[Cell]:
    """Return the cells without a finished record (``failed``: or one that failed, also in one task; ``always``: all).

    A record or answers that are damaged count as missing.
    """
    todo = []
    for cell in cells:
        record = whole(run, cell.name)
        failed = record is not None and (record.status == "failed" or bool(record.failed_tasks))
        again = rerun == "always" or record is None or (rerun == "failed" and failed)
        if again:
            todo.append(cell)
    return todo


def workload(
    plan: Plan,
    folder: Path,
    cells: Sequence[Cell],
    *,
    rerun: Rerun,
    jobs: int,
    launch: Launch = ALONE,
    here: bool = True,
) -> tuple[list[Cell], int]:
    """Return the cells still to run, and how many at once (``jobs``; 0: as many as the machine carries).

    Raises UserError where what a generator of theirs writes with is not there, where cells cannot be launched so
    (`Launch.check`, `check_share`), or where they are to run ``here`` and the GPUs do not suffice (`check_gpus`).
    """
    todo = pending(RunFolder(folder), cells, rerun)
    check_ready(plan.registry, [method for method in plan.methods if method.name in {cell.method for cell in todo}])
    launch.check(plan.methods)
    check_share(plan, launch.gpus_per_cell)
    if here:
        check_gpus(jobs, launch.gpus_per_cell)
    return todo, min(jobs or default_jobs(plan, len(todo), launch.gpus_per_cell), max(1, len(todo)))


def execute(
    plan: Plan,
    cells: Sequence[Cell],
    folder: Path,
    *,
    jobs: int,
    rerun: Rerun,
    listen: Callable[[Event], None],
    launch: Launch = ALONE,
) -> RunFolder:
    """Run what is missing and return the run's folder, all of whose cells then have a record.

    ``jobs`` cells run at once, each on ``launch.gpus_per_cell`` GPUs of its own (without a GPU: on as many processes).
    A repeated call with the same plan goes on where an earlier one stopped. The plan of the latest call is kept; cells
    of earlier ones stay on disk.
    """
    run = RunFolder(folder)
    if pending(run, cells, rerun):
        check_chat(plan)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        with lock:
            if rerun != "always":
                adopt(run, plan, cells)
            write_plan(run, plan, cells)
            todo = pending(run, cells, rerun)
            for cell in cells:
                if cell not in todo and not needs_checkpoint(run.read(cell.name)):  # killed after its record stood
                    shutil.rmtree(run.cell(cell.name) / CHECKPOINTS, ignore_errors=True)
            fresh = rerun == "always"
            run_cells(plan.request, folder, todo, jobs, listen, fresh=fresh, launch=launch, gpus=_gpus())
    except Timeout:
        raise UserError(f"another run is writing to {folder}: wait for it, or give this one another --name") from None
    return run


def describe(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values."""
    return {
        "request": _plain(plan.request), "train": _plain(plan.train), "budget": plan.train.budget, "old": _plain(plan.old),
    }  # fmt: skip


def _plain(settings: Request | TrainSettings | OldSettings) -> dict[str, Any]:
    """Return settings as YAML reads them back: lists where there are tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return plain


def write_plan(run: RunFolder, plan: Plan, cells: Sequence[Cell]) -> None:
    """Write ``plan.yaml``, ``environment.json`` and the tuning trials behind the rates.

    Cells of an earlier call stay in the plan unless this one has the same method and seed.
    """
    earlier = run.plan()["cells"] if (run.path / "plan.yaml").exists() else []
    names = {
        name if plan.request.split else name.rpartition("--")[0]: name  # a tuning has many cells of one method and seed
        for name in [*earlier, *(cell.name for cell in cells)]
    }
    body = {"format": FORMAT, **describe(plan), "cells": list(names.values())}
    write_text(run.path / "plan.yaml", yaml.safe_dump(body, sort_keys=False, allow_unicode=True))
    environment = {"python": platform.python_version(), "platform": platform.platform(), "cpus": os.cpu_count()}
    write_text(run.path / "environment.json", json.dumps({**environment, "versions": versions()}, indent=1) + "\n")
    taken = [plan.tuned(method.name) for method in plan.methods]  # variants share their method's
    chosen = [entry for entry in plan.tuning if any(entry is one for one in taken)]
    if chosen:
        write_text(run.path / "tuning.json", json.dumps(chosen, indent=1) + "\n")


def default_jobs(plan: Plan, cells: int, gpus_per_cell: int = 1) -> int:
    """Return how many cells run at once: as many as GPUs, or as cores and available memory, carry."""
    if gpus := _gpus():
        return max(1, min(cells, gpus // gpus_per_cell))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        free = int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) / 2**20
    except (OSError, IndexError, ValueError):
        free = cores * plan.card.memory  # no Linux: trust the cores
    return max(1, min(cores, cells, int(free // plan.card.memory)))


def check_gpus(jobs: int, gpus_per_cell: int) -> None:
    """Raise UserError where this machine has too few GPUs."""
    gpus = _gpus()
    if gpus_per_cell > max(1, gpus):
        raise UserError(f"--gpus-per-cell {gpus_per_cell}: this machine has {gpus} GPU{'' if gpus == 1 else 's'}")
    if gpus and jobs * gpus_per_cell > gpus:
        raise UserError(f"--jobs {jobs} with --gpus-per-cell {gpus_per_cell} needs more than the {gpus} GPUs here")


def check_share(plan: Plan, gpus_per_cell: int) -> None:
    """Raise UserError where a batch cannot be shared evenly by a cell's GPUs."""
    if plan.train.batch_size % gpus_per_cell:
        raise UserError(
            f"--gpus-per-cell {gpus_per_cell} cannot share train.batch_size={plan.train.batch_size} evenly: "
            f"set train.batch_size to a multiple of {gpus_per_cell}"
        )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
