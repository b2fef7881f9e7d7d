"""The seven retention dimensions, one row a method: the scores and their change against the base."""

from __future__ import annotations

from collections.abc import Sequence

from .retained import marked, notes
from .summary import DIMENSIONS, Row, Summary
from .tabular import Cell, Table, columns_of, identity, name_cell, score_cell, signed, table_report

_SHOWN = (*DIMENSIONS, "K.R")


def table(summary: Summary) -> Table:
    """Return the dimensions of one model; small print is the change against the base."""
    counts = {score.n for row in summary.rows for name, score in row.scores.items() if name in DIMENSIONS}
    sizes = f" n = {min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else "") + " each." if counts else ""
    return Table(
        title=f"Retention by dimension on {summary.model}",
        header=("Method", *(marked(summary, name) for name in _SHOWN)),
        rows=tuple((name_cell(row), *(_cell(row, name) for name in _SHOWN)) for row in summary.rows),
        notes=(
            f"{_what(summary)} in percent; below it the change against the base in points. {CLEAR.format('A star')}{sizes}",
            *notes(summary, _SHOWN),
        ),
    )


def _what(summary: Summary) -> str:
    return "Means of the dimensions' benchmarks" if summary.benchmarks else "Accuracy"


CLEAR = "{} marks a change whose 95 % interval (paired bootstrap over the same questions) leaves out 0."


def figures(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """Return the CSV's lines: every dimension and K.R with interval, spread, n and change."""
    return [{**identity(row), **columns_of(row, _SHOWN)} for summary in summaries for row in summary.rows]


def _cell(row: Row, name: str) -> Cell:
    text = score_cell(row, name).text
    return (
        Cell(text, signed(row.change[name]) + (" *" if name in row.clear else "")) if name in row.change else Cell(text)
    )


REPORT = table_report(
    "dimensions-table", "The seven retention dimensions", "dimensions",
    tables=lambda summary: [table(summary)], figures=figures,
)  # fmt: skip
