"""Why methods forget: drift of the hidden states by depth, leak and KL against the retention that was lost."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kore_bench.results import RunFolder

from .drawing import MUTED, PAPER, Picture, figure_report, look, new_figure, plain
from .forgetting import DRIFT, LEAK, curve, kl, trained
from .summary import Row, Summary

_LOSS = "K.R held-out"
_A_LINE = 7  # methods in a line of the legend


def draw(run: RunFolder, summary: Summary) -> Picture | None:
    """Return the figure of one model, None where no method's diagnostics are there."""
    rows = trained(summary)
    if not rows:
        return None
    lines = -(-len(rows) // _A_LINE)
    height = 4.6 + 0.25 * lines
    figure = new_figure(12.0, height)
    below = (0.75 + 0.25 * lines) / height
    left, middle, right = (figure.add_axes((x, below, 0.265, 1 - below - 0.5 / height)) for x in (0.055, 0.39, 0.725))
    _depths(left, rows)
    lost = _LOSS if all(_LOSS in row.change for row in rows) else "K.R"
    leaks = {row.method: float(found.max()) for row in rows if (found := curve(row, LEAK)) is not None}
    distances = {row.method: value for row in rows if (value := kl(row)) is not None}
    _against(middle, rows, leaks, lost, "leak of the leakiest block: ||ΔW x||² / ||W x||²")
    _against(right, rows, distances, lost, "KL(base || method), nats a token")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=_A_LINE, frameon=False, fontsize=8.5)
    figure.text(0.012, 1 - 0.3 / height, f"Why methods forget on {plain(summary.model)}", fontsize=12)
    return Picture(
        title=f"Why methods forget on {summary.model}",
        caption="Measured where answers of old samples begin that no method was fitted to (the skills outside of the "
        "calibration). Left: how far hidden states moved from the base's, after the embeddings (0) and after each block. "
        f"Middle and right: what leaks through the layers and how far the answers' distributions moved, against the change "
        f"of {lost} against the base. Filled: trained on augmented data. Mean over "
        f"{len(summary.seeds)} seed{'s' if len(summary.seeds) > 1 else ''}; the axes of leak and KL are logarithmic.",
        alt="Drift after the last block, leak and KL: "
        + "; ".join(
            f"{row.method} {float(found[-1]):.2f}, {leaks[row.method]:.2g}, {distances[row.method]:.2g}"
            for row in rows
            if (found := curve(row, DRIFT)) is not None
        )
        + ".",
        figure=figure,
    )


def _depths(axes: Axes, rows: Sequence[Row]) -> None:
    for row in rows:
        drift, shown = curve(row, DRIFT), look(row.method)
        if drift is not None:
            axes.plot(
                range(len(drift)), drift, color=shown.colour, marker=shown.marker, markersize=shown.size * 0.7,
                markerfacecolor=PAPER if row.training_data == "plain" else shown.colour, linewidth=1.4,
                label=plain(row.method, 24),
            )  # fmt: skip
    axes.set_xlabel("depth: blocks passed")
    axes.set_ylabel("drift: ||h - h₀|| / ||h₀||")
    axes.set_ylim(bottom=0)


def _against(axes: Axes, rows: Sequence[Row], values: dict[str, float], lost: str, label: str) -> None:
    drawn = [row for row in rows if row.method in values and lost in row.change and values[row.method] > 0]
    for row in drawn:
        shown = look(row.method)
        axes.plot(
            log10(values[row.method]), row.change[lost], linestyle="none", color=shown.colour, marker=shown.marker,
            markersize=shown.size, markerfacecolor=PAPER if row.training_data == "plain" else shown.colour,
            markeredgewidth=1.5,
        )  # fmt: skip
    axes.margins(0.18, 0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda power, _: f"{10**power:.2g}")
    axes.axhline(0, color=MUTED, linewidth=0.9, linestyle=":")
    axes.set_xlabel(label)
    axes.set_ylabel(f"change of {lost} (points)")


REPORT = figure_report("why", "Why methods forget", draw)
