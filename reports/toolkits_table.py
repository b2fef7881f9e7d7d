"""Toolkits' tasks that are no benchmark of retention, such as lm-eval's: headline figures and changes against the base."""

from __future__ import annotations

from collections.abc import Sequence

from .retained import marked, notes, outcomes
from .summary import Row, Summary
from .tabular import Cell, Table, columns_of, identity, name_cell, score_cell, signed, table_report

LOWER = "\N{DOWNWARDS ARROW}"
"""Stands behind the name of a figure of which less is better."""


def tables(summary: Summary) -> list[Table]:
    """Return the table of one model where a toolkit's task was scored, and none else."""
    shown = columns(summary)
    if not shown:
        return []
    falling = _falling(summary, shown)
    sizes = {name: row.scores[name].n for row in summary.rows for name in shown if name in row.scores}
    counts = ", ".join(f"{name} {sizes[name]:,}" for name in shown)
    arrow = f" {LOWER}: lower is better, and a change with a plus is a loss." if falling else ""
    table = Table(
        title=f"Tasks of toolkits on {summary.model}",
        header=("Method", *(marked(summary, name) + f" {LOWER}" * (name in falling) for name in shown)),
        rows=tuple((name_cell(row), *(_cell(row, name) for name in shown)) for row in summary.rows),
        notes=(
            f"The toolkit's own headline figures; below them the change against the base.{arrow} Questions: {counts}.",
            *notes(summary, shown),
        ),
    )
    return [table]


def columns(summary: Summary) -> tuple[str, ...]:
    """Return the headline figures of toolkits' tasks (``PREFIX:NAME``) that are no benchmark and that a cell has."""
    measured = {name for row in summary.rows for name in row.scores}
    found = {task: outcome.metric for task, outcome in outcomes(summary).items() if not outcome.dimension}
    return tuple(metric for task, metric in found.items() if ":" in task and metric in measured)


def figures(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """Return the CSV's lines: every figure with interval, spread, n and change; then those of which less is better."""
    shown = tuple(dict.fromkeys(name for summary in summaries for name in columns(summary)))
    return [
        {**identity(row), **columns_of(row, shown), "lower is better": " ".join(sorted(_falling(summary, shown)))}
        for summary in summaries
        for row in summary.rows
    ]


def _falling(summary: Summary, names: Sequence[str]) -> set[str]:
    return {
        name for row in summary.rows for name in names if name in row.scores and not row.scores[name].higher_is_better
    }


def _cell(row: Row, name: str) -> Cell:
    text = score_cell(row, name).text
    return Cell(text, signed(row.change[name])) if name in row.change else Cell(text)


REPORT = table_report(
    "toolkits-table", "Tasks of toolkits that are no benchmark of retention", "toolkits", tables=tables, figures=figures
)
