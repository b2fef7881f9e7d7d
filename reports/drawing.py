"""What figures share: one look a method, small panels, and byte-equal SVG and PNG files."""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kore_bench.report import Report
from kore_bench.results import RunFolder, write_text

from .summary import Summary, summarise

INK, MUTED, GRID, PAPER = "#1b1e23", "#5b6472", "#d9dde3", "#ffffff"
"""Colours of text, secondary text, lines and ground; a page may exchange them for its own (dark mode)."""

_LOOKS = {
    "base": (INK, "x"),
    "in-context": (MUTED, "d"),
    "full": ("#a6611a", "s"),
    "lora": ("#1f78b4", "o"),
    "replay": ("#1b9e77", "^"),
    "ewc": ("#9467bd", "D"),
    "kore-augmentation": ("#c98500", "P"),
    "kore-null": ("#d6569b", "h"),
    "kore": ("#d62f1f", "*"),
    "frozen-random": ("#8a8a8a", "v"),
    "frozen-top": ("#64748b", "<"),
}
_OTHER_COLOURS = ("#0f9bb0", "#7f8c00", "#b0413e", "#3f7d20", "#5a5fcf", "#b8860b")
_OTHER_MARKERS = ("p", ">", "d", "H", "8")
_SIZES = {"*": 13.0, "P": 9.0, "h": 9.0, "H": 9.0, "D": 7.5, "d": 9.0}

_STYLE = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "kore-bench",  # equal records, equal bytes
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


class Look(NamedTuple):
    """How a method is drawn in every figure."""

    colour: str
    marker: str
    size: float


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn figure with what a reader needs beside it: title, caption and a text for those who cannot see it."""

    title: str
    caption: str
    alt: str
    figure: Figure


def look(method: str) -> Look:
    """Return a method's look; a mixture takes the colour of its first and the marker of its last part.

    A variant (``kore:rank=64``) has its method's colour and a marker of its own.

    A method that is not in the table gets a look of its own from its name, the same in every run.
    """
    plain, _, settings = method.partition(":")
    parts = plain.split("+")
    colour, marker = _look_of(parts[0])[0], _look_of(settings or parts[-1])[1]
    return Look(colour, marker, _SIZES.get(marker, 8.0))


def _look_of(part: str) -> tuple[str, str]:
    code = zlib.crc32(part.encode())
    other = (_OTHER_COLOURS[code % len(_OTHER_COLOURS)], _OTHER_MARKERS[code // 64 % len(_OTHER_MARKERS)])
    return _LOOKS.get(part, other)


def plain(text: str, length: int = 40) -> str:
    """Return ``text`` on one line, cut to ``length``, with dollars that start no formula."""
    line = " ".join(text.split())
    line = line if len(line) <= length else line[: length - 1].rstrip() + "…"
    return line.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of ``width`` x ``height`` inches that can measure its own texts."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


Draw = Callable[[RunFolder, Summary], Picture | None]
"""Draws one model's part of a run, None where it has nothing to show."""


def figure_report(name: str, title: str, draw: Draw) -> Report:
    """Return the report of a figure; its files are ``figures/<name>.svg`` and ``.png``."""
    return Report(
        name=name,
        title=title,
        kind="figure",
        build=lambda run, folder: build_pictures(run, folder, name, draw),
        draw=lambda run: [picture.figure for _, picture in pictures(run, summarise(run), draw)],
    )


def pictures(run: RunFolder, summaries: Sequence[Summary], draw: Draw) -> list[tuple[Summary, Picture]]:
    """Return what ``draw`` draws of each model, in this look whatever the user's own matplotlib settings are."""
    with _style():
        drawn = [(summary, draw(run, summary)) for summary in summaries]
    return [(summary, picture) for summary, picture in drawn if picture is not None]


def build_pictures(run: RunFolder, folder: Path, name: str, draw: Draw) -> list[Path]:
    """Write ``figures/<name>.svg`` and ``.png``, or one pair a model where the run has several.

    A figure that an earlier build left and that this run no longer has is removed.
    """
    for pattern in (f"{name}.svg", f"{name}.png", f"{name}--*.svg", f"{name}--*.png"):
        for stale in (folder / "figures").glob(pattern):
            stale.unlink()
    files: list[Path] = []
    summaries = summarise(run)
    for summary, picture in pictures(run, summaries, draw):
        with _style():
            files += _save(picture, folder / "figures", stem(name, summary.model, len(summaries) > 1))
    return files


def write_picture(draw: Callable[[], Picture], folder: Path, name: str) -> list[Path]:
    """Draw a picture in this look and write ``figures/<name>.svg``, ``.png`` and ``.pdf``."""
    with _style():
        picture = draw()
        files = _save(picture, folder / "figures", name)
        about = {"Title": picture.title, "Subject": picture.caption, "CreationDate": None, "Creator": None}
        files.append(folder / "figures" / f"{name}.pdf")
        picture.figure.savefig(files[-1], format="pdf", metadata=about)
    return files


def stem(name: str, model: str, several: bool) -> str:
    """Return a figure's file name without its ending; runs of several models name the model too."""
    return f"{name}--{re.sub(r'[^A-Za-z0-9.-]+', '-', model)}" if several else name


def _save(picture: Picture, folder: Path, name: str) -> list[Path]:
    text = io.StringIO()
    about: dict[str, Any] = {"Title": picture.title, "Description": picture.caption, "Date": None, "Creator": None}
    picture.figure.savefig(text, format="svg", metadata=about)
    alt = picture.alt.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    svg = (
        text.getvalue().replace("<svg ", '<svg role="img" ', 1).replace("</title>", f"</title>\n <desc>{alt}</desc>", 1)
    )
    files = [folder / f"{name}.svg", folder / f"{name}.png"]
    write_text(files[0], svg)
    picture.figure.savefig(files[1], format="png", dpi=144, metadata={"Software": None})
    return files


@contextmanager
def _style() -> Iterator[None]:
    """Draw with this look alone, whatever the user's own matplotlib settings are."""
    own: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key}
    with matplotlib.rc_context(own | _STYLE):
        yield


def panels(title: str, groups: dict[str, list[str]], *, across: str, up: str) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of small panels in titled groups, and each group's axes in order.

    ``groups`` maps a group's title (empty: the line stays free for a legend) to its panels' titles. Panels of the left
    column carry the label ``up``, the last of each column ``across``. All panels of a figure are equally large; there
    are four or, where that leaves less empty space and the titles are short, five to a row.
    """
    longest = max(len(panel) for names in groups.values() for panel in names)
    choices = (4, 5) if longest <= 20 else (4,)
    columns = min(choices, key=lambda columns: sum(-len(names) % columns for names in groups.values()))
    left, gap, high, head, step = 0.72, 0.28, 1.3, 0.62, 1.72
    wide = 8.0 / columns - gap
    rows = {name: math.ceil(len(names) / columns) for name, names in groups.items()}
    width, height = left + 8.0, 0.55 + sum(head + count * step for count in rows.values())
    figure = new_figure(width, height)
    figure.text(0.12 / width, 1 - 0.32 / height, title, fontsize=12)
    top, found = height - 0.5, []
    for name, names in groups.items():
        figure.text(0.12 / width, (top - 0.2) / height, name, fontsize=10.5, color=MUTED, weight="bold")
        axes = []
        for index, panel in enumerate(names):
            line, column = divmod(index, columns)
            bottom = top - head + 0.12 - high - line * step
            spot = ((left + column * (wide + gap)) / width, bottom / height, wide / width, high / height)
            one = figure.add_axes(spot)
            one.set_title(panel, loc="left", fontsize=9.5, pad=4)
            one.tick_params(labelsize=8.5, length=2, labelleft=not column, labelbottom=index + columns >= len(names))
            one.set_ylabel("" if column else up, fontsize=9)
            one.set_xlabel(across if index + columns >= len(names) else "", fontsize=9)
            axes.append(one)
        found.append(axes)
        top -= head + rows[name] * step
    return figure, found
