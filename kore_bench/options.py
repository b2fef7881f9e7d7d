"""The options that commands share, under their own names, and what each may be; their help is what `--help` says."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kore_bench.config import merge_settings, read_config

WHAT = "What is compared"
HOW = "How it runs"

METHODS = "full, lora, replay, ewc, kore-augmentation, kore-null, kore, frozen-random, frozen-top"
TASKS = "adaptation, retention, old-facts"


class Kind(StrEnum):
    """What `list` can list."""

    methods = "methods"
    models = "models"
    tasks = "tasks"
    reports = "reports"
    generators = "generators"


class TableFormat(StrEnum):
    """What `table` can print."""

    latex = "latex"
    markdown = "markdown"
    csv = "csv"
    text = "text"


class DataFormat(StrEnum):
    """What `data convert` can write."""

    evoke = "evoke"
    llava = "llava"
    sharegpt = "sharegpt"
    huggingface = "huggingface"


class Rerun(StrEnum):
    """Which finished cells run again."""

    never = "never"
    failed = "failed"
    always = "always"


Methods = Annotated[
    str,
    typer.Option(
        help="Methods and mixtures, with commas: kore,lora,ewc+replay.", metavar="NAMES", rich_help_panel=WHAT
    ),
]
Model = Annotated[
    str,
    typer.Option(
        help="Model card ([bold]kore-bench list models[/]), folder, or hub id.", metavar="NAME", rich_help_panel=WHAT
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="Knowledge folder in EVOKE's form, or [bold]mini[/] for the embedded world.",
        metavar="FOLDER",
        rich_help_panel=WHAT,
    ),
]
Tasks = Annotated[
    str,
    typer.Option(help="Tasks, with commas; see [bold]kore-bench list tasks[/].", metavar="NAMES", rich_help_panel=WHAT),
]
Seeds = Annotated[int, typer.Option(help="Number of seeds: 0, 1, ..., N-1.", min=1, metavar="N", rich_help_panel=WHAT)]
Calibration = Annotated[
    str,
    typer.Option(
        help="Old samples from other data or tasks in place of the data's own: PATH, TASK, or PATH:64,PATH:64.",
        metavar="SOURCE",
        rich_help_panel=WHAT,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting, repeatable: train.steps=480, kore-null.rank=64.",
        metavar="NAME=VALUE",
        callback=merge_settings,
        rich_help_panel=WHAT,
    ),
]
Tuning = Annotated[
    str,
    typer.Option(
        help="File of tuned rates (default: the one shipped for the model).", metavar="FILE", rich_help_panel=WHAT
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="A Python file that adds methods, tasks or reports, repeatable.", metavar="FILE"),
]
Name = Annotated[
    str,
    typer.Option(
        help="Name of the run (default: the model's); the same name goes on with it.",
        metavar="NAME",
        rich_help_panel=HOW,
    ),
]
Folder = Annotated[Path, typer.Option(help="Where runs are kept.", metavar="FOLDER", rich_help_panel=HOW)]
Jobs = Annotated[
    int,
    typer.Option(help="Cells at once (0: as many as this machine carries).", min=0, metavar="N", rich_help_panel=HOW),
]
GpusPerCell = Annotated[
    int,
    typer.Option(help="GPUs that train and evaluate one cell together.", min=1, metavar="N", rich_help_panel=HOW),
]
Again = Annotated[
    Rerun,
    typer.Option(help="Which finished cells run again: never, failed or always.", metavar="WHICH", rich_help_panel=HOW),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run/--no-dry-run",
        help="Check everything, list the cells and what they take, run none.",
        show_default=False,
        rich_help_panel=HOW,
    ),
]
GpuName = Annotated[
    str,
    typer.Option(
        help="Estimate hours on this GPU, and refuse what it cannot hold: h100-80gb.",
        metavar="NAME",
        rich_help_panel=HOW,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of options under their own names; the command line has the last word.",
        metavar="FILE",
        callback=read_config,
        is_eager=True,
    ),
]
SaveConfig = Annotated[
    Path | None,
    typer.Option(help="Write this command's options for --config, once they are checked, and go on.", metavar="FILE"),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, such as runs/mini-llava.", metavar="RUN")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
