"""The options that commands share, under their own names, and what each may be; their help is what `--help` says."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kore_bench.config import merge_settings, read_config
from kore_bench.plan_files import choose_model, choose_plan

WHAT = "What is compared"
HOW = "How it runs"

METHODS = "full, lora, replay, ewc, kore-augmentation, kore-null, kore, frozen-random, frozen-top"
SCALES = "0.5,0.75"
CONTRASTS = "kore/lora, kore-null/lora, kore-null/frozen-random, kore/ewc, kore-augmentation/lora"
TASKS = "adaptation, retention, old-facts, paraphrase, portability, image-necessity, spill-over, likelihood"


class Kind(StrEnum):
    """What `list` can list."""

    methods = "methods"
    models = "models"
    tasks = "tasks"
    reports = "reports"
    generators = "generators"
    plans = "plans"


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


class Strategy(StrEnum):
    """How the processes of a cell share its model."""

    ddp = "ddp"
    fsdp2 = "fsdp2"


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
        help="Model card ([bold]kore-bench list models[/]), folder, or hub id.",
        metavar="NAME",
        rich_help_panel=WHAT,
        callback=choose_model,
        is_eager=True,
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
LmEvalPath = Annotated[
    str,
    typer.Option(
        help="Folder of lm-eval task files (YAML) of your own, for lm-eval:NAME.",
        metavar="FOLDER",
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
PlanName = Annotated[
    str,
    typer.Option(
        "--plan",
        help="A whole comparison: [bold]paper/table1[/] ([bold]kore-bench list plans[/]), or a YAML file; options have the last word.",
        metavar="NAME",
        rich_help_panel=WHAT,
        callback=choose_plan,
        is_eager=True,
    ),
]
Sweep = Annotated[
    list[str] | None,
    typer.Option(
        help="A row for each value, repeatable: kore-null.rank=64,128,256.",
        metavar="NAME=V,V",
        rich_help_panel=WHAT,
    ),
]
Tuning = Annotated[
    str,
    typer.Option(
        help="File of tuned rates (default: the one shipped for the model).", metavar="FILE", rich_help_panel=WHAT
    ),
]
Limit = Annotated[
    int,
    typer.Option(
        help="Questions a task, drawn by whole groups under a fixed seed (0: all); reports mark such scores.",
        min=0,
        metavar="N",
        rich_help_panel=WHAT,
    ),
]
Judge = Annotated[
    str,
    typer.Option(
        help="Model that grades the answers of judged tasks; the key is read from KORE_BENCH_JUDGE_KEY.",
        metavar="NAME",
        rich_help_panel=WHAT,
    ),
]
JudgeUrl = Annotated[
    str,
    typer.Option(
        help="OpenAI-compatible endpoint of the judge (default: OpenAI's own): http://localhost:8000/v1.",
        metavar="URL",
        rich_help_panel=HOW,
    ),
]
Llm = Annotated[
    str,
    typer.Option(
        help="Language model that generators such as openai and hf write with; the key is read from OPENAI_API_KEY.",
        metavar="NAME",
        rich_help_panel=WHAT,
    ),
]
BaseUrl = Annotated[
    str,
    typer.Option(
        help="OpenAI-compatible endpoint of the language model (default: OpenAI's own): http://localhost:8000/v1.",
        metavar="URL",
        rich_help_panel=HOW,
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline/--no-offline",
        help="Download nothing: a task whose data are not here is skipped.",
        show_default=False,
        rich_help_panel=HOW,
    ),
]
Contrasts = Annotated[
    str,
    typer.Option(
        help="What the run is to tell, named before it: pairs of methods, with commas ([bold]none[/]: all is exploratory).",
        metavar="A/B,A/B",
        rich_help_panel=WHAT,
    ),
]
Scales = Annotated[
    str,
    typer.Option(
        "--frontier",
        help="Evaluate parts of each cell's change too, on a sample of questions: a curve a method ([bold]none[/]: no curve).",
        metavar="S,S",
        rich_help_panel=HOW,
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
StrategyName = Annotated[
    Strategy,
    typer.Option(
        help="How the GPUs of a cell share a model: ddp (each has all of it), or fsdp2 (each a part, while training).",
        metavar="NAME",
        rich_help_panel=HOW,
    ),
]
ReportTo = Annotated[
    str,
    typer.Option(
        help="Also send training rows to these, with commas: tensorboard, wandb.", metavar="NAMES", rich_help_panel=HOW
    ),
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


def names(text: str) -> tuple[str, ...]:
    """Return what an option names with commas between."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
