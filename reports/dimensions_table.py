"""The seven retention dimensions, one row a method: the scores and their change against the base."""

from __future__ import annotations

from pathlib import Path

from kore_bench.report import Report
from kore_bench.results import RunFolder

from .summary import DIMENSIONS, Row, Summary, paired, summarise
from .tabular import Cell, Table, columns_of, identity, name_cell, score_cell, signed, write_table

_SHOWN = (*DIMENSIONS, "K.R")


def table(run: RunFolder, summary: Summary) -> Table:
    """Return the dimensions of one model; small print is the change against the base."""
    counts = {score.n for row in summary.rows for name, score in row.scores.items() if name in DIMENSIONS}
    sizes = f" n = {min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else "") + " each." if counts else ""
    rows = []
    for row in summary.rows:
        sure = clear(run, row)
        rows.append((name_cell(row), *(_cell(row, name, name in sure) for name in _SHOWN)))
    return Table(
        title=f"Retention by dimension on {summary.model}",
        header=("Method", *_SHOWN),
        rows=tuple(rows),
        notes=(f"Accuracy in percent; below it the change against the base in points. {CLEAR.format('A star')}{sizes}",),
    )


CLEAR = "{} marks a change whose 95 % interval (paired bootstrap over the same questions) leaves out 0."


def clear(run: RunFolder, row: Row) -> set[str]:
    """Return the measures in which the row differs from its base on the same questions, beyond sampling them."""
    if row.base is None or row.method == row.base.method or not row.done:
        return set()
    return {name for name, score in paired(run, row, row.base).items() if score.low > 0 or score.high < 0}


def build(run: RunFolder, folder: Path) -> list[Path]:
    """Write ``tables/dimensions.csv`` and ``tables/dimensions.md``."""
    summaries = summarise(run)
    rows = [{**identity(row), **columns_of(row, _SHOWN)} for summary in summaries for row in summary.rows]
    return write_table(folder, "dimensions", [table(run, summary) for summary in summaries], rows)


def _cell(row: Row, name: str, sure: bool) -> Cell:
    text = score_cell(row, name).text
    return Cell(text, signed(row.change[name]) + (" *" if sure else "")) if name in row.change else Cell(text)


REPORT = Report(name="dimensions-table", title="The seven retention dimensions", kind="table", build=build)
