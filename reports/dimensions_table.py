"""The seven retention dimensions, one row a method: the scores and their change against the base."""

from __future__ import annotations

from pathlib import Path

from kore_bench.report import Report
from kore_bench.results import RunFolder

from .summary import DIMENSIONS, Row, Summary, summarise
from .tabular import Cell, Table, columns_of, identity, name_cell, score_cell, signed, write_table

_SHOWN = (*DIMENSIONS, "K.R")


def table(summary: Summary) -> Table:
    """Return the dimensions of one model; small print is the change against the base."""
    counts = {score.n for row in summary.rows for name, score in row.scores.items() if name in DIMENSIONS}
    sizes = f" n = {min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else "") + " each." if counts else ""
    return Table(
        title=f"Retention by dimension on {summary.model}",
        header=("Method", *_SHOWN),
        rows=tuple((name_cell(row), *(_cell(row, name) for name in _SHOWN)) for row in summary.rows),
        notes=(
            f"Accuracy in percent; below it the change against the base in points. {CLEAR.format('A star')}{sizes}",
        ),
    )


CLEAR = "{} marks a change whose 95 % interval (paired bootstrap over the same questions) leaves out 0."


def build(run: RunFolder, folder: Path) -> list[Path]:
    """Write ``tables/dimensions.csv`` and ``tables/dimensions.md``."""
    summaries = summarise(run)
    rows = [{**identity(row), **columns_of(row, _SHOWN)} for summary in summaries for row in summary.rows]
    return write_table(folder, "dimensions", [table(summary) for summary in summaries], rows)


def _cell(row: Row, name: str) -> Cell:
    text = score_cell(row, name).text
    return (
        Cell(text, signed(row.change[name]) + (" *" if name in row.clear else "")) if name in row.change else Cell(text)
    )


REPORT = Report(name="dimensions-table", title="The seven retention dimensions", kind="table", build=build)
