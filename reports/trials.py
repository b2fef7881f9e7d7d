"""Trials of tuning: read from a run, and drawn as what both figures over learning rates share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kore_bench.results import RunFolder

from .drawing import INK, PAPER, panels, plain
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
    return [one for one in found if all_trials(one)]


def all_trials(one: Tuned) -> list[Trial]:
    """Return all trials of a method."""
    return one.chosen + [trial for trials in one.others for trial in trials]


def method_panels(title: str, found: Sequence[Tuned], across: str, up: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with a small panel for each method, and the panels."""
    names = [plain(f"{one.method} ({one.setting})" if one.setting else one.method, 30) for one in found]
    figure, [axes] = panels(title, {"": names}, across=across, up=up)
    return figure, axes


def line(axes: Axes, trials: Sequence[Trial], across: str, up: str, **style: Any) -> None:
    """Draw the trials as a line through what they gave."""
    axes.plot([trial[across] for trial in trials], [trial[up] for trial in trials], **style)


def ring(axes: Axes, x: float, y: float, colour: str) -> None:
    """Mark the choice."""
    axes.plot(
        x, y, marker="o", markersize=10, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.5, zorder=4
    )


def legend(figure: Figure, lines: Sequence[tuple[Any, float, str]]) -> None:
    """Explain the lines (style, width, text) and the ring, below the title."""
    handles = [Line2D([], [], color=INK, linestyle=style, linewidth=width, label=text) for style, width, text in lines]
    ring = Line2D(
        [], [], linestyle="none", marker="o", markersize=9, markerfacecolor=PAPER, markeredgecolor=INK, label="chosen"
    )
    below_title = (0.0, 1 - 0.4 / figure.get_figheight())
    figure.legend(
        handles=[*handles, ring], loc="upper left", bbox_to_anchor=below_title, ncols=len(handles) + 1, handlelength=2.4
    )


def thin_words(found: Sequence[Tuned]) -> str:
    """Return the caption's sentence on thin lines, empty where there is none."""
    return " Thin lines: other values of the second tuned setting." if any(one.others for one in found) else ""


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
