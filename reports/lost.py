"""What was lost: what is left of each skill with intervals, old facts and what knowing reaches; in form or for good."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from kore_bench.results import RunFolder

from .drawing import GRID, INK, MUTED, PAPER, Picture, figure_report, new_figure, plain
from .essential import Lost, lost
from .forgetting import Left, left
from .summary import DIMENSIONS, Row, Summary
from .tabular import DASH

_OTHERS = ("old-facts", "portability", "spill-over")
_GAP, _WIDE, _HIGH = 0.25, 0.86, 0.5  # between kinds of columns, in cells; a cell's sides, in inches
_DARK, _LIGHT = "#101214", "#fdfdfd"  # on coloured cells, whatever the page's colours
_PARTS = {"form": "#9ecae1", "known": "#4292c6", "essential": "#b2182b"}
_WORDS = {"form": "in form", "known": "still known", "essential": "essential"}


def draw(run: RunFolder, summary: Summary) -> Picture | None:
    """Return the figure of one model, None where there is no base to compare with or nothing trained."""
    rows = [row for row in summary.trained if any(_of_skill(row, name) for name in DIMENSIONS)]
    if not rows:
        return None
    names = [plain(row.method, 30) for row in rows]
    begin, across = 0.3 + 0.085 * max(map(len, names)), _WIDE * (len(DIMENSIONS) + len(_OTHERS) + 2 * _GAP)
    parts = {row.method: found for row in rows if (found := lost(row))}
    bars, below = (3.6, 0.7) if parts else (0.0, 0.15)  # inches
    width, height = begin + across + bars + 0.2, _HIGH * len(rows) + 0.95 + below
    figure = new_figure(width, height)
    high, low = _HIGH * len(rows) / height, below / height
    axes = figure.add_axes((begin / width, low, across / width, high))
    _map(axes, rows)
    axes.set_yticks([line + 0.5 for line in range(len(rows))], names)
    if parts:
        _bars(figure.add_axes(((begin + across + 0.25) / width, low, (bars - 0.25) / width, high)), rows, parts)
    figure.text(0.1 / width, 1 - 0.28 / height, f"What was lost on {plain(summary.model)}", fontsize=12)
    return Picture(
        title=f"What was lost on {summary.model}", caption=_caption(summary, bool(parts)), alt=_alt(rows, parts),
        figure=figure,
    )  # fmt: skip


def _of_skill(row: Row, name: str) -> Left | None:
    return left(row, name, f"{name} chance")


def _map(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a line of cells a method: what is left of each skill and of old facts, then portability and spill-over."""
    reds, blues, purples = (matplotlib.colormaps[name] for name in ("RdBu", "Blues", "Purples"))
    for line, row in enumerate(rows):
        for index, name in enumerate(DIMENSIONS):
            _cell(axes, index, line, _of_skill(row, name), lambda value: reds(value / 200))
        _cell(axes, _x(0), line, left(row, "old-facts"), lambda value: reds(value / 200))
        _cell(axes, _x(1), line, _score(row, "portability"), lambda value: blues(value / 140))
        _cell(axes, _x(2), line, _score(row, "spill-over"), lambda value: purples(value / 140))
    axes.set_xlim(0, _x(len(_OTHERS)))
    axes.set_ylim(len(rows), 0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    places = [*range(len(DIMENSIONS)), *(_x(index) for index in range(len(_OTHERS)))]
    axes.set_xticks([place + 0.5 for place in places], [*DIMENSIONS, *_OTHERS])
    axes.xaxis.tick_top()


def _x(index: int) -> float:
    """Return where the columns after the skills begin."""
    return len(DIMENSIONS) + _GAP * (2 if index else 1) + index


def _score(row: Row, name: str) -> Left | None:
    score = row.scores.get(name)
    return Left(score.value, score.low, score.high) if score else None


def _cell(
    axes: Axes, x: float, line: int, found: Left | None, shade: Callable[[float], tuple[float, float, float, float]]
) -> None:
    colour = shade(min(max(found.value, 0.0), 200.0)) if found else GRID
    axes.add_patch(Rectangle((x, line), 1, 1, facecolor=colour, edgecolor=PAPER, linewidth=2))
    ink = INK if found is None else _LIGHT if _luminance(colour) < 0.45 else _DARK
    text = DASH if found is None else f"{found.value:z.0f}"
    axes.text(x + 0.5, line + 0.38, text, ha="center", va="center", color=ink, fontsize=10.5)
    if found:
        span = f"{found.low:z.0f} to {found.high:z.0f}"
        axes.text(x + 0.5, line + 0.75, span, ha="center", va="center", color=ink, fontsize=7.5)


def _luminance(colour: str | tuple[float, float, float, float]) -> float:
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _bars(axes: Axes, rows: Sequence[Row], parts: dict[str, Lost]) -> None:
    """Draw what each method lost of K.R, part by part; parts below zero are left out of the bar."""
    first = next(row for row in rows if row.method in parts)
    for line, row in enumerate(rows):
        begin = 0.0
        for name, colour in _PARTS.items() if row.method in parts else ():
            size = max(0.0, getattr(parts[row.method], name))
            axes.barh(
                line + 0.5, size, left=begin, height=0.5, color=colour, label=_WORDS[name] if row is first else ""
            )
            begin += size
        if row.method in parts:
            total = f" {parts[row.method].total:.1f}"
            axes.text(begin, line + 0.5, total, va="center", fontsize=9, color=MUTED)
    axes.set_ylim(len(rows), 0)
    axes.set_yticks([])
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_xlabel("points of K.R lost", fontsize=9.5)
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, handlelength=1, columnspacing=0.9)


def _caption(summary: Summary, bars: bool) -> str:
    seeds = len(summary.seeds)
    over = f"mean over {seeds} seeds, intervals over seeds" if seeds > 1 else "one seed, intervals over questions"
    text = (
        "Left: what is left of each skill, (score - c) / (base - c) in percent with c the best constant answer's score, and "
        f"of the old facts; beside them portability and, lower is better, spill-over in percent ({over}). A dash: not "
        "measured, or the base itself is at chance."
    )
    return text + (
        " Right: the points of K.R that were lost: in form (the answer covers the right one), still known (of a closed set "
        "of options the right one is the likeliest, or format-only steps bring it back), essential (none of these); the figure "
        "behind a bar is the whole loss."
        if bars
        else ""
    )


def _alt(rows: Sequence[Row], parts: dict[str, Lost]) -> str:
    """Return the figure in words."""
    lines = []
    for row in rows:
        shown = [f"{name} {one.value:.0f}" for name in DIMENSIONS if (one := _of_skill(row, name))]
        shown += [f"old-facts {one.value:.0f}"] if (one := left(row, "old-facts")) else []
        if row.method in parts:
            shown += [f"K.R lost {parts[row.method].total:.1f}, of it essential {parts[row.method].essential:.1f}"]
        lines.append(f"{row.method} {', '.join(shown)}")
    return f"What is left in percent: {'; '.join(lines)}."


REPORT = figure_report("lost", "What was lost", draw)
