"""The whole curve over learning rates on validation data, not the chosen point alone: Avg, K.A and K.R."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kore_bench.report import Report
from kore_bench.results import RunFolder

from .drawing import GRID, INK, PAPER, Picture, build_pictures, look, panels, plain
from .summary import Summary

Trial = Mapping[str, Any]


class Tuned(NamedTuple):
    """One method's trials: those at the chosen settings by rising learning rate, those at each other value, the choice."""

    method: str
    chosen: list[Trial]
    others: list[list[Trial]]
    best: Trial | None
    setting: str


def tuned(run: RunFolder, summary: Summary) -> list[Tuned]:
    """Return the tuning of the run's methods on one model, in the run's order; trials without figures are left out."""
    entries = {entry["method"]: entry for entry in run.tuning() if entry.get("model", summary.model) == summary.model}
    found = [_tuned(entries[row.method]) for row in summary.rows if row.method in entries]
    return [one for one in found if _all(one)]


def draw_rates(run: RunFolder, summary: Summary) -> Picture | None:
    """Return Avg, K.A and K.R over the learning rate, None where nothing was tuned."""
    found = tuned(run, summary)
    if not found:
        return None
    figure, axes = _panels(f"Learning rates on {plain(summary.model)}, validation data", found, "learning rate", "%")
    rates = [trial["learning_rate"] for one in found for trial in _all(one)]
    values = [trial[name] for one in found for trial in _all(one) for name in ("K.A", "K.R", "Avg")]
    for panel, one in zip(axes, found, strict=True):
        colour = look(one.method).colour
        for trials in one.others:
            _line(panel, trials, "learning_rate", "Avg", color=colour, linewidth=0.9, alpha=0.55)
        for name, dashes in (("K.A", (0, (4, 2))), ("K.R", (0, (1, 1.5)))):
            _line(panel, one.chosen, "learning_rate", name, color=colour, linewidth=1.2, linestyle=dashes)
        _line(panel, one.chosen, "learning_rate", "Avg", color=colour, linewidth=2.2, marker="o", markersize=3.5)
        if one.best:
            _ring(panel, one.best["learning_rate"], one.best["Avg"], colour)
        panel.set_xscale("log")
        panel.set_xlim(min(rates) / 1.5, max(rates) * 1.5)
        panel.minorticks_off()
        panel.set_ylim(max(0.0, min(values) - 5), min(103.0, max(values) + 5))
    _legend(figure, [("-", 2.2, "Avg"), ((0, (4, 2)), 1.2, "K.A"), ((0, (1, 1.5)), 1.2, "K.R")])
    return Picture(
        title=f"Learning rates on {summary.model}",
        caption="Each point is one training, scored on validation entities and validation retention questions under the "
        "run's own budget; the ring is the choice, the best Avg." + _thin(found),
        alt="Avg over learning rates on validation data: "
        + "; ".join(
            f"{one.method} " + ", ".join(f"{trial['Avg']:.1f} at {trial['learning_rate']:g}" for trial in one.chosen)
            for one in found
        )
        + ".",
        figure=figure,
    )


def draw_paths(run: RunFolder, summary: Summary) -> Picture | None:
    """Return the path of each method through (K.A, K.R) as the learning rate rises, None where nothing was tuned."""
    found = tuned(run, summary)
    if not found:
        return None
    figure, axes = _panels(
        f"Paths over learning rates on {plain(summary.model)}, validation data", found, "K.A (%)", "K.R (%)"
    )
    for panel, one in zip(axes, found, strict=True):
        colour = look(one.method).colour
        for other in found:
            _line(panel, other.chosen, "K.A", "K.R", color=GRID, linewidth=1.0, zorder=1)
        for trials in one.others:
            _line(panel, trials, "K.A", "K.R", color=colour, linewidth=0.9, alpha=0.55)
        _line(panel, one.chosen, "K.A", "K.R", color=colour, linewidth=1.8)
        for index, trial in enumerate(one.chosen):
            panel.plot(trial["K.A"], trial["K.R"], marker="o", color=colour, markersize=2.5 + index)
        if one.best:
            _ring(panel, one.best["K.A"], one.best["K.R"], colour)
    _share(axes, found)
    _legend(figure, [])
    return Picture(
        title=f"Adaptation and retention over learning rates on {summary.model}",
        caption="The same trials as paths: right is more learned, up is less forgotten; dots grow with the learning rate, "
        "the ring is the choice, grey are the other methods." + _thin(found),
        alt="K.A and K.R at rising learning rates on validation data: "
        + "; ".join(
            f"{one.method} " + ", ".join(f"({trial['K.A']:.1f}, {trial['K.R']:.1f})" for trial in one.chosen)
            for one in found
        )
        + ".",
        figure=figure,
    )


def build(run: RunFolder, folder: Path) -> list[Path]:
    """Write ``figures/learning-rates`` and ``figures/learning-rate-paths`` as svg and png, nothing where untuned."""
    return [
        *build_pictures(run, folder, "learning-rates", draw_rates),
        *build_pictures(run, folder, "learning-rate-paths", draw_paths),
    ]


def _tuned(entry: Mapping[str, Any]) -> Tuned:
    chosen = entry["chosen"]
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(entry["trials"], key=lambda trial: float(trial["learning_rate"])):
        if all(
            isinstance(trial.get(name), int | float) and math.isfinite(trial[name]) for name in ("K.A", "K.R", "Avg")
        ):
            groups.setdefault(json.dumps(trial["settings"], sort_keys=True), []).append(trial)
    own = groups.pop(json.dumps(chosen["settings"], sort_keys=True), [])
    best = next((trial for trial in own if trial["learning_rate"] == chosen["learning_rate"]), None)
    words = ", ".join(f"{name.split('.')[-1]} = {value}" for name, value in sorted(chosen["settings"].items()))
    return Tuned(entry["method"], own, list(groups.values()), best, words)


def _all(one: Tuned) -> list[Trial]:
    return one.chosen + [trial for trials in one.others for trial in trials]


def _panels(title: str, found: Sequence[Tuned], across: str, up: str) -> tuple[Figure, list[Axes]]:
    names = [plain(f"{one.method} ({one.setting})" if one.setting else one.method, 30) for one in found]
    figure, [axes] = panels(title, {"": names}, across=across, up=up)
    return figure, axes


def _line(axes: Axes, trials: Sequence[Trial], across: str, up: str, **style: Any) -> None:
    axes.plot([trial[across] for trial in trials], [trial[up] for trial in trials], **style)


def _ring(axes: Axes, x: float, y: float, colour: str) -> None:
    axes.plot(
        x, y, marker="o", markersize=10, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.5, zorder=4
    )


def _share(axes: Sequence[Axes], found: Sequence[Tuned]) -> None:
    for name, bound in (("K.A", Axes.set_xlim), ("K.R", Axes.set_ylim)):
        values = [trial[name] for one in found for trial in _all(one)]
        pad = max(0.08 * (max(values) - min(values)), 1.0)
        for panel in axes:
            bound(panel, min(values) - pad, max(values) + pad)


def _legend(figure: Figure, lines: Sequence[tuple[Any, float, str]]) -> None:
    handles = [Line2D([], [], color=INK, linestyle=style, linewidth=width, label=text) for style, width, text in lines]
    ring = Line2D(
        [], [], linestyle="none", marker="o", markersize=9, markerfacecolor=PAPER, markeredgecolor=INK, label="chosen"
    )
    below_title = (0.0, 1 - 0.4 / figure.get_figheight())
    figure.legend(
        handles=[*handles, ring], loc="upper left", bbox_to_anchor=below_title, ncols=len(handles) + 1, handlelength=2.4
    )


def _thin(found: Sequence[Tuned]) -> str:
    return " Thin lines: other values of the second tuned setting." if any(one.others for one in found) else ""


REPORT = Report(name="learning-rates", title="The curve over learning rates", kind="figure", build=build)
