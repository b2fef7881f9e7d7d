"""Small pieces that several commands print: labelled facts, one-line texts, curves in characters, sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from rich.table import Table
from rich.text import Text

_LEVELS = "▁▂▃▄▅▆▇█"


def facts(named: Mapping[str, str | Text]) -> Table:
    """Return labels with what they stand for; those that stand for nothing are left out."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, content in named.items():
        if content:
            table.add_row(name, content if isinstance(content, Text) else Text(content))
    return table


def one_line(text: str) -> str:
    """Return a text as one line without control characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def sparkline(values: Sequence[float], width: int) -> str:
    """Return a curve in at most ``width`` characters, each the mean of its share of ``values``.

    What is not finite stands as ``x``; a curve without a slope is low.
    """
    count = min(width, len(values))
    cuts = [round(place * len(values) / count) for place in range(count + 1)] if count else []
    means = [sum(values[first:last]) / (last - first) for first, last in pairwise(cuts)]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return "x" * len(means)
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    top = len(_LEVELS) - 1
    return "".join(_LEVELS[round(top * (mean - low) / span)] if math.isfinite(mean) else "x" for mean in means)


def size(count: float) -> str:
    """Return a number of bytes in the largest unit that it fills, up to GiB."""
    units = ["GiB", "MiB", "KiB", "B"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop()
    return f"{count:.1f} {units[-1]}" if count < 100 and units[-1] != "B" else f"{count:.0f} {units[-1]}"


def number(value: object) -> str:
    """Return a figure with four significant digits, whole numbers in full, and anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return one_line(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
