"""Tuning: each method's learning rate (and strength) by Avg on validation items, with equal trials for each method."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kore_bench.calibration import plan_knowledge
from kore_bench.grid import Cell, method_cell, shared_key, tuning_conditions
from kore_bench.measures import avg
from kore_bench.plan import Plan
from kore_bench.registry import Composition
from kore_bench.results import Record, RunFolder, write_text

REFINEMENTS = 2
"""Trials of the second stage: strengths at the best rate, or rates around it."""
TUNING_SEED = 1000
"""Apart from every seed that a run uses, so that chosen rates do not rest on a run's own data order."""


class Tuner:
    """Plans the trials of a tuning, stage by stage, and reads the choice from their records.

    Stage one tries the card's grid of at least five rates. Stage two tries REFINEMENTS more: values of the method's
    second hyper-parameter (``Method.tunes``) at the best rate, or else the rates half-way (in logarithms) to the best
    one's neighbours; every method gets as many trials.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.run = plan, RunFolder(folder)
        self.shared = shared_key(plan, plan_knowledge(plan))
        self.trials: dict[str, list[Cell]] = {method.name: [] for method in plan.methods}
        self.stages: tuple[Callable[[], list[Cell]], ...] = (self._first, self._second)

    def _first(self) -> list[Cell]:
        for method in self.plan.methods:
            for rate in self.plan.card.tuning_rates[method.adapter.kind]:
                self._add(method, rate, {})
        return self._cells()

    def _second(self) -> list[Cell]:
        for method in self.plan.methods:
            best = self._best(method.name)
            if best is None:
                continue
            if method.tunes:
                (option, values), *_ = method.tunes.items()
                for value in values[:REFINEMENTS]:
                    self._add(method, best.learning_rate, {option: f"{value:g}"})
                continue
            rates = sorted({cell.learning_rate for cell in self.trials[method.name]})
            step = math.sqrt(rates[1] / rates[0])
            for rate in (best.learning_rate / step, best.learning_rate * step):
                self._add(method, _rounded(rate), {})
        return self._cells()

    def _add(self, method: Composition, rate: float, settings: Mapping[str, str]) -> None:
        plan = replace(self.plan, train=replace(self.plan.train, learning_rate=rate))
        cell = method_cell(plan, method, TUNING_SEED, self.shared, settings)
        if cell.key not in {other.key for other in self.trials[method.name]}:
            self.trials[method.name].append(cell)

    def _cells(self) -> list[Cell]:
        return [cell for cells in self.trials.values() for cell in cells]

    def _best(self, method: str) -> Cell | None:
        scored = [(figures["Avg"], cell) for cell in self.trials[method] if (figures := self._figures(cell))]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def _figures(self, cell: Cell) -> dict[str, float] | None:
        record = self.run.read(cell.name)
        adapted, kept = (record.score("K.A"), record.score("K.R")) if record else (None, None)
        if record is None or adapted is None or kept is None:
            return None
        seconds = sum(record.cost.seconds.values())
        return {
            "K.A": adapted.value, "K.R": kept.value, "Avg": avg(adapted.value, kept.value), "seconds": round(seconds, 1),
        }  # fmt: skip

    def entries(self) -> list[dict[str, Any]]:
        """Return one entry a method: budget, every trial and the chosen one; methods whose trials all failed are left out."""
        found = []
        for method in self.plan.methods:
            best = self._best(method.name)
            if best is None:
                continue
            trials = [
                {**_choice(cell), **(self._figures(cell) or {"failed": self._reason(cell)})}
                for cell in sorted(self.trials[method.name], key=lambda cell: (cell.learning_rate, str(cell.settings)))
            ]
            found.append(
                {
                    "model": self.plan.card.name,
                    "method": method.name,
                    "budget": self.plan.train.budget,
                    "conditions": tuning_conditions(self.plan),
                    "criterion": "Avg on validation items",
                    "seed": TUNING_SEED,
                    "chosen": {**_choice(best), **(self._figures(best) or {})},
                    "trials": trials,
                }
            )
        return found

    def failed(self) -> list[Record]:
        """Return the records of failed trials."""
        records = [self.run.read(cell.name) for cell in self._cells()]
        return [record for record in records if record is not None and record.status == "failed"]

    def _reason(self, cell: Cell) -> str:
        record = self.run.read(cell.name)
        return record.reason if record else "not run"

    def write(self, file: Path, entries: list[dict[str, Any]]) -> None:
        """Write entries to a tuning file, in place of older ones for the same model, method and budget."""
        names = ("model", "method", "budget")
        new = {tuple(entry[name] for name in names) for entry in entries}
        old = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        kept = [entry for entry in old if tuple(entry[name] for name in names) not in new]
        merged = sorted([*kept, *entries], key=lambda entry: [entry[name] for name in names])
        write_text(file, json.dumps(merged, indent=1) + "\n")


def _choice(cell: Cell) -> dict[str, Any]:
    return {
        "learning_rate": cell.learning_rate,
        "settings": {key: float(value) for key, value in cell.settings.items()},
    }


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")
