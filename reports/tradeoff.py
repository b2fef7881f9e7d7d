"""Adaptation against retention: who learned and who forgot, with intervals, base, ceiling and Pareto front."""

from __future__ import annotations

from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kore_bench.results import RunFolder

from .drawing import MUTED, PAPER, Picture, figure_report, look, new_figure, plain
from .labels import place_labels
from .summary import Row, Summary, pareto


def draw(run: RunFolder, summary: Summary) -> Picture | None:
    """Return the trade-off of one model, None where no method has both K.A and K.R."""
    rows = [row for row in summary.trained if {"K.A", "K.R"} <= row.scores.keys()]
    if not rows:
        return None
    base = summary.base if summary.base and {"K.A", "K.R"} <= summary.base.scores.keys() else None
    ceiling = summary.ceiling if summary.ceiling and "K.A" in summary.ceiling.scores else None
    drawn = [*rows, *([base] if base else [])]

    figure = new_figure(8.0, 6.2)
    axes = figure.add_axes((0.085, 0.145, 0.895, 0.77))
    _limits(axes, drawn, ceiling)
    for row in drawn:
        _point(axes, row)
    front = pareto(rows) if all(len(row.seeds) > 1 for row in rows) else []  # it sets methods before others
    axes.plot(
        [row.scores["K.A"].value for row in front],
        [row.scores["K.R"].value for row in front],
        color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1.5,
    )  # fmt: skip
    if base:
        axes.axhline(base.scores["K.R"].value, color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
    if ceiling:
        _ceiling(axes, ceiling)
    axes.set_xlabel("adaptation: K.A (%)  →  learned more")
    axes.set_ylabel("retention: K.R (%)  →  forgot less")
    axes.set_title(f"Adaptation against retention on {plain(summary.model)}", loc="left", pad=22)
    _legend(axes, rows, len(front) > 1)
    points = [(row.scores["K.A"].value, row.scores["K.R"].value) for row in drawn]
    strokes = _strokes(drawn, front, base, ceiling)
    place_labels(axes, points, [plain(row.method, 32) for row in drawn], strokes=strokes)
    return Picture(
        title=f"Adaptation against retention on {summary.model}",
        caption=_caption(summary, rows, base, ceiling, front),
        alt="Scatter plot of K.A (across) and K.R (up), in percent: "
        + "; ".join(f"{row.method} {row.scores['K.A'].value:.1f} and {row.scores['K.R'].value:.1f}" for row in drawn)
        + (f"; in-context ceiling K.A {ceiling.scores['K.A'].value:.1f}" if ceiling else "") + ".",
        figure=figure,
    )  # fmt: skip


def _point(axes: Axes, row: Row) -> None:
    ka, kr, shown = row.scores["K.A"], row.scores["K.R"], look(row.method)
    axes.errorbar(
        ka.value, kr.value,
        xerr=[[ka.value - ka.low], [ka.high - ka.value]], yerr=[[kr.value - kr.low], [kr.high - kr.value]],
        color=shown.colour, marker=shown.marker, markersize=shown.size, linestyle="none",
        markerfacecolor=PAPER if row.training_data == "plain" else shown.colour,
        markeredgewidth=1.6, elinewidth=1.1, capsize=0, zorder=3,
    )  # fmt: skip


def _ceiling(axes: Axes, ceiling: Row) -> None:
    """Draw the in-context reference as a line: it has an adaptation but no retention of its own."""
    score = ceiling.scores["K.A"]
    axes.axvspan(score.low, score.high, color=MUTED, alpha=0.12, linewidth=0, zorder=0.5)
    axes.axvline(score.value, color=MUTED, linewidth=1.1, linestyle="-.", zorder=1)
    top = axes.get_xaxis_transform()
    axes.text(
        score.value, 1.012, "in-context ceiling", transform=top, ha="center", va="bottom", fontsize=9, color=MUTED
    )


def _limits(axes: Axes, drawn: list[Row], ceiling: Row | None) -> None:
    across = [row.scores["K.A"] for row in (*drawn, *([ceiling] if ceiling else []))]
    up = [row.scores["K.R"] for row in drawn]
    for scores, bound in ((across, axes.set_xlim), (up, axes.set_ylim)):
        low, high = min(score.low for score in scores), max(score.high for score in scores)
        pad = max(0.06 * (high - low), 1.5)
        bound(low - pad, high + pad)


def _strokes(drawn: list[Row], front: list[Row], base: Row | None, ceiling: Row | None) -> list[tuple[float, ...]]:
    """Return the straight lines of the figure: error bars, Pareto front, base and ceiling."""
    lines: list[tuple[float, ...]] = []
    for row in drawn:
        ka, kr = row.scores["K.A"], row.scores["K.R"]
        lines += [(ka.low, kr.value, ka.high, kr.value), (ka.value, kr.low, ka.value, kr.high)]
    for row, after in pairwise(front):
        ends = (row.scores["K.A"], row.scores["K.R"], after.scores["K.A"], after.scores["K.R"])
        lines.append(tuple(score.value for score in ends))
    if base:
        lines.append((-1e3, base.scores["K.R"].value, 1e3, base.scores["K.R"].value))
    if ceiling:
        lines.append((ceiling.scores["K.A"].value, -1e3, ceiling.scores["K.A"].value, 1e3))
    return lines


def _legend(axes: Axes, rows: list[Row], front: bool) -> None:
    def dot(filled: bool) -> Line2D:
        face = MUTED if filled else PAPER
        return Line2D([], [], linestyle="none", marker="o", color=MUTED, markerfacecolor=face, markersize=7)

    kinds = {row.training_data for row in rows}
    handles = [(dot(False), "trained on plain data")] if "plain" in kinds else []
    handles += [(dot(True), "trained on augmented data")] if "augmented" in kinds else []
    if front:
        handles.append((Line2D([], [], color=MUTED, linewidth=1.2, linestyle=(0, (4, 2))), "Pareto front"))
    axes.figure.legend(
        [handle for handle, _ in handles], [text for _, text in handles],
        loc="lower center", ncols=3, handlelength=2.2, columnspacing=1.6, borderaxespad=0.3,
    )  # fmt: skip


def _caption(summary: Summary, rows: list[Row], base: Row | None, ceiling: Row | None, front: list[Row]) -> str:
    several = len(summary.seeds) > 1
    text = "Upper right is better. Bars are 95 % intervals " + (
        "over seeds (bootstrap for rows that train nothing)." if several else "by bootstrap, from one seed."
    )
    if front:
        text += f" The Pareto front joins the methods that no other beats on both figures: {', '.join(r.method for r in front)}."
    if ceiling:
        text += " In-context reads the paragraph with each question: what reading gives, not a method."
    if base is None:
        text += " The base did not finish and is not drawn."
    absent = [row for row in summary.rows if not row.reference and row not in rows]
    if absent:
        text += " Not drawn: " + ", ".join(f"{row.method} ({row.status})" for row in absent) + "."
    return text + " The axes do not start at zero."


REPORT = figure_report("tradeoff", "Adaptation against retention", draw)
