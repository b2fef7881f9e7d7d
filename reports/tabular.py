"""Tables: what a reader sees (short cells with notes) and what a program reads (CSV with full figures)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kore_bench.measures import Score
from kore_bench.results import write_text

from .summary import Row

DASH = "\N{EN DASH}"
"""Stands where there is no figure."""


class Cell(NamedTuple):
    """One cell: a short ``text`` and an optional ``note`` in small print (an interval, a reason)."""

    text: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table for readers; the first column names the row, the columns named in ``words`` are set as text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def write_table(
    folder: Path, name: str, tables: Sequence[Table], figures: Sequence[Mapping[str, object]]
) -> list[Path]:
    """Write ``tables/<name>.csv`` (``figures``: one mapping a row, equal keys) and ``tables/<name>.md``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(figures[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(figures)
    files = [folder / "tables" / f"{name}.csv", folder / "tables" / f"{name}.md"]
    write_text(files[0], text.getvalue())
    write_text(files[1], "\n".join(markdown_table(table) for table in tables))
    return files


def identity(row: Row) -> dict[str, object]:
    """Return the CSV columns that say which row this is and what it may be compared with."""
    return {
        "model": row.model,
        "method": row.method,
        "training data": row.training_data,
        "tuned": row.tuned,
        "learning rate": "" if row.learning_rate is None else row.learning_rate,
        "seeds": " ".join(map(str, row.seeds)),
        "status": row.status,
        "reason": row.reason,
    }


def columns_of(row: Row, measures: Sequence[str]) -> dict[str, object]:
    """Return the CSV columns of ``measures``: value, interval, spread, n, change; empty where not measured."""
    columns: dict[str, object] = {}
    for name in measures:
        score = row.scores.get(name)
        columns[name] = "" if score is None else score.value
        columns[f"{name} low"] = "" if score is None else score.low
        columns[f"{name} high"] = "" if score is None else score.high
        columns[f"{name} sd over seeds"] = row.spread.get(name, "")
        columns[f"{name} n"] = "" if score is None else score.n
        columns[f"{name} change"] = row.change.get(name, "")
    return columns


def name_cell(row: Row) -> Cell:
    """Return the method's name, with its status where it is not plainly done."""
    if row.reference and row.done:
        return Cell(row.method, "reference")
    return Cell(row.method, "" if row.status == "done" else f"{row.status}: {shorten(row.reason, 90)}")


def score_cell(row: Row, measure: str) -> Cell:
    """Return ``62.1`` (``62.1 ± 1.3`` over several seeds) with its interval as the note; a dash where unmeasured."""
    score = row.scores.get(measure)
    if score is None:
        return Cell(DASH)
    spread = row.spread.get(measure)
    text = f"{score.value:.1f}" if spread is None else f"{score.value:.1f} ± {spread:.1f}"
    return Cell(text, interval(score))


def interval(score: Score) -> str:
    """Return an interval as ``58.0 to 66.0``."""
    return f"{score.low:.1f} to {score.high:.1f}"


def signed(value: float) -> str:
    """Return a change with its sign and a true minus, one decimal; a change that rounds to zero has no sign."""
    text = f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "0.0" if text[1:] == "0.0" else text


def shorten(text: str, length: int) -> str:
    """Return ``text`` on one line, cut to ``length`` characters with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def escape_markdown(text: str) -> str:
    """Return ``text`` so that Markdown (and the HTML it allows) shows it as it is, on one line, also in a table."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)


def markdown_table(table: Table) -> str:
    """Return the table in Markdown: title in bold, notes of cells in parentheses, the table's notes below."""
    lines = [f"**{escape_markdown(table.title)}**", ""]
    lines.append("| " + " | ".join(map(escape_markdown, table.header)) + " |")
    sides = ("---" if index == 0 or name in table.words else "---:" for index, name in enumerate(table.header))
    lines.append("| " + " | ".join(sides) + " |")
    for row in table.rows:
        cells = (escape_markdown(f"{cell.text} ({cell.note})" if cell.note else cell.text) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"{escape_markdown(note)}\n" for note in table.notes)]
    return "\n".join(lines)
