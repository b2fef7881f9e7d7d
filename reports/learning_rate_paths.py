"""The same trials as paths: how far each method moves through (K.A, K.R) as its learning rate rises."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from kore_bench.results import RunFolder

from .drawing import GRID, Picture, figure_report, look, plain
from .summary import Summary
from .trials import Tuned, all_trials, legend, line, method_panels, ring, thin_words, tuned


def draw(run: RunFolder, summary: Summary) -> Picture | None:
    """Return the path of each method through (K.A, K.R) as the learning rate rises, None where nothing was tuned."""
    found = tuned(run, summary)
    if not found:
        return None
    figure, axes = method_panels(
        f"Paths over learning rates on {plain(summary.model)}, validation data", found, "K.A (%)", "K.R (%)"
    )
    for panel, one in zip(axes, found, strict=True):
        colour = look(one.method).colour
        for other in found:
            line(panel, other.chosen, "K.A", "K.R", color=GRID, linewidth=1.0, zorder=1)
        for trials in one.others:
            line(panel, trials, "K.A", "K.R", color=colour, linewidth=0.9, alpha=0.55)
        line(panel, one.chosen, "K.A", "K.R", color=colour, linewidth=1.8)
        for index, trial in enumerate(one.chosen):
            panel.plot(trial["K.A"], trial["K.R"], marker="o", color=colour, markersize=2.5 + index)
        if one.best:
            ring(panel, one.best["K.A"], one.best["K.R"], colour)
    _share(axes, found)
    legend(figure, [])
    return Picture(
        title=f"Adaptation and retention over learning rates on {summary.model}",
        caption="The same trials as paths: right is more learned, up is less forgotten; dots grow with the learning rate, "
        "the ring is the choice, grey are the other methods." + thin_words(found),
        alt="K.A and K.R at rising learning rates on validation data: "
        + "; ".join(
            f"{one.method} " + ", ".join(f"({trial['K.A']:.1f}, {trial['K.R']:.1f})" for trial in one.chosen)
            for one in found
        )
        + ".",
        figure=figure,
    )


def _share(axes: Sequence[Axes], found: Sequence[Tuned]) -> None:
    for name, bound in (("K.A", Axes.set_xlim), ("K.R", Axes.set_ylim)):
        values = [trial[name] for one in found for trial in all_trials(one)]
        pad = max(0.08 * (max(values) - min(values)), 1.0)
        for panel in axes:
            bound(panel, min(values) - pad, max(values) + pad)


REPORT = figure_report("learning-rate-paths", "Paths over learning rates", draw)
