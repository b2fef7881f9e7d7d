"""What the commands do, start to end, with the terminal in hand: run, report and tune."""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import ParamSpec

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kore_bench.bench import Rerun, check_name, execute, prepare, workload
from kore_bench.errors import UserError, nearest
from kore_bench.grid import Cell
from kore_bench.launch import ALONE, Launch
from kore_bench.plan import Plan, Request, model_name, read_tuning
from kore_bench.progress import Listener, title
from kore_bench.registry import Registry
from kore_bench.report import BrokenReportsError, TableStyle, build_all, ensure_records
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
    out: Console, launch: Launch = ALONE, gpu: str = "", checked: Callable[[], None] = lambda: None,
) -> int:  # fmt: skip
    """Run a request and write its reports; return the exit code (1 where a cell failed or a report broke).

    ``dry_run`` shows what each cell would take and runs none; ``gpu`` names the one that must hold them. ``checked``
    is called once everything that can be checked beforehand is.
    """
    begin = time.monotonic()
    folder = runs / (check_name(name) if name else model_name(request))
    with out.status("checking names, settings, data and ranks"):
        plan, cells = prepare(request, folder)
    todo, jobs = workload(plan, folder, cells, rerun=rerun, jobs=jobs, launch=launch, here=not dry_run)
    checked()
    out.print(_headline(plan, folder, cells, todo, jobs), soft_wrap=True, markup=False)
    if dry_run:
        out.print(_dry_table(cells, todo))
    if dry_run or gpu:
        from kore_bench.fitting import show_costs  # reads the model's configuration: torch

        show_costs(plan, gpu, out, launch)
    if dry_run:
        return 0
    with Listener(out, RunFolder(folder), cells, todo) as listen:
        run = execute(plan, cells, folder, jobs=jobs, rerun=rerun, listen=listen, launch=launch)
    with out.status("writing tables, figures and the page"):
        files, broken = _report(run, plan.registry, ())
    records = run.records()
    out.print(summary_table(records))
    if request.limit:
        out.print(f"scores are from a sample of about {request.limit} questions a task (--limit)", markup=False)
    shown = next((file for file in files if file.name == "report.html"), folder)
    out.print(f"report: {shown} ({time.monotonic() - begin:.0f} s in all)", soft_wrap=True, markup=False)
    failed = [record for record in records if record.status == "failed" or record.failed_tasks]
    for line in (*what_is_lacking(records), *broken):
        out.print(line, soft_wrap=True, markup=False)
    return 1 if failed or broken else 0


def report_session(folder: Path, names: tuple[str, ...], plugins: tuple[str, ...], out: Console) -> int:
    """Write reports (all of them without ``names``) from a run's records; return the exit code (1 where one broke)."""
    registry = Registry(tuple(Path(plugin) for plugin in plugins))
    files, broken = _report(RunFolder(folder), registry, names)
    for line in (*map(str, files), *broken):
        out.print(line, soft_wrap=True, markup=False)
    return 1 if broken else 0


def table_session(folder: Path, name: str, style: TableStyle, plugins: tuple[str, ...]) -> str:
    """Return one table of a run as text, from its records."""
    registry = Registry(tuple(Path(plugin) for plugin in plugins))
    tables = {key: found.value for key, found in registry.all("reports").items() if found.value.render}
    if name not in tables:
        raise UserError(f"{name!r} is no table that can be printed: {nearest(name, tables)}")
    run = RunFolder(folder)
    ensure_records(run)
    text: str = tables[name].render(run, style)
    return text


@resumable
def tune_session(request: Request, runs: Path, file: Path, *, jobs: int, out: Console) -> int:
    """Tune every method of a request and write the chosen rates; return the exit code (1 where a trial failed)."""
    folder = runs / f"tune-{model_name(request)}"
    if file.exists():
        read_tuning(file)
    with out.status("checking names, settings, data and ranks"):
        plan, _ = prepare(request, folder)
    tuner = Tuner(plan, folder)
    for stage in tuner.stages:
        cells = stage()
        todo, count = workload(plan, folder, cells, rerun="failed", jobs=jobs)
        out.print(f"{len(todo)} trials to run of {len(cells)}, {count} at a time", markup=False)
        with Listener(out, RunFolder(folder), cells, todo, best=True) as listen:
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


def what_is_lacking(records: Sequence[Record]) -> list[str]:
    """Return a line for each cell that failed, and for each task that failed or was skipped with its cells."""
    lines = [
        f"failed: {record.method}, seed {record.seed}: {record.reason}"
        for record in records
        if record.status == "failed"
    ]
    cells: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        for name, outcome in record.tasks.items():
            if outcome.status != "done":
                known = cells.setdefault((outcome.status, name, outcome.reason), [])
                known.append(f"{record.method}, seed {record.seed}")
    for (status, name, reason), where in cells.items():
        shown = f"{len(where)} cells" if len(where) > 1 else where[0]
        lines.append(f"{status}: {name} ({shown}): {reason}")
    return lines


def _report(run: RunFolder, registry: Registry, names: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """Build reports; return the files written, and a sentence for each report that could not be built."""
    chosen = names or tuple(registry.all("reports"))
    try:
        return build_all(run, [registry.find("reports", name) for name in chosen]), []
    except BrokenReportsError as error:
        return error.files, error.sentences()


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
