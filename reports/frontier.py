"""Frontiers: what each method keeps at every level of what it learns, on skills that methods saw and on the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from kore_bench.results import RunFolder

from .curves import Point, curves, frontier, missing
from .drawing import INK, MUTED, PAPER, Picture, figure_report, look, new_figure, plain
from .frontier_table import sample_note
from .labels import place_labels
from .summary import Row, Summary

TWINS = {"K.R calibrated": "skills with old samples", "K.R held-out": "skills without any"}
_WHOLE = {"K.R": "all skills"}
_NAMED = 12
"""With more methods than that their names do not fit beside the curves: numbers stand there, and names below."""

Found = Mapping[str, list[Point]]
"""Method -> its curve in one panel."""


class _Oval(NamedTuple):
    """One standard deviation around a chosen point: full widths along two axes, and the angle of the first in degrees."""

    width: float
    height: float
    angle: float


def draw(run: RunFolder, summary: Summary) -> Picture | None:
    """Return the frontiers of one model, None where no cell was scaled."""
    panels = {
        name: {row.method: points for row in summary.trained if (points := frontier(run, row, name))} for name in TWINS
    }
    titles = TWINS if all(panels.values()) else _WHOLE
    if titles is _WHOLE:
        panels = {"K.R": {row.method: points for row in summary.trained if (points := frontier(run, row))}}
    rows = [row for row in summary.trained if any(row.method in found for found in panels.values())]
    if not rows:
        return None
    below = 0.75 + (0.0 if len(rows) <= _NAMED else 0.3 + 0.18 * math.ceil(len(rows) / 4))
    wide, high = 4.6 if len(titles) == 2 else 7.4, 4.7
    width, height = 0.75 + len(titles) * (wide + 0.3), high + below + 0.75
    figure = new_figure(width, height)
    axes: list[Axes] = []
    for index, (measure, title) in enumerate(titles.items()):
        spot = ((0.75 + index * (wide + 0.3)) / width, below / height, wide / width, high / height)
        panel = figure.add_axes(spot, sharex=axes[0] if axes else None, sharey=axes[0] if axes else None)
        panel.tick_params(labelleft=not index)
        panel.set_title(f"{measure}: {title}", loc="left", fontsize=10.5)
        panel.set_xlabel("adaptation: K.A (%)  →  learned more")
        axes.append(panel)
    axes[0].set_ylabel("retention (%)  →  forgot less")
    figure.text(0.75 / width, 1 - 0.3 / height, f"Frontiers on {plain(summary.model)}", fontsize=12)
    _limits(axes[0], list(panels.values()))
    for panel, measure in zip(axes, titles, strict=True):
        _panel(panel, run, summary, rows, panels[measure], measure)
    _key(figure, rows, below)
    return Picture(
        title=f"Frontiers on {summary.model}",
        caption=_caption(run, summary, rows, titles),
        alt=_words(panels),
        figure=figure,
    )


def _panel(axes: Axes, run: RunFolder, summary: Summary, rows: Sequence[Row], found: Found, measure: str) -> None:
    strokes: list[tuple[float, ...]] = []
    for row in (row for row in rows if row.method in found):
        points, shown = found[row.method], look(row.method)
        filled = shown.colour if row.training_data == "augmented" else PAPER
        axes.plot(
            [point.ka for point in points], [point.kr for point in points], color=shown.colour, linewidth=1.4,
            marker=".", markersize=4, linestyle="-" if row.training_data == "augmented" else (0, (4, 2)), zorder=2,
        )  # fmt: skip
        if oval := _oval(run, row, measure):
            axes.add_patch(
                Ellipse(
                    (points[-1].ka, points[-1].kr),
                    *oval[:2],
                    angle=oval.angle,
                    facecolor=shown.colour,
                    alpha=0.16,
                    edgecolor=shown.colour,
                    linewidth=1.0,
                    zorder=1.8,
                )
            )
        axes.plot(
            points[-1].ka, points[-1].kr, color=shown.colour, marker=shown.marker, markersize=shown.size,
            markerfacecolor=filled, markeredgewidth=1.6, zorder=3,
        )  # fmt: skip
        strokes += [(one.ka, one.kr, other.ka, other.kr) for one, other in pairwise(points)]
    start = next(iter(found.values()))[0]
    axes.plot(start.ka, start.kr, color=INK, marker="x", markersize=9, markeredgewidth=2, linestyle="none", zorder=3.5)
    axes.axhline(start.kr, color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
    _ceiling(axes, summary, start.kr)
    names = [row.method for row in rows]
    texts = [plain(name, 32) if len(rows) <= _NAMED else str(names.index(name) + 1) for name in found]
    ends = [(points[-1].ka, points[-1].kr) for points in found.values()]
    place_labels(axes, [*ends, (start.ka, start.kr)], [*texts, "base"], strokes=strokes)


def _ceiling(axes: Axes, summary: Summary, height: float) -> None:
    """Mark in-context: where it stands far to the right of all methods, at the edge, with its figure."""
    if summary.ceiling is None or "K.A" not in summary.ceiling.scores:
        return
    value, right = summary.ceiling.scores["K.A"].value, axes.get_xlim()[1]
    beyond = value > right
    axes.plot(
        min(value, right), height, color=MUTED, marker=">" if beyond else "d", markersize=9, clip_on=False,
        linestyle="none", zorder=3.5,
    )  # fmt: skip
    axes.annotate(
        f"in-context: K.A {value:.0f}" + (" →" if beyond else ""), (min(value, right), height), xytext=(0, 9),
        textcoords="offset points", ha="right", fontsize=8.5, color=MUTED,
    )  # fmt: skip


def _oval(run: RunFolder, row: Row, measure: str) -> _Oval | None:
    """Return one standard deviation around a method's chosen point: over seeds, or over questions where there is one.

    Over seeds it is the covariance of K.A and the measure. K.A and retention share no question, so that over questions
    it stands upright, from the bootstrap intervals of the two.
    """
    ends = [points[-1] for points in curves(run, row, measure).values()]
    if len(ends) > 1:
        values, vectors = np.linalg.eigh(np.cov([[point.ka, point.kr] for point in ends], rowvar=False))
        wide, high = 2 * np.sqrt(np.clip(values[::-1], 0, None))
        return _Oval(float(wide), float(high), math.degrees(math.atan2(vectors[1, 1], vectors[0, 1])))
    scores = [row.scores.get(name) for name in ("K.A", measure)]
    if not ends or None in scores:
        return None
    wide, high = ((score.high - score.low) / 1.96 for score in scores if score)
    return _Oval(wide, high, 0.0)


def _limits(axes: Axes, found: Sequence[Found]) -> None:
    points = [point for one in found for curve in one.values() for point in curve]
    for values, bound in (([p.ka for p in points], axes.set_xlim), ([p.kr for p in points], axes.set_ylim)):
        pad = max(0.09 * (max(values) - min(values)), 1.5)
        bound(min(values) - pad, max(values) + pad)


def _key(figure: Figure, rows: Sequence[Row], below: float) -> None:
    """Explain signs below the panels; with many methods their numbers too."""
    kinds = {row.training_data for row in rows}
    handles = []
    if "plain" in kinds:
        shown: dict[str, Any] = {"linestyle": (0, (4, 2)), "markerfacecolor": PAPER, "label": "trained on plain data"}
        handles.append(Line2D([], [], color=MUTED, marker="o", markersize=7, **shown))
    if "augmented" in kinds:
        handles.append(Line2D([], [], color=MUTED, marker="o", markersize=7, label="trained on augmented data"))
    figure.legend(handles=handles, loc="lower center", ncols=2, handlelength=3.4, borderaxespad=0.2)
    if len(rows) > _NAMED:
        named = [
            Line2D(
                [],
                [],
                linestyle="none",
                color=look(row.method).colour,
                marker=look(row.method).marker,
                markersize=0.8 * look(row.method).size,
                label=f"{number}  {plain(row.method, 32)}",
                markerfacecolor=look(row.method).colour if row.training_data == "augmented" else PAPER,
            )
            for number, row in enumerate(rows, 1)
        ]
        top = (0.5, (below - 0.5) / figure.get_figheight())
        figure.legend(handles=named, loc="upper center", bbox_to_anchor=top, ncols=4, fontsize=8.5, columnspacing=1.2)


def _caption(run: RunFolder, summary: Summary, rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    seeds = len(summary.seeds)
    over = "seeds (covariance of the two)" if seeds > 1 else "questions (bootstrap), as there is one seed"
    text = (
        "Each curve runs from the base (cross) over parts of what training changed, without retraining, to the method as "
        "trained (its sign); upper right is better, and at equal adaptation the upper curve keeps more. Ellipses are one "
        f"standard deviation over {over}. Means over {seeds} seed{'s' * (seeds > 1)}; the axes do not start at zero."
    )
    if len(titles) == 2:
        text += " Left: skills whose old samples methods could read under the seed; right: the others."
    text += "".join(f" {note}" for note in sample_note(run, summary))
    absent = [row for row in summary.trained if row not in rows]
    if absent:
        reasons = (f"{row.method}" + (f" ({reason})" if (reason := missing(row)) else "") for row in absent)
        text += f" Without a frontier: {', '.join(reasons)}."
    return text


def _words(panels: Mapping[str, Found]) -> str:
    return (
        ". ".join(
            f"Curves of K.A and {measure} in percent: "
            + "; ".join(
                f"{name} " + ", ".join(f"{point.ka:.1f} and {point.kr:.1f} at {point.scale:g}" for point in points)
                for name, points in found.items()
            )
            for measure, found in panels.items()
        )
        + "."
    )


REPORT = figure_report("frontier", "Frontiers of adaptation and retention", draw)
