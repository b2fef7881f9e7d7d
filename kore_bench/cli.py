"""The commands and their help; no logic. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from kore_bench import __version__
from kore_bench.errors import UserError

app = typer.Typer(
    name="kore-bench",
    help="Benchmark of knowledge injection into large multimodal models: who learns, who forgets, at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Kind(StrEnum):
    """What `list` can list."""

    methods = "methods"
    models = "models"
    tasks = "tasks"
    reports = "reports"


class Rerun(StrEnum):
    """Which finished cells run again."""

    never = "never"
    failed = "failed"
    always = "always"


Methods = Annotated[str, typer.Option(help="Methods and mixtures, separated by commas: kore,lora,ewc+replay.")]
Model = Annotated[str, typer.Option(help="Model card; see [bold]kore-bench list models[/].")]
Data = Annotated[str, typer.Option(help="Knowledge folder in EVOKE's form, or [bold]mini[/] for the embedded world.")]
Tasks = Annotated[str, typer.Option(help="Tasks, separated by commas; see [bold]kore-bench list tasks[/].")]
Seeds = Annotated[int, typer.Option(help="Number of seeds: 0, 1, ..., N-1.", min=1)]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, repeatable: train.steps=480, kore-null.rank=64.")
]
Plugins = Annotated[list[str] | None, typer.Option("--plugin", help="A Python file that adds methods, repeatable.")]
Jobs = Annotated[int, typer.Option(help="Cells at once (0: as many as this machine carries).", min=0)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Folder = Annotated[Path, typer.Option(help="Where runs are kept.")]

_METHODS = "full,lora,replay,ewc,kore-augmentation,kore-null,kore,frozen-random,frozen-top"
_TASKS = "adaptation,retention,old-facts"


@app.command()
def run(
    methods: Methods = _METHODS,
    model: Model = "mini-llava",
    data: Data = "mini",
    tasks: Tasks = _TASKS,
    seeds: Seeds = 1,
    set_: Settings = None,
    name: Annotated[str, typer.Option(help="Name of the run; the same name goes on with it.")] = "",
    runs: Folder = Path("runs"),
    jobs: Jobs = 0,
    rerun: Annotated[Rerun, typer.Option(help="Which finished cells run again.")] = Rerun.failed,
    tuning: Annotated[str, typer.Option(help="File of tuned rates (default: the one shipped for the model).")] = "",
    plugin: Plugins = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the cells, run none.")] = False,
    debug: Debug = False,
) -> None:
    """Run methods on a model, beside the untouched base, and write a report.

    Cells that are done are not run again: the same command goes on where an interrupted one stopped.
    """
    from kore_bench.plan import Request

    request = Request(
        methods=_names(methods), model=model, data=data, tasks=_names(tasks), seeds=tuple(range(seeds)),
        settings=tuple(set_ or ()), plugins=tuple(plugin or ()), tuning=tuning,
    )  # fmt: skip
    from kore_bench.session import run_session

    raise typer.Exit(run_session(request, runs, name, jobs=jobs, rerun=rerun.value, dry_run=dry_run, out=out))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder, such as runs/mini-llava.")],
    reports: Annotated[str, typer.Option(help="Reports, separated by commas (default: all).")] = "",
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """Write tables, figures and pages again from a run's records."""
    from kore_bench.session import report_session

    report_session(run, _names(reports), tuple(plugin or ()), out)


@app.command()
def tune(
    methods: Methods = _METHODS,
    model: Model = "mini-llava",
    data: Data = "mini",
    set_: Settings = None,
    file: Annotated[Path, typer.Option("--out", help="File of tuned rates to write (others in it are kept).")] = Path(
        "tuning.json"
    ),
    runs: Folder = Path("runs"),
    jobs: Jobs = 0,
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """Choose each method's learning rate (and strength) on validation items, the same number of trials for each."""
    from kore_bench.plan import Request
    from kore_bench.session import tune_session

    request = Request(
        methods=_names(methods), model=model, data=data, settings=tuple(set_ or ()), plugins=tuple(plugin or ()),
        split="validation", tasks=("adaptation", "retention"),
    )  # fmt: skip
    raise typer.Exit(tune_session(request, runs, file, jobs=jobs, out=out))


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    name: Annotated[str, typer.Argument(help="One of them, in full.")] = "",
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """List methods, models, tasks or reports; with a name, that one's settings and sources."""
    from kore_bench.listing import listing
    from kore_bench.registry import Registry

    out.print(listing(Registry(tuple(Path(path) for path in plugin or ())), kind.value, name))


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


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exits with 2 for a user's mistake, 1 where a cell failed, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(arguments)
    except UserError as error:
        if "--debug" in arguments:
            raise
        err.print(f"[bold red]error:[/] {_escaped(str(error))}", soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if "--debug" in arguments:
            raise
        err.print(f"[bold red]error:[/] {_escaped(f'{error.filename}: {error.strerror}')}", soft_wrap=True)
        sys.exit(2)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
