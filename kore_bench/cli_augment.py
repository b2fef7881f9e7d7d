"""The commands below `kore-bench augment` and their help; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from kore_bench.options import Debug, Offline, Plugins, names

MAKE = "make"
WRITES, COSTS, HOW = "What writes and what is written", "What it may cost", "How it runs"


class Group(TyperGroup):
    """A group whose `MAKE` need not be said: ``kore-bench augment DATA`` is ``kore-bench augment make DATA``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name in front of arguments that begin with no command's."""
        said = not args or args[0] in {*self.commands, "--help"}
        return super().parse_args(ctx, args if said else [MAKE, *args])


app = typer.Typer(
    cls=Group,
    help="Turn knowledge items into checked training data: `augment DATA` is short for `augment make DATA`.",
    no_args_is_help=True,
)
out = Console(highlight=False)


@app.command(MAKE)
def make(
    data: Annotated[
        str,
        typer.Argument(help="Knowledge folder in EVOKE's form, or [bold]mini[/].", metavar="DATA"),
    ],
    to: Annotated[
        Path,
        typer.Option("--out", help="Folder of the data set; the same one goes on where it stopped.", metavar="DIR"),
    ],
    generator: Annotated[
        str,
        typer.Option(
            help="What writes; see [bold]kore-bench list generators[/].", metavar="NAME", rich_help_panel=WRITES
        ),
    ] = "template",
    llm: Annotated[
        str,
        typer.Option(help="The language model, as its endpoint calls it.", metavar="NAME", rich_help_panel=WRITES),
    ] = "",
    base_url: Annotated[
        str,
        typer.Option(
            help="OpenAI-compatible endpoint (default: OpenAI's own): http://localhost:8000/v1.",
            metavar="URL",
            rich_help_panel=WRITES,
        ),
    ] = "",
    images: Annotated[
        str,
        typer.Option(
            help="Further images: [bold]none[/] (those that the data name, else changed copies of the item's own), or "
            "[bold]folder:DIR[/], searched by CLIP.",
            metavar="SOURCE",
            rich_help_panel=WRITES,
        ),
    ] = "none",
    clip: Annotated[
        str,
        typer.Option(
            help="CLIP model that searches it, a folder or hub id (default: openai/clip-vit-large-patch14).",
            metavar="NAME",
            rich_help_panel=WRITES,
        ),
    ] = "",
    recognition: Annotated[
        str,
        typer.Option(
            help="Recognition answers: [bold]paper[/] (always yes) or [bold]balanced[/] (half no; default: paper).",
            metavar="WHICH",
            rich_help_panel=WRITES,
        ),
    ] = "",
    decontaminate: Annotated[
        bool,
        typer.Option(
            "--decontaminate/--no-decontaminate",
            help="Leave out what stands in the evaluation too (it is reported anyway).",
            rich_help_panel=WRITES,
        ),
    ] = False,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="Formats, with commas: llava (always), llama-factory, huggingface.",
            metavar="NAMES",
            rich_help_panel=WRITES,
        ),
    ] = "llava",
    limit: Annotated[
        int, typer.Option(help="The first N items only (0: all).", min=0, metavar="N", rich_help_panel=WRITES)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of every draw.", min=0, metavar="N", rich_help_panel=WRITES)] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of kore-augmentation, repeatable: kore-augmentation.turns=5.",
            metavar="NAME=VALUE",
            rich_help_panel=WRITES,
        ),
    ] = None,
    max_cost: Annotated[
        float,
        typer.Option(
            help="US dollars that the data set may cost in all; at this it stops with exit code 3 (0: no limit).",
            min=0,
            metavar="USD",
            rich_help_panel=COSTS,
        ),
    ] = 0.0,
    price_in: Annotated[
        float, typer.Option(help="US dollars a million tokens read.", min=0, metavar="USD", rich_help_panel=COSTS)
    ] = 0.0,
    price_out: Annotated[
        float, typer.Option(help="US dollars a million tokens written.", min=0, metavar="USD", rich_help_panel=COSTS)
    ] = 0.0,
    in_flight: Annotated[
        int, typer.Option(help="Items written about at once.", min=1, metavar="N", rich_help_panel=HOW)
    ] = 16,
    offline: Offline = False,
    plugin: Plugins = None,
    debug: Debug = False,
) -> None:
    """Grow a knowledge tree from every item, check every text of it, and write the training data.

    Each item is kept as it is done: the same command goes on where an interrupted one stopped. Exit code 2 for what you
    can mend, 3 where the cost limit is reached.
    """
    from kore_bench.augment.session import Request, augment_session
    from kore_bench.generators import GeneratorSettings

    settings = GeneratorSettings(
        llm=llm, base_url=base_url, price_in=price_in, price_out=price_out, max_cost=max_cost, offline=offline
    )
    request = Request(
        data=data, out=to, generator=generator, llm=settings, images=images, clip=clip, recognition=recognition,
        decontaminate=decontaminate, in_flight=in_flight, formats=names(formats), seed=seed, limit=limit,
        settings=tuple(set_ or ()), plugins=tuple(plugin or ()),
    )  # fmt: skip
    raise typer.Exit(augment_session(request, out))


@app.command()
def preview(
    folder: Annotated[
        Path, typer.Argument(help="Folder that [bold]--out[/] has written, finished or not.", metavar="DIR")
    ],
    debug: Debug = False,
) -> None:
    """Write DIR/preview.html: every item as a tree, with what was refused and what stands in the evaluation too."""
    from kore_bench.augment.preview import write_preview

    out.print(str(write_preview(folder)), soft_wrap=True, markup=False)
