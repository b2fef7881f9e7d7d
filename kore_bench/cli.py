"""The commands and their help; no logic. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import logging
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from kore_bench import __version__
from kore_bench.cli_analyze import app as analyze_app
from kore_bench.cli_augment import app as augment_app
from kore_bench.config import write_config
from kore_bench.contrasts import NONE
from kore_bench.errors import UserError
from kore_bench.options import (
    CONTRASTS,
    METHODS,
    SCALES,
    TASKS,
    Again,
    BaseUrl,
    Calibration,
    Config,
    Contrasts,
    Data,
    DataFormat,
    Debug,
    DryRun,
    Folder,
    GpuName,
    GpusPerCell,
    Jobs,
    Judge,
    JudgeUrl,
    Kind,
    Limit,
    Llm,
    LmEvalPath,
    Methods,
    Model,
    Name,
    Offline,
    PlanName,
    Plugins,
    ReportTo,
    Rerun,
    SaveConfig,
    Scales,
    Seeds,
    Settings,
    Strategy,
    StrategyName,
    Sweep,
    TableFormat,
    Tasks,
    Tuning,
    names,
)
from kore_bench.options import RunFolder as Run

app = typer.Typer(
    name="kore-bench",
    help="Benchmark of knowledge injection into large multimodal models: who learns, who forgets, at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="Check a data set, or write it in another format.", no_args_is_help=True)
app.add_typer(data_app, name="data")
new_app = typer.Typer(help="Write the files that a plug-in begins with.", no_args_is_help=True)
app.add_typer(new_app, name="new")
app.add_typer(analyze_app, name="analyze")
app.add_typer(augment_app, name="augment")
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@app.command()
def run(
    context: typer.Context,
    plan: PlanName = "",
    methods: Methods = METHODS,
    sweep: Sweep = None,
    model: Model = "mini-llava",
    data: Data = "mini",
    tasks: Tasks = TASKS,
    seeds: Seeds = 1,
    contrasts: Contrasts = CONTRASTS,
    calibration: Calibration = "",
    lm_eval_path: LmEvalPath = "",
    set_: Settings = None,
    tuning: Tuning = "",
    limit: Limit = 0,
    judge: Judge = "",
    llm: Llm = "",
    name: Name = "",
    runs: Folder = Path("runs"),
    jobs: Jobs = 0,
    judge_url: JudgeUrl = "",
    base_url: BaseUrl = "",
    offline: Offline = False,
    gpus_per_cell: GpusPerCell = 1,
    strategy: StrategyName = Strategy.ddp,
    report_to: ReportTo = "",
    rerun: Again = Rerun.failed,
    frontier: Scales = SCALES,
    dry_run: DryRun = False,
    gpu: GpuName = "",
    plugin: Plugins = None,
    config: Config = None,
    save_config: SaveConfig = None,
    debug: Debug = False,
) -> None:
    """Run methods on a model, beside the untouched base, and write a report.

    Cells that are done are not run again: the same command goes on where an interrupted one stopped.
    """
    from kore_bench.launch import Launch
    from kore_bench.plan import Request
    from kore_bench.registry import Registry
    from kore_bench.session import run_session
    from kore_bench.variants import expand

    swept = expand(names(methods), sweep or (), Registry(tuple(Path(path) for path in plugin or ())))
    named = () if contrasts == NONE else names(contrasts)
    request = Request(
        methods=swept, model=model, data=data, tasks=names(tasks), seeds=tuple(range(seeds)),
        plugins=tuple(plugin or ()), tuning=tuning,
        settings=_settings(set_, {"old.calibration": calibration, "lm-eval.path": lm_eval_path}),
        limit=limit, offline=offline, judge=judge, judge_url=judge_url, llm=llm, base_url=base_url, contrasts=named,
        frontier=() if frontier == NONE else _numbers("--frontier", frontier),
    )  # fmt: skip

    launch = Launch(gpus_per_cell=gpus_per_cell, strategy=strategy.value, report_to=names(report_to))
    code = run_session(
        request, runs, name, jobs=jobs, rerun=rerun.value, dry_run=dry_run, out=out, launch=launch, gpu=gpu,
        checked=lambda: write_config(context, save_config) if save_config else None,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def report(
    run: Run,
    reports: Annotated[str, typer.Option(help="Reports, separated by commas (default: all).")] = "",
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """Write tables, figures and pages again from a run's records."""
    from kore_bench.session import report_session

    raise typer.Exit(report_session(run, names(reports), tuple(plugin or ()), out))


@app.command()
def show(
    run: Run,
    cell: Annotated[
        str,
        typer.Argument(help="METHOD (all its seeds), METHOD@SEED, or the start of its folder's name.", metavar="CELL"),
    ] = "",
    questions: Annotated[int, typer.Option(help="Questions to show of either kind, best and worst.", min=0)] = 3,
    debug: Debug = False,
) -> None:
    """Show a run's plan and cells, or one cell: scores, losses, costs, settings, best and worst questions."""
    from kore_bench.results import RunFolder
    from kore_bench.show import show_session

    show_session(RunFolder(run), cell, questions, out)


@app.command()
def table(
    run: Run,
    name: Annotated[str, typer.Argument(help="The table: paper-table or paper-table-fine.")] = "paper-table",
    format_: Annotated[TableFormat, typer.Option("--format", help="How it is written.")] = TableFormat.latex,
    n: Annotated[bool, typer.Option("--n", help="Add a row of numbers of questions.")] = False,
    intervals: Annotated[bool, typer.Option("--intervals", help="Give 95 % intervals in place of the spread.")] = False,
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """Print one table for pasting into a paper or a page: with several seeds the best figure bold, the next underlined."""
    from kore_bench.report import TableStyle
    from kore_bench.session import table_session

    style = TableStyle(format=format_.value, n=n, intervals=intervals)
    typer.echo(table_session(run, name, style, tuple(plugin or ())), nl=False)


@app.command()
def compare(
    run: Run,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas (default: all that were trained).")] = "",
    against: Annotated[
        str, typer.Option(help="Compare each with this one (default: several with each other, one or all with base).")
    ] = "",
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas (default: all of the run).")] = "",
    questions: Annotated[int, typer.Option(help="Questions to show on which each side is ahead.", min=0)] = 3,
    debug: Debug = False,
) -> None:
    """Say which method is better, by how much, how sure, and on which questions."""
    from kore_bench.compare import compare_session

    compare_session(run, names(methods), against, names(tasks), questions, out)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder, such as runs/llava-7b.")],
    cell: Annotated[str, typer.Argument(help="A method that was trained, or METHOD--seedN.")],
    out_: Annotated[Path, typer.Option("--out", help="New folder to write into.")],
    merge: Annotated[bool, typer.Option("--merge", help="Write the whole model, the adapter merged into it.")] = False,
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """Write a trained adapter for PEFT, or the merged model for transformers, into a folder of its own."""
    from kore_bench.export import export_cell
    from kore_bench.results import RunFolder

    out.print(
        str(export_cell(RunFolder(run), cell, out_, merge=merge, plugins=tuple(plugin or ()))),
        soft_wrap=True,
        markup=False,
    )


@app.command()
def frontier(
    run: Run,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas (default: all that were trained).")] = "",
    scales: Annotated[str, typer.Option(help="Parts of its change that each cell is given, with commas.")] = (
        "0.25,0.5,0.75"
    ),
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """Scale each trained cell's change down (WiSE-FT, no retraining): a curve of K.A against K.R, then the reports."""
    from kore_bench.frontier_session import frontier_session
    from kore_bench.session import report_session

    plugins = tuple(plugin or ())
    code = frontier_session(run, names(methods), _numbers("--scales", scales), out, plugins)
    raise typer.Exit(report_session(run, ("frontier", "frontier-table", "page"), plugins, out) or code)


@app.command()
def covariance(
    model: Model = "mini-llava",
    data: Data = "mini",
    calibration: Calibration = "",
    samples: Annotated[int, typer.Option(help="Number of old samples (0: 256, or old.samples).", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="The seed that the samples are drawn under.", min=0)] = 0,
    method: Annotated[str, typer.Option(help="Measure what this method reads.")] = "kore-null",
    set_: Settings = None,
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """Measure the null spaces of a model's inputs alone, block by block, for any later run on the same samples.

    What is measured stays in the cache: the same command goes on where an interrupted one stopped.
    """
    from kore_bench.covariance import covariance_session
    from kore_bench.plan import Request

    settings = _settings(set_, {"old.calibration": calibration, "old.samples": str(samples or "")})
    request = Request(
        methods=(method,), model=model, data=data, settings=settings, plugins=tuple(plugin or ()), seeds=(seed,)
    )
    raise typer.Exit(covariance_session(request, seed=seed, out=out))


@app.command()
def tune(
    plan: PlanName = "",
    methods: Methods = METHODS,
    model: Model = "mini-llava",
    data: Data = "mini",
    calibration: Calibration = "",
    set_: Settings = None,
    file: Annotated[Path, typer.Option("--out", help="File of tuned rates to write (others in it are kept).")] = Path(
        "tuning.json"
    ),
    runs: Folder = Path("runs"),
    jobs: Jobs = 0,
    plugin: Plugins = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Choose each method's learning rate (and strength) on validation items, the same number of trials for each.

    Of a plan its methods, model, data, old samples and settings count; its tasks, sweeps and seeds are a run's.
    """
    from kore_bench.plan import Request
    from kore_bench.session import tune_session

    request = Request(
        methods=names(methods), model=model, data=data, settings=_settings(set_, {"old.calibration": calibration}),
        plugins=tuple(plugin or ()), split="validation", tasks=("adaptation", "retention"),
    )  # fmt: skip
    raise typer.Exit(tune_session(request, runs, file, jobs=jobs, out=out))


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    name: Annotated[str, typer.Argument(help="One of them, in full.")] = "",
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """List methods, models, tasks, reports, generators or plans; with a name, that one's settings and sources."""
    from kore_bench.listing import listing
    from kore_bench.registry import Registry

    out.print(listing(Registry(tuple(Path(path) for path in plugin or ())), kind.value, name))


@app.command()
def verify(run: Run, debug: Debug = False) -> None:
    """Read a whole run folder and name what is damaged: exit code 1 where a file is not what was written."""
    from kore_bench.verify import verify_session

    raise typer.Exit(verify_session(run, out))


@app.command()
def doctor(debug: Debug = False) -> None:
    """Show what is installed and what this machine has: versions, devices, memory, caches, optional packages."""
    from kore_bench.doctor import doctor_session

    doctor_session(out)


@new_app.callback()
def _new() -> None:
    pass


@new_app.command("method")
def new_method(
    name: Annotated[str, typer.Argument(help="Name of the method, such as norm-penalty.")],
    folder: Annotated[Path, typer.Option(help="Where to write: any folder, or a checkout of kore-bench.")] = Path("."),
    debug: Debug = False,
) -> None:
    """Write a method that works, its tests, which pass, and a page about it: begin from there."""
    from kore_bench.scaffold import new_method

    written = new_method(name, folder)
    for file in (written.method, written.test, written.page):
        out.print(str(file), soft_wrap=True, markup=False)
    out.print(f"run it:  {written.run}\ntest it: {written.check}", soft_wrap=True, markup=False)


DataSet = Annotated[
    str, typer.Argument(help="EVOKE folder, LLaVA or sharegpt JSON, Hugging Face data set, or [bold]mini[/].")
]


@data_app.command("check")
def data_check(path: DataSet, debug: Debug = False) -> None:
    """Count a data set's rows and name what is wrong with them: exit code 1 where not all of it can be used."""
    from kore_bench.data_session import check_session

    raise typer.Exit(check_session(path, out))


@data_app.command("convert")
def data_convert(
    source: DataSet,
    target: Annotated[Path, typer.Argument(help="A new folder to write.")],
    to: Annotated[DataFormat, typer.Option(help="Format to write.")],
    debug: Debug = False,
) -> None:
    """Write a data set and its images into a new folder in another format."""
    from kore_bench.data_session import convert_session

    convert_session(source, target, to.value, out)


def _version(show: bool) -> None:
    if show:
        out.print(f"kore-bench {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _settings(given: list[str] | None, options: dict[str, str]) -> tuple[str, ...]:
    """Return the ``--set`` texts, with options that are short for one of them."""
    return (*(given or ()), *(f"{name}={value}" for name, value in options.items() if value))


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """Return numbers with commas between; raises UserError where one is none."""
    try:
        return tuple(map(float, names(text)))
    except ValueError:
        raise UserError(f"{option} {text} are no numbers: write them as 0.25,0.5") from None


class _Warnings(logging.Handler):
    """Shows what the engine warns of in a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(f"[bold yellow]warning:[/] {_escaped(record.getMessage())}", soft_wrap=True)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exits with 2 for a user's mistake, 1 where a cell failed, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.getLogger("kore_bench").handlers = [_Warnings()]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a sign shows another, and the command goes on
    try:
        app(arguments)
    except UserError as error:
        if "--debug" in arguments:
            raise
        err.print(f"[bold red]error:[/] {_escaped(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if "--debug" in arguments:
            raise
        err.print(f"[bold red]error:[/] {_escaped(f'{error.filename}: {error.strerror}')}", soft_wrap=True)
        sys.exit(2)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
