"""The benchmarks of retention, one row a method: each headline figure and its change against the base."""

from __future__ import annotations

from collections.abc import Sequence

from kore_bench.benchmarks import leave_one_out

from .retained import PAPER, marked, notes, outcomes
from .summary import BENCHMARKS, Row, Summary
from .tabular import DASH, Cell, Table, columns_of, identity, name_cell, score_cell, signed, table_report

_OTHERS = ("K.R", "K.R without judge")
_RANGE = "K.R, one left out"
_RANGE_NOTE = (
    f"{_RANGE}: the least and the most that K.R is without one of its benchmarks; below it the same of its change against the "
    "base. How two methods' difference fares so, `kore-bench compare` tells."
)


def table(summary: Summary) -> Table:
    """Return the benchmarks of one model that some cell has scored; small print is the change against the base."""
    shown = columns(summary)
    counts = {name: row.scores[name].n for row in summary.rows for name in shown if name in row.scores}
    sizes = ", ".join(f"{name} {counts[name]}" for name in shown if name in PAPER)
    kinds = [(dimension, [name for name in names if name in shown]) for dimension, names in BENCHMARKS.items()]
    grouped = "; ".join(f"{dimension}: {', '.join(names)}" for dimension, names in kinds if names)
    return Table(
        title=f"Retention by benchmark on {summary.model}",
        header=("Method", *(marked(summary, name) for name in shown), _RANGE),
        rows=tuple(
            (name_cell(row), *(_cell(row, name) for name in shown), _range_cell(summary, row)) for row in summary.rows
        ),
        notes=(
            "Headline figures from 0 to 100 (MME: of its 2800 points); below them the change against the base in points.",
            f"{grouped}. Questions: {sizes}.",
            _RANGE_NOTE,
            *notes(summary, shown),
        ),
    )


def columns(summary: Summary) -> tuple[str, ...]:
    """Return the benchmarks that some cell has scored, in the paper's order, then K.R."""
    found = {outcome.metric for outcome in outcomes(summary).values() if outcome.dimension}
    measured = {name for row in summary.rows for name in row.scores}
    return tuple(name for name in (*PAPER, *_OTHERS) if name in measured and (name in found or name in _OTHERS))


def figures(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """Return the CSV's lines: every benchmark with interval, spread, n and change; then which of them K.R is over."""
    shown = tuple(dict.fromkeys(name for summary in summaries for name in columns(summary)))
    return [
        {
            **identity(row),
            **columns_of(row, shown),
            **_range_columns(summary, row),
            "K.R over": " ".join(outcomes(summary)[name].metric for name in summary.benchmarks),
            "judge": " ".join(dict.fromkeys(filter(None, (one.judge for one in outcomes(summary).values())))),
            "limit": max((one.limit for one in outcomes(summary).values()), default=0) or "",
        }
        for summary in summaries
        for row in summary.rows
    ]


def tables(summary: Summary) -> list[Table]:
    """Return the table where some benchmark was scored, and none else."""
    return [table(summary)] if summary.benchmarks else []


def _headlines(summary: Summary, row: Row) -> dict[str, float]:
    """Return the figures of the benchmarks that make K.R; none where the row lacks one."""
    metrics = [outcomes(summary)[name].metric for name in summary.benchmarks]
    return {name: row.scores[name].value for name in metrics} if {*metrics} <= row.scores.keys() else {}


def _range_cell(summary: Summary, row: Row) -> Cell:
    own = _headlines(summary, row)
    found = leave_one_out(own)
    if found is None:
        return Cell(DASH)
    text = f"{found.low:.1f} to {found.high:.1f}"
    start = _headlines(summary, summary.base) if summary.base and row is not summary.base else {}
    change = leave_one_out({name: own[name] - start[name] for name in start})
    return Cell(text, f"{signed(change.low)} to {signed(change.high)}") if change else Cell(text)


def _range_columns(summary: Summary, row: Row) -> dict[str, object]:
    names = ("K.R one left out low", "K.R one left out high", "low without", "high without")
    found = leave_one_out(_headlines(summary, row))
    return dict(zip(names, found[1:] if found else ("",) * 4, strict=True))


def _cell(row: Row, name: str) -> Cell:
    text = score_cell(row, name).text
    return Cell(text, signed(row.change[name])) if name in row.change else Cell(text)


REPORT = table_report(
    "benchmarks-table", "The benchmarks of retention, such as the paper's twelve", "benchmarks",
    tables=tables, figures=figures,
)  # fmt: skip
