"""Where each method forgot: a heat map of the change against the base in the seven retention dimensions."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patches import Rectangle

from kore_bench.results import RunFolder

from .dimensions_table import CLEAR
from .drawing import GRID, INK, MUTED, PAPER, Picture, figure_report, new_figure, plain
from .summary import DIMENSIONS, Row, Summary, old_skills
from .tabular import DASH, signed

_COLUMNS = (*DIMENSIONS, "K.R")
_GAP = 0.25  # sets K.R, the mean, apart from what it is the mean of
_DARK, _LIGHT = "#101214", "#fdfdfd"  # on coloured cells, whatever the page's colours


def draw(run: RunFolder, summary: Summary) -> Picture | None:
    """Return the heat map of one model, None where there is no base to compare with or nothing trained."""
    rows = [row for row in summary.rows if not row.reference]
    changes = [abs(change) for row in rows for name, change in row.change.items() if name in _COLUMNS]
    if summary.base is None or not changes:
        return None
    largest = max(changes)
    norm = TwoSlopeNorm(0.0, -max(largest, 5.0), max(largest, 5.0))
    names = [plain(row.method, 30) for row in rows]
    left = 0.35 + 0.085 * max(map(len, names))
    width, height = left + 0.68 * (len(_COLUMNS) + _GAP) + 0.15, 0.36 * len(rows) + 1.6
    figure = new_figure(width, height)
    axes = figure.add_axes((left / width, 0.85 / height, 1 - (left + 0.15) / width, 0.36 * len(rows) / height))
    for line, row in enumerate(rows):
        _line(axes, line, row, norm)
    axes.set_xlim(0, len(_COLUMNS) + _GAP)
    axes.set_ylim(len(rows), 0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    skills = set(old_skills(summary.base.any_record)) if len(summary.seeds) == 1 else set()
    heads = [f"{name} •" if name in skills else name for name in _COLUMNS]
    axes.set_xticks([_x(index) + 0.5 for index in range(len(_COLUMNS))], heads)
    axes.xaxis.tick_top()
    axes.set_yticks(np.arange(len(rows)) + 0.5, names)
    figure.text(
        0.1 / width, 1 - 0.28 / height, f"Change against the base on {plain(summary.model)} (points)", fontsize=11
    )
    _scale(figure.add_axes((left / width, 0.42 / height, 0.45, 0.13 / height)), norm)
    return Picture(
        title=f"Retention by dimension on {summary.model}: change against the base",
        caption=_caption(summary, rows, bool(skills)),
        alt="Heat map of the change against the base in points: "
        + "; ".join(
            f"{row.method} "
            + ", ".join(f"{name} {signed(row.change[name])}" for name in _COLUMNS if name in row.change)
            for row in rows
            if row.change
        )
        + ".",
        figure=figure,
    )


def _x(index: int) -> float:
    return index + (_GAP if index == len(DIMENSIONS) else 0.0)


def _line(axes: Axes, line: int, row: Row, norm: TwoSlopeNorm) -> None:
    if not row.done:
        axes.add_patch(Rectangle((0, line), len(_COLUMNS) + _GAP, 1, facecolor=GRID, edgecolor=PAPER, linewidth=2))
        text = plain(f"{row.status}: {row.reason}", 70)
        axes.text((len(_COLUMNS) + _GAP) / 2, line + 0.5, text, ha="center", va="center", color=INK, fontsize=9)
        return
    for index, name in enumerate(_COLUMNS):
        change = row.change.get(name)
        shade = matplotlib.colormaps["RdBu"](norm(change)) if change is not None else GRID
        axes.add_patch(Rectangle((_x(index), line), 1, 1, facecolor=shade, edgecolor=PAPER, linewidth=2))
        dark = change is None or abs(float(norm(change)) - 0.5) < 0.33
        axes.text(
            _x(index) + 0.5, line + 0.5, DASH if change is None else signed(change), ha="center", va="center",
            color=INK if change is None else _DARK if dark else _LIGHT, weight="bold" if name in row.clear and len(row.seeds) > 1 else "normal",
        )  # fmt: skip


def _scale(axes: Axes, norm: TwoSlopeNorm) -> None:
    ramp = np.linspace(float(norm.vmin or 0), float(norm.vmax or 0), 256)[None]
    axes.imshow(ramp, cmap="RdBu", norm=norm, aspect="auto", extent=(float(ramp.min()), float(ramp.max()), 0, 1))
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    ends = [float(ramp.min()), 0.0, float(ramp.max())]
    axes.set_xticks(ends, [f"{signed(ends[0])} forgot", "0", f"{signed(ends[2])} gained"], fontsize=9, color=MUTED)


def _caption(summary: Summary, rows: list[Row], marked: bool) -> str:
    text = "Accuracy minus the base's, in points" + (", mean over seeds" if len(summary.seeds) > 1 else "")
    text += ". K.R is the mean of the seven."
    if len(summary.seeds) > 1:
        text += f" {CLEAR.format('Bold')}"
    if marked:
        text += " A dot marks the skills that calibration, Fisher information and replay drew on."
    elif len(summary.seeds) > 1:
        text += " The skills that calibration, Fisher information and replay drew on rotate with the seed."
    lost = [row.method for row in rows if not row.done]
    return text + (f" Grey rows have no result: {', '.join(lost)}." if lost else "")


REPORT = figure_report("dimensions", "Change against the base by dimension", draw)
