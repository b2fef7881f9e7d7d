"""Frontiers: what each method keeps at every level of what it learns, its change scaled down without retraining."""

from __future__ import annotations

from itertools import pairwise

from kore_bench.results import RunFolder

from .drawing import MUTED, PAPER, Picture, figure_report, look, new_figure, plain
from .frontier_table import Point, frontier
from .labels import place_labels
from .summary import Summary


def draw(run: RunFolder, summary: Summary) -> Picture | None:
    """Return the frontiers of one model, None where no cell was scaled."""
    found = {row.method: points for row in summary.trained if (points := frontier(run, row))}
    if not found:
        return None
    rows = [row for row in summary.trained if row.method in found]
    figure = new_figure(8.0, 6.2)
    axes = figure.add_axes((0.085, 0.105, 0.895, 0.83))
    for row in rows:
        shown, points = look(row.method), found[row.method]
        axes.plot(
            [point.ka for point in points], [point.kr for point in points], color=shown.colour, linewidth=1.5,
            marker=".", markersize=5, linestyle="-" if row.training_data == "augmented" else (0, (4, 2)),
        )  # fmt: skip
        axes.plot(
            points[-1].ka, points[-1].kr, color=shown.colour, marker=shown.marker, markersize=shown.size,
            markerfacecolor=PAPER if row.training_data == "plain" else shown.colour, markeredgewidth=1.6,
        )  # fmt: skip
    start = found[rows[0].method][0]
    axes.axhline(start.kr, color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
    axes.set_xlabel("adaptation: K.A (%)  →  learned more")
    axes.set_ylabel("retention: K.R (%)  →  forgot less")
    axes.set_title(f"Frontiers on {plain(summary.model)}", loc="left")
    ends = [(found[row.method][-1].ka, found[row.method][-1].kr) for row in rows]
    place_labels(
        axes, [*ends, (start.ka, start.kr)], [*(plain(row.method, 32) for row in rows), "base"], strokes=_strokes(found)
    )
    scales = sorted({point.scale for points in found.values() for point in points} - {0.0, 1.0})
    absent = [row.method for row in summary.trained if row.method not in found]
    return Picture(
        title=f"Frontiers on {summary.model}",
        caption="Each curve runs from the base (0) over "
        + ", ".join(f"{scale:g}" for scale in scales)
        + " of what training changed to the method as trained (its sign); upper right is better, and a method is better "
        "than another at equal adaptation where its curve runs above. Dashed: trained on plain data. Means over "
        f"{len(summary.seeds)} seed{'s' if len(summary.seeds) > 1 else ''}; the axes do not start at zero."
        + (f" Without a frontier: {', '.join(absent)}." if absent else ""),
        alt="Curves of K.A and K.R in percent: "
        + "; ".join(
            f"{name} " + ", ".join(f"{point.ka:.1f} and {point.kr:.1f} at {point.scale:g}" for point in points)
            for name, points in found.items()
        )
        + ".",
        figure=figure,
    )


def _strokes(found: dict[str, list[Point]]) -> list[tuple[float, ...]]:
    return [(one.ka, one.kr, other.ka, other.kr) for points in found.values() for one, other in pairwise(points)]


REPORT = figure_report("frontier", "Frontiers of adaptation and retention", draw)
