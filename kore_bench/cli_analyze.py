"""The commands below `kore-bench analyze` and their help; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kore_bench.options import Calibration, Data, Debug, Folder, Limit, Model, Plugins, Settings, Tasks, names

app = typer.Typer(help="Look into a model: what its weights and inputs hold.", no_args_is_help=True)
out = Console(highlight=False)

Name = Annotated[
    str,
    typer.Option(
        help="Name of the folder in --runs (default: the model's and the analysis's); the same name goes on with it.",
        metavar="NAME",
    ),
]
Seed = Annotated[int, typer.Option(help="The seed that samples are drawn under.", min=0)]


@app.command("co-svd")
def co_svd(
    model: Model = "mini-llava",
    data: Data = "mini",
    tasks: Tasks = "retention, old-facts",
    remove: Annotated[
        str, typer.Option(help="Components removed, with commas (default: 1/8 to 3/4 of the narrowest layer's).")
    ] = "",
    calibration: Calibration = "",
    samples: Annotated[int, typer.Option(help="Number of old samples (0: 256, or old.samples).", min=0)] = 0,
    seed: Seed = 0,
    limit: Limit = 0,
    set_: Settings = None,
    name: Name = "",
    runs: Folder = Path("runs"),
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """Remove the least components of every weight by SVD, ASVD and CO-SVD, and score what is left.

    Points that are scored are not scored again: the same command goes on where an interrupted one stopped.
    """
    from kore_bench.co_svd import co_svd_session
    from kore_bench.plan import Request

    given = {"old.calibration": calibration, "old.samples": str(samples or "")}
    request = Request(
        methods=("lora",), model=model, data=data, tasks=names(tasks), seeds=(seed,), plugins=tuple(plugin or ()),
        settings=(*(set_ or ()), *(f"{key}={value}" for key, value in given.items() if value)), limit=limit,
    )  # fmt: skip
    raise typer.Exit(co_svd_session(request, remove, runs, name, seed=seed, out=out))


@app.command("covariance")
def covariance(
    model: Model = "mini-llava",
    data: Data = "mini",
    sets: Annotated[
        str,
        typer.Option(
            help="Skills of the old samples, [bold]injection[/], tasks or paths, with commas (default: all skills and "
            "injection).",
            metavar="NAMES",
        ),
    ] = "",
    layers: Annotated[
        str,
        typer.Option(
            help="Linear layers by the end of their names, with commas: 0.mlp.down_proj (default: attention's and the "
            "last input of the first, middle and last block).",
            metavar="NAMES",
        ),
    ] = "",
    samples: Annotated[int, typer.Option(help="Samples of each set, at most.", min=2)] = 64,
    seed: Seed = 0,
    set_: Settings = None,
    name: Name = "",
    runs: Folder = Path("runs"),
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """Draw the covariances of chosen layers' inputs on several sets, and say how alike the sets are.

    What is measured stays in the cache: the same command goes on where an interrupted one stopped.
    """
    from kore_bench.covariance_maps import covariance_maps_session
    from kore_bench.plan import Request

    request = Request(
        methods=("lora",), model=model, data=data, settings=tuple(set_ or ()), plugins=tuple(plugin or ()),
        seeds=(seed,),
    )  # fmt: skip
    code = covariance_maps_session(
        request, names(sets), names(layers), runs, name, samples=samples, seed=seed, out=out
    )  # fmt: skip
    raise typer.Exit(code)
