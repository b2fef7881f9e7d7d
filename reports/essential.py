"""Superficial and essential forgetting: what was lost in form, what is known still, what is gone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple

from kore_bench.benchmarks import scored
from kore_bench.results import Record

from .summary import DIMENSIONS, Row, score_of

_ROOM = 5  # points above chance, as in `forgetting.left`
BEFORE, AFTER, MISSING = "recovery/before", "recovery/after", "recovery/not available"


class Lost(NamedTuple):
    """What a method lost of K.R, in points: ``total`` = ``form`` + ``known`` + ``essential``.

    ``form``: tolerant parsing finds the right answer in the method's own. ``known``: the method says otherwise, but the
    right option is the likeliest still, or (skills asked again) format-only steps bring it back, whichever shows more.
    ``essential``: none of these. Parts may be below zero: they are estimates.
    """

    total: float
    form: float
    known: float
    essential: float


def lost(row: Row) -> Lost | None:
    """Return what a method lost, mean over seeds; None where its own answers or the likelihoods are not there."""
    base = row.base
    if base is None or not row.done or any(scored(record.tasks) for record in row.done):
        return None  # the benchmarks of other toolkits are scored as they are
    found = [one for record in row.done if (one := _lost(record, base))]
    return Lost(*(fmean(values) for values in zip(*found, strict=True))) if found else None


def _lost(record: Record, base: Row) -> Lost | None:
    parts = {name: one for name in DIMENSIONS if (one := _of_skill(record, base, name))}
    asked = sum(score_of(record, name) is not None for name in DIMENSIONS)
    likelihood = any(score_of(record, f"{name} by likelihood") for name in DIMENSIONS)
    if not likelihood or len(parts) < asked:
        return None
    parts |= _come_back(record, parts)
    return Lost(*(fmean(values) for values in zip(*parts.values(), strict=True)))


def _come_back(record: Record, parts: Mapping[str, Lost]) -> dict[str, Lost]:
    """Return the parts of the skills that were asked again after format-only steps, where these show more of them all.

    The larger of two estimates is too large by their noise: so it is chosen once, over the skills together.
    """
    found = {
        name: parts[name]._replace(known=parts[name].known + parts[name].essential - left, essential=left)
        for name, gain in gains(record).items()
        if name in parts
        for left in (parts[name].total - gain,)
    }
    shown = sum(parts[name].essential for name in found)
    return found if sum(one.essential for one in found.values()) < shown else {}


def _of_skill(record: Record, base: Row, name: str) -> Lost | None:
    """Return what one skill lost; where it has no likelihood, all that tolerance does not find counts as essential."""

    origin = next((one for one in base.done if one.seed == record.seed), base.done[0])

    def pair(measure: str) -> tuple[float, float] | None:
        score, start = score_of(record, measure), score_of(origin, measure)
        return None if score is None or start is None else (start.value, score.value)

    exact, tolerant, weighed = pair(name), pair(f"{name} tolerant"), pair(f"{name} by likelihood")
    if exact is None or tolerant is None:
        return None
    total, left = exact[0] - exact[1], tolerant[0] - tolerant[1]
    essential, room = left, _rooms(record, name, exact[0], weighed)
    if weighed and room:
        essential = (weighed[0] - weighed[1]) / room[1] * room[0]
    return Lost(total, total - left, left - essential, essential)


def _rooms(record: Record, name: str, exact: float, weighed: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the base's points above chance, by its answers and by likelihood; None where it has too few."""
    chance, other = score_of(record, f"{name} chance"), score_of(record, f"{name} by likelihood chance")
    if weighed is None or chance is None or other is None:
        return None
    rooms = exact - chance.value, weighed[0] - other.value
    return rooms if min(rooms) > _ROOM else None


def recovered(row: Row) -> float | None:
    """Return what a few format-only steps bring back of K.R on held-out skills, in points, mean over seeds."""
    found = [fmean(gained.values()) for record in row.done if (gained := gains(record))]
    return fmean(found) if found else None


def gains(record: Record) -> dict[str, float]:
    """Return held-out skill -> the points that format-only steps bring back of it; empty where that was not measured."""
    before, after = (_shares(record.diagnostics, name) for name in (BEFORE, AFTER))
    return {skill: after[skill] - share for skill, share in before.items() if skill in after}


def why_not_recovered(row: Row) -> str:
    """Return why a method has no recovery, empty where it has one or was run before it was measured."""
    reasons = (str(record.diagnostics.get(MISSING, "")) for record in row.done)
    return "; ".join(dict.fromkeys(filter(None, reasons)))


def _shares(diagnostics: Mapping[str, object], name: str) -> dict[str, float]:
    found = diagnostics.get(name)
    return {str(skill): float(share) for skill, share in found.items()} if isinstance(found, Mapping) else {}
