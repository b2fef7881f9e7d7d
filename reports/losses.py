"""Training-loss curves, a small panel a method, plain and augmented data apart: their losses do not compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from kore_bench.results import RunFolder

from .drawing import GRID, Picture, figure_report, look, panels, plain
from .summary import Row, Summary

Curve = Sequence[tuple[float, float]]
"""(step, loss), by step."""

_POINTS = 80  # of a curve that is two inches wide; every step would make the page heavy


def draw(run: RunFolder, summary: Summary) -> Picture | None:
    """Return the loss curves of one model, None where no cell has logged any."""
    curves = {row.method: found for row in summary.trained if (found := _curves(run, row))}
    if not curves:
        return None
    kinds: dict[str, list[Row]] = {}
    for row in summary.trained:
        if row.method in curves:
            kinds.setdefault(row.training_data, []).append(row)
    figure, groups = panels(
        f"Training loss on {plain(summary.model)}",
        {
            f"{kind} data: compare losses within this group only": [plain(row.method, 26) for row in rows]
            for kind, rows in kinds.items()
        },
        across="optimizer step",
        up="task loss",
    )
    for axes, rows in zip(groups, kinds.values(), strict=True):
        highest = max(loss for row in rows for curve in curves[row.method] for _, loss in curve)
        longest = max(step for row in rows for curve in curves[row.method] for step, _ in curve)
        for panel, row in zip(axes, rows, strict=True):
            for other in rows:
                _lines(panel, curves[other.method], GRID, 0.9, 1.0)
            _lines(panel, curves[row.method], look(row.method).colour, 1.6, 2.0)
            panel.set_xlim(0, longest)
            panel.set_ylim(0, highest * 1.05)
    return Picture(
        title=f"Training loss on {summary.model}",
        caption="Cross-entropy of the answer's tokens (nats), penalties not included"
        + (", one line a seed" if len(summary.seeds) > 1 else "")
        + "; running means over a twentieth of the training. Grey: the other methods of the same group. Plain and "
        "augmented data are different texts: compare losses within a group only, and not as a measure of learning.",
        alt="Training-loss curves, first and last value: "
        + "; ".join(f"{name} {found[0][0][1]:.2f} to {found[0][-1][1]:.2f}" for name, found in curves.items())
        + ".",
        figure=figure,
    )


def _curves(run: RunFolder, row: Row) -> list[Curve]:
    found = (_smooth(run.training_log(record)) for record in row.done)
    return [curve for curve in found if curve]


def _smooth(log: Sequence[Mapping[str, float]]) -> Curve:
    """Return (step, running mean of the loss over a twentieth of the rows); rows without a finite loss are left out."""
    points = [(row["step"], row["loss"]) for row in log if math.isfinite(row.get("loss", math.nan))]
    half = len(points) // 40
    means = [
        (step, sum(loss for _, loss in near) / len(near))
        for index, (step, _) in enumerate(points)
        if (near := points[max(0, index - half) : index + half + 1])
    ]
    return means[:: max(1, len(means) // _POINTS)]


def _lines(axes: Axes, curves: Sequence[Curve], colour: str, width: float, order: float) -> None:
    for curve in curves:
        steps, values = [step for step, _ in curve], [loss for _, loss in curve]
        axes.plot(steps, values, color=colour, linewidth=width, zorder=order)


REPORT = figure_report("losses", "Training-loss curves", draw)
