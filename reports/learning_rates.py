"""The whole curve over learning rates on validation data, not the chosen point alone: Avg, K.A and K.R."""

from __future__ import annotations

from kore_bench.results import RunFolder

from .drawing import Picture, figure_report, look, plain
from .summary import Summary
from .trials import all_trials, legend, line, method_panels, ring, thin_words, tuned


def draw(run: RunFolder, summary: Summary) -> Picture | None:
    """Return Avg, K.A and K.R over the learning rate, None where nothing was tuned."""
    found = tuned(run, summary)
    if not found:
        return None
    figure, axes = method_panels(
        f"Learning rates on {plain(summary.model)}, validation data", found, "learning rate", "%"
    )
    rates = [trial["learning_rate"] for one in found for trial in all_trials(one)]
    values = [trial[name] for one in found for trial in all_trials(one) for name in ("K.A", "K.R", "Avg")]
    for panel, one in zip(axes, found, strict=True):
        colour = look(one.method).colour
        for trials in one.others:
            line(panel, trials, "learning_rate", "Avg", color=colour, linewidth=0.9, alpha=0.55)
        for name, dashes in (("K.A", (0, (4, 2))), ("K.R", (0, (1, 1.5)))):
            line(panel, one.chosen, "learning_rate", name, color=colour, linewidth=1.2, linestyle=dashes)
        line(panel, one.chosen, "learning_rate", "Avg", color=colour, linewidth=2.2, marker="o", markersize=3.5)
        if one.best:
            ring(panel, one.best["learning_rate"], one.best["Avg"], colour)
        panel.set_xscale("log")
        panel.set_xlim(min(rates) / 1.5, max(rates) * 1.5)
        panel.minorticks_off()
        panel.set_ylim(max(0.0, min(values) - 5), min(103.0, max(values) + 5))
    legend(figure, [("-", 2.2, "Avg"), ((0, (4, 2)), 1.2, "K.A"), ((0, (1, 1.5)), 1.2, "K.R")])
    return Picture(
        title=f"Learning rates on {summary.model}",
        caption="Each point is one training, scored on validation entities and validation retention questions under the "
        "run's own budget; the ring is the choice, the best Avg." + thin_words(found),
        alt="Avg over learning rates on validation data: "
        + "; ".join(
            f"{one.method} " + ", ".join(f"{trial['Avg']:.1f} at {trial['learning_rate']:g}" for trial in one.chosen)
            for one in found
        )
        + ".",
        figure=figure,
    )


REPORT = figure_report("learning-rates", "The curve over learning rates", draw)
