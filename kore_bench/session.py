"""What the commands do, start to end, with the terminal in hand: run, report and tune."""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import ParamSpec

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kore_bench.bench import Rerun, default_jobs, execute, pending, prepare
from kore_bench.errors import UserError
from kore_bench.grid import Cell
from kore_bench.plan import Plan, Request, read_tuning
from kore_bench.progress import Listener, title
from kore_bench.registry import Registry
from kore_bench.report import build_all
from kore_bench.results import Record, RunFolder
from kore_bench.tune import Tuner

P = ParamSpec("P")

INTERRUPTED = "finished cells are kept, and what was running left its progress: the same command goes on from here"


class Terminated(KeyboardInterrupt):
    """The process was told to end (SIGTERM)."""


def resumable(session: Callable[P, int]) -> Callable[P, int]:
    """Make a session that Ctrl-C and SIGTERM end with a line on how to go on, and exit code 130 or 143."""

    @functools.wraps(session)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        out = kwargs["out"]
        assert isinstance(out, Console)
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, _terminate) if main else None
        try:
            return session(*args, **kwargs)
        except KeyboardInterrupt as interruption:
            terminated = isinstance(interruption, Terminated)
            out.print(f"{'terminated' if terminated else 'interrupted'}: {INTERRUPTED}", soft_wrap=True, markup=False)
            return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)

    return guarded


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


@resumable
def run_session(
    request: Request, runs: Path, name: str, *, jobs: int, rerun: Rerun, dry_run: bool,
    out: Console,
) -> int:  # fmt: skip
    """Run a request and write its reports; return the exit code (1 where a cell failed)."""
    begin = time.monotonic()
    folder = runs / (name or request.model)
    with out.status("checking names, settings, data and ranks"):
        plan, cells = prepare(request, folder)
    todo = pending(RunFolder(folder), cells, rerun)
    jobs = min(jobs or default_jobs(plan, len(todo)), max(1, len(todo)))
    out.print(_headline(plan, folder, cells, todo, jobs), soft_wrap=True, markup=False)
    if dry_run:
        out.print(_dry_table(cells, todo))
        return 0
    with Listener(out, len(todo)) as listen:
        run = execute(plan, cells, folder, jobs=jobs, rerun=rerun, listen=listen)
    files = _report(run, plan.registry, ())
    records = run.records()
    out.print(summary_table(records))
    shown = next((file for file in files if file.name == "report.html"), folder)
    out.print(f"report: {shown} ({time.monotonic() - begin:.0f} s in all)", soft_wrap=True, markup=False)
    failed = [record for record in records if record.status == "failed"]
    for record in failed:
        out.print(f"failed: {record.method}, seed {record.seed}: {record.reason}", soft_wrap=True, markup=False)
    return 1 if failed else 0


def report_session(folder: Path, names: tuple[str, ...], plugins: tuple[str, ...], out: Console) -> None:
    """Write reports (all of them without ``names``) from a run's records."""
    registry = Registry(tuple(Path(plugin) for plugin in plugins))
    for file in _report(RunFolder(folder), registry, names):
        out.print(str(file), soft_wrap=True, markup=False)


@resumable
def tune_session(request: Request, runs: Path, file: Path, *, jobs: int, out: Console) -> int:
    """Tune every method of a request and write the chosen rates; return the exit code (1 where a trial failed)."""
    folder = runs / f"tune-{request.model}"
    if file.exists():
        read_tuning(str(file), request.model)
    with out.status("checking names, settings, data and ranks"):
        plan, _ = prepare(request, folder)
    tuner = Tuner(plan, folder)
    for stage in tuner.stages:
        cells = stage()
        todo = pending(RunFolder(folder), cells, "failed")
        count = jobs or default_jobs(plan, len(todo))
        out.print(f"{len(todo)} trials to run of {len(cells)}, {count} at a time", markup=False)
        with Listener(out, len(todo)) as listen:
            execute(plan, cells, folder, jobs=count, rerun="failed", listen=listen)
    entries = tuner.entries()
    tuner.write(file, entries)
    table = Table("method", "rate", "settings", "validation Avg", box=None, header_style="bold", pad_edge=False)
    for entry in entries:
        chosen = entry["chosen"]
        settings = ", ".join(f"{key}={value}" for key, value in chosen["settings"].items())
        table.add_row(Text(entry["method"]), f"{chosen['learning_rate']:g}", Text(settings), f"{chosen['Avg']:.1f}")
    out.print(table)
    out.print(f"tuned rates: {file}", soft_wrap=True, markup=False)
    return 1 if tuner.failed() else 0


def summary_table(records: list[Record]) -> Table:
    """Return the terminal's table: a row a cell with K.A, K.R and their mean, and the cost."""
    table = Table("method", "seed", "K.A", "K.R", "Avg", "trainable", "seconds", box=None, header_style="bold",
                  pad_edge=False, padding=(0, 2, 0, 0))  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for record in records:
        adapted, kept = record.score("K.A"), record.score("K.R")
        both = f"{(adapted.value + kept.value) / 2:.1f}" if adapted and kept else ""
        shown = [
            f"{score.value:.1f} ± {(score.high - score.low) / 2:.1f}" if score else "" for score in (adapted, kept)
        ]
        if record.status != "done":
            shown = [record.status, ""]
        table.add_row(
            Text(record.method), str(record.seed), *shown, both, f"{record.cost.trainable_parameters:,}",
            f"{sum(record.cost.seconds.values()):.0f}",
        )  # fmt: skip
    return table


def _report(run: RunFolder, registry: Registry, names: tuple[str, ...]) -> list[Path]:
    if not run.path.is_dir():
        raise UserError(f"there is no run folder {run.path}")
    chosen = names or tuple(registry.all("reports"))
    return build_all(run, [registry.find("reports", name) for name in chosen])


def _headline(plan: Plan, folder: Path, cells: list[Cell], todo: list[Cell], jobs: int) -> str:
    done = len(cells) - len(todo)
    kept = f", {done} done already" if done else ""
    return (
        f"{plan.card.name} on {plan.request.data}: {len(cells)} cells{kept}, {jobs} at a time, "
        f"{plan.train.budget} each, in {folder}"
    )


def _dry_table(cells: list[Cell], todo: list[Cell]) -> Table:
    table = Table("cell", "rate from", "state", box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for cell in cells:
        table.add_row(Text(title(cell)), cell.tuned or "no training", "to run" if cell in todo else "done")
    return table
