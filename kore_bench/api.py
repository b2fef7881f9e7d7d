"""The Python side: run methods as `kore-bench run` does, and hold a run's records as pandas and matplotlib objects."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from kore_bench.bench import Rerun, check_name, execute, prepare, workload
from kore_bench.contrasts import DEFAULT_CONTRASTS
from kore_bench.errors import UserError, nearest
from kore_bench.launch import Launch
from kore_bench.plan import DEFAULT_METHODS, DEFAULT_TASKS, MINI, Request, model_name
from kore_bench.plan_arguments import with_plan
from kore_bench.registry import Registry
from kore_bench.report import Report, build_all, ensure_records
from kore_bench.results import Record, RunFolder
from kore_bench.variants import expand

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

Names = str | Sequence[str]
"""Several names: a list of them, or one text with commas between."""

_HEADLINES = ("K.A", "K.R", "old-facts")


@with_plan
def run(
    methods: Names = DEFAULT_METHODS,
    *,
    plan: str = "",
    model: str = "mini-llava",
    data: str | Path = MINI,
    tasks: Names = DEFAULT_TASKS,
    seeds: int | Sequence[int] = 1,
    settings: Mapping[str, Any] | None = None,
    sweeps: Mapping[str, Sequence[Any]] | None = None,
    name: str = "",
    runs: str | Path = "runs",
    jobs: int = 0,
    gpus_per_cell: int = 1,
    strategy: str = "ddp",
    report_to: Names = (),
    rerun: Rerun = "failed",
    tuning: str | Path = "",
    plugins: Sequence[str | Path] = (),
    limit: int = 0,
    offline: bool = False,
    judge: str = "",
    judge_url: str = "",
    llm: str = "",
    base_url: str = "",
    contrasts: Names = DEFAULT_CONTRASTS,
    frontier: Sequence[float] = (0.5, 0.75),
    quiet: bool = False,
) -> Run:
    """Run methods on a model, beside the untouched base, and return the run; what is done already is not run again.

    The arguments are the options of `kore-bench run` and give the same cells: ``plan`` is a plan's name or file, whose
    options count where an argument is not given, ``seeds`` is a number of seeds or the
    seeds themselves, ``settings`` maps ``name.field`` to a value (``{"train.steps": 480}``), ``sweeps``
    to several, a row each (``{"kore-null.rank": [8, 16]}``), ``jobs`` is how many cells
    run at once (0: as many as the machine carries), ``strategy`` is ``ddp`` or ``fsdp2``. ``limit`` is the number of questions a task (0: all), ``offline``
    forbids downloads until the process ends, ``judge`` and ``judge_url`` name the model that grades judged tasks, whose
    key is read from the environment; so is that of ``llm`` at ``base_url``, which generators write with. ``contrasts`` are the pairs that the run is to tell (``kore/lora``; none: all
    comparisons are exploratory), ``frontier`` the parts of its change at which each cell is evaluated too (none: no curve). ``quiet`` prints nothing. A method that fails is a failed cell and raises nothing:
    it shows in the run and stands in ``failed``, as does a cell of which a task failed. No page is written: see
    `Run.report`.

    Raises UserError where the arguments or the data are not right; its sentence names the option of the command line.
    """
    from rich.console import Console

    from kore_bench.progress import Listener

    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    _check(chosen, rerun, jobs, gpus_per_cell)
    launch = Launch(gpus_per_cell=gpus_per_cell, strategy=strategy, report_to=_names(report_to))
    swept = [f"{option}={','.join(map(_value, values))}" for option, values in (sweeps or {}).items()]
    request = Request(
        methods=expand(_names(methods), swept, Registry(tuple(map(Path, plugins)))),
        model=model,
        data=str(data),
        tasks=_names(tasks),
        seeds=chosen,
        settings=tuple(f"{option}={_text(value)}" for option, value in (settings or {}).items()),
        plugins=tuple(map(str, plugins)),
        tuning=str(tuning),
        limit=limit,
        offline=offline,
        judge=judge,
        judge_url=judge_url,
        llm=llm,
        base_url=base_url,
        contrasts=_names(contrasts),
        frontier=tuple(frontier),
    )
    folder = Path(runs) / (check_name(name) if name else model_name(request))
    # tqdm, which transformers imports and this package does not use, misses widgets in a notebook.
    warnings.filterwarnings("ignore", message="IProgress not found")
    planned, cells = prepare(request, folder)
    todo, jobs = workload(planned, folder, cells, rerun=rerun, jobs=jobs, launch=launch)
    console = Console(quiet=quiet, highlight=False)
    with Listener(console, RunFolder(folder), cells, todo) as listen:
        execute(planned, cells, folder, jobs=jobs, rerun=rerun, listen=listen, launch=launch)
    return Run(folder, tuple(map(Path, plugins)))


def load(path: str | Path, *, plugins: Sequence[str | Path] = ()) -> Run:
    """Return the run in a folder, such as ``runs/mini-llava``; ``plugins`` are Python files with reports of your own.

    Raises UserError where the folder is not a run.
    """
    if not Path(path).is_dir():
        raise UserError(f"there is no run folder {path}")
    RunFolder(Path(path)).plan()
    return Run(Path(path), tuple(map(Path, plugins)))


@dataclass(frozen=True, repr=False)
class Run:
    """A run on disk. Nothing is kept in memory: each call reads what stands in the folder by then."""

    path: Path
    plugins: tuple[Path, ...] = ()

    @property
    def records(self) -> list[Record]:
        """Return the records of all cells that have one, in the plan's order."""
        return self._folder.records()

    @property
    def failed(self) -> list[Record]:
        """Return the records of the cells that did not finish, or not with every task; ``shortfall`` says why."""
        return [record for record in self.records if record.status != "done" or record.failed_tasks]

    def table(self, name: str = "main-table", *, full: bool = False) -> pandas.DataFrame:
        """Return a table with a row a method (means over seeds), as `kore-bench list reports` names them.

        Scores are in percent. ``full`` adds what its CSV file has too: 95 % intervals, standard deviations over seeds,
        numbers of questions, changes against the base. Methods that did not finish have their status and no scores.
        """
        report = self._report(name, "table")
        assert report.frame is not None
        return report.frame(self._folder, full)

    def figure(self, name: str = "tradeoff") -> Figure:
        """Return a figure, drawn anew; UserError where the run has nothing to show in it."""
        report = self._report(name, "figure")
        assert report.draw is not None
        figures = report.draw(self._folder)
        if not figures:
            raise UserError(f"{self.path} has nothing to show in the figure {name}")
        _show_in_notebooks()
        return figures[0]

    def scores(self) -> pandas.DataFrame:
        """Return every score of every cell, a row each: value in percent, 95 % interval (low, high), n questions."""
        return _frame(
            {**_cell(record), "task": task, "measure": measure, **asdict(score)}
            for record in self.records
            for task, scores in record.scores.items()
            for measure, score in scores.items()
        )

    def predictions(self, task: Names | None = None, method: Names | None = None) -> pandas.DataFrame:
        """Return every answer, a row each, with question, gold answer and ``correct`` (0 to 1).

        ``task`` and ``method`` (one name or several) choose among them.
        """
        records = self._chosen(method)
        tasks = _choose("task", task, dict.fromkeys(name for record in records for name in record.scores))
        return _frame(
            {**_cell(record), "task": name, **row}
            for record in records
            for name in tasks
            for row in self._folder.predictions(record, name)
        )

    def losses(self, method: Names | None = None) -> pandas.DataFrame:
        """Return the training logs, a row a step: loss (nats), learning_rate and ``penalty/<component>``."""
        return _frame(
            {**_cell(record), **row} for record in self._chosen(method) for row in self._folder.training_log(record)
        )

    def report(self, *names: str) -> list[Path]:
        """Write reports (all without ``names``), as `kore-bench report` does, and return the files.

        Raises BrokenReportsError after the others are written where one could not be.
        """
        registry = Registry(self.plugins)
        return build_all(
            self._folder, [registry.find("reports", name) for name in names or tuple(registry.all("reports"))]
        )

    def __repr__(self) -> str:
        return f"<Run {self.path}: {self._state()}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the state, K.A, K.R and old facts by method, and what failed."""
        parts = [f"<p><b>{escape(self.path.resolve().name)}</b>: {escape(self._state())}</p>"]
        if self.records:
            parts.append(self._overview().to_html(float_format="{:.1f}".format, na_rep="\N{EN DASH}", border=0))
        if failed := self.failed:
            lines = (f"{record.method}, seed {record.seed}, {record.status}: {record.reason}" for record in failed)
            parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>")
        return "\n".join(parts)

    @property
    def _folder(self) -> RunFolder:
        return RunFolder(self.path)

    def _state(self) -> str:
        planned, statuses = len(self._folder.plan()["cells"]), [record.status for record in self.records]
        counts = {status: statuses.count(status) for status in dict.fromkeys(statuses) if status != "done"}
        others = [f"{count} {status}" for status, count in counts.items()]
        if missing := planned - len(statuses):
            others.append(f"{missing} without a record")
        return ", ".join([f"{statuses.count('done')} of {planned} cells done", *others])

    def _overview(self) -> pandas.DataFrame:
        """Return the headline scores, a row a method, means over the seeds that are done."""
        import pandas

        records = self.records
        done = [record.method for record in records if record.status == "done"]
        methods = list(dict.fromkeys(record.method for record in records))
        frame = pandas.DataFrame({"seeds done": [done.count(method) for method in methods]}, index=methods)
        scores = self.scores()
        for measure in _HEADLINES if len(scores) else ():
            own = scores[scores["measure"] == measure]
            if len(own):
                frame[measure] = own.groupby("method")["value"].mean()
        if {"K.A", "K.R"} <= {*frame.columns}:
            frame["Avg"] = (frame["K.A"] + frame["K.R"]) / 2
        return frame

    def _report(self, name: str, kind: str) -> Report:
        """Return a report that gives an object of its ``kind``; raises UserError with the nearest one."""
        ensure_records(self._folder)
        reports: list[Report] = [found.value for found in Registry(self.plugins).all("reports").values()]
        known = {report.name: report for report in reports if report.kind == kind and (report.frame or report.draw)}
        if name not in known:
            raise UserError(f"{name!r} is no {kind} of a run: {nearest(name, known)}")
        return known[name]

    def _chosen(self, method: Names | None) -> list[Record]:
        records = self.records
        methods = _choose("method", method, dict.fromkeys(record.method for record in records))
        return [record for record in records if record.method in methods]


def _check(seeds: Sequence[int], rerun: str, jobs: int, gpus_per_cell: int) -> None:
    """Raise UserError for what the command line cannot be given."""
    if len(set(seeds)) < len(seeds) or min(seeds, default=0) < 0:
        raise UserError(f"seeds {list(seeds)} must be different whole numbers from 0")
    if rerun not in get_args(Rerun):
        raise UserError(f"rerun {rerun!r} is not one of {', '.join(get_args(Rerun))}")
    if jobs < 0:
        raise UserError(f"jobs {jobs} must be at least 1, or 0 for as many as this machine carries")
    if gpus_per_cell < 1:
        raise UserError(f"gpus_per_cell {gpus_per_cell} must be at least 1")


def _names(names: Names) -> tuple[str, ...]:
    return tuple(part.strip() for part in names.split(",") if part.strip()) if isinstance(names, str) else tuple(names)


def _text(value: Any) -> str:
    """Return a setting's value as the command line spells it."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _value(value: Any) -> str:
    """Return one value of a sweep as the command line spells it."""
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _choose(what: str, names: Names | None, known: Collection[str]) -> tuple[str, ...]:
    """Return ``names`` (all that are known for None); raises UserError for one that the run does not have."""
    chosen = tuple(known) if names is None else _names(names)
    for name in chosen:
        if name not in known:
            raise UserError(f"the run has no {what} {name!r}: {nearest(name, known)}")
    return chosen


def _cell(record: Record) -> dict[str, Any]:
    return {"model": record.model, "method": record.method, "seed": record.seed}


def _show_in_notebooks() -> None:
    """Let a notebook show figures that pyplot did not make as it shows those that it did."""
    if "ipykernel" in sys.modules:
        importlib.import_module("matplotlib_inline.backend_inline")


def _frame(rows: Iterator[dict[str, Any]]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(list(rows))
