"""What the diagnostics say of forgetting, by method: KL, drift, leak, flips, what is left of each skill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kore_bench.measures import over_seeds
from kore_bench.results import RunFolder

from .answers import answers_of
from .summary import DIMENSIONS, Row, Summary, score_of

KL, DRIFT, LEAK = "forgetting/KL", "forgetting/drift by depth", "forgetting/leak by depth"


_ROOM = 5  # points above chance that a base must have, for a skill to be there


class Flips(NamedTuple):
    """Shares of the base's right answers that became wrong, and of its wrong ones that became right, in percent."""

    lost: float
    gained: float
    right: int
    wrong: int


def curve(row: Row, name: str) -> NDArray[np.float64] | None:
    """Return a diagnostic with one value a depth, ``[depth]``, as its mean over seeds; None where no seed has it."""
    found = [record.diagnostics[name] for record in row.done if name in record.diagnostics]
    return np.mean(found, axis=0) if found else None


def kl(row: Row) -> float | None:
    """Return KL(base || trained) on held-out old samples in nats a token, as its mean over seeds."""
    found = [float(record.diagnostics[KL]) for record in row.done if KL in record.diagnostics]
    return over_seeds(found).mean if found else None


def flips(run: RunFolder, summary: Summary, row: Row) -> Flips | None:
    """Return how the answers on retention changed against the base's, over all seeds; None without the base's."""
    answers = answers_of(run, summary.model).get("retention")
    if answers is None or summary.base is None:
        return None
    before = answers.mean([run.name_of(record) for record in summary.base.done]) >= 0.5
    cells = [run.name_of(record) for record in row.done if run.name_of(record) in answers.cells]
    if not cells:
        return None
    after = np.stack([answers.correct[answers.cells[name]] for name in cells]) >= 0.5
    right, wrong = int(before.sum()), int((~before).sum())
    lost = float((~after[:, before]).mean() * 100) if right else 0.0
    gained = float(after[:, ~before].mean() * 100) if wrong else 0.0
    return Flips(lost, gained, right, wrong)


class Left(NamedTuple):
    """What is left of the base's score beyond chance, in percent, with its interval."""

    value: float
    low: float
    high: float


def left(row: Row, name: str, chance: str = "") -> Left | None:
    """Return what is left of the base's score of ``name`` beyond chance: (score - c) / (base - c).

    ``chance`` names the measure that gives c (empty: 0). The interval is that of the row's score. None where either
    is not measured, or the base itself is at most 5 points above chance: there is nothing to forget.
    """
    if row.base is None or name not in row.scores or name not in row.base.scores:
        return None
    chances = [score.value for record in row.base.done if (score := score_of(record, chance))] if chance else [0.0]
    if not chances or row.base.scores[name].value - chances[0] <= _ROOM:
        return None
    room, score = row.base.scores[name].value - chances[0], row.scores[name]
    return Left(*(100 * (value - chances[0]) / room for value in (score.value, score.low, score.high)))


def retained(row: Row) -> dict[str, float]:
    """Return dimension -> what is left of it beyond what the best constant answer scores, in percent (see `left`)."""
    found = {name: left(row, name, f"{name} chance") for name in DIMENSIONS}
    return {name: one.value for name, one in found.items() if one}


def worst(values: dict[str, float]) -> tuple[str, float] | None:
    """Return the dimension of which least is left."""
    return min(values.items(), key=lambda item: item[1]) if values else None


def trained(summary: Summary) -> Sequence[Row]:
    """Return the trained methods of which a diagnostic of forgetting is there."""
    return [row for row in summary.trained if kl(row) is not None]
