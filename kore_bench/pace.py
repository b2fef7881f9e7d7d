"""How long a run still takes, by the time that its finished cells took; and times in words."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from kore_bench.grid import Cell


def time_left(
    cells: Mapping[str, Cell], taken: Mapping[str, float], spent: Mapping[str, float], jobs: int
) -> float | None:
    """Return the seconds until every cell is done, or None while no finished cell tells how long one takes.

    ``taken`` holds the seconds of finished cells by name, ``spent`` those that every unfinished one has had (0: it
    waits). A cell is expected to take as long as finished cells of its method did; where there are none, as long as
    the finished cells that train, or those that train nothing, did. ``jobs`` cells run at once, and the end is not
    before that of the longest one.
    """
    left = []
    for name, had in spent.items():
        expected = _expected(cells[name], cells, taken)
        if expected is None:
            return None
        left.append(max(0.0, expected - had))
    return max(sum(left) / max(1, jobs), max(left)) if left else 0.0


def _expected(cell: Cell, cells: Mapping[str, Cell], taken: Mapping[str, float]) -> float | None:
    alike = [seconds for name, seconds in taken.items() if cells[name].method == cell.method]
    kind = [seconds for name, seconds in taken.items() if cells[name].reference == cell.reference]
    return fmean(alike or kind) if alike or kind else None


def left_in_words(seconds: float | None) -> str:
    """Return a time that is left, as roughly as it is known; nothing where it is unknown or over."""
    if not seconds:
        return ""
    if seconds < 55:
        return f"{10 * (int(seconds) // 10 + 1)} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} left"


def clock(seconds: float) -> str:
    """Return a time as ``0:41``, ``12:05`` or ``3:20:00``."""
    whole = int(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02}"
    return minutes if whole < 3600 else f"{whole // 3600}:{minutes.zfill(5)}"
