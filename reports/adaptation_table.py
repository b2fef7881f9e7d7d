"""What K.A is made of: CEM, F1, the repaired CEM beside the official one, and how many answers none can reach."""

from __future__ import annotations

from collections.abc import Sequence

from .summary import Row, Summary, score_of
from .tabular import DASH, Cell, Table, columns_of, identity, name_cell, score_cell, table_report

_SHOWN = ("K.A", "CEM", "F1", "CEM repaired")
_NOTE = (
    "K.A is the mean of CEM and F1. An unreachable answer is a gold answer that the official CEM cannot credit, "
    "whatever the model says; the repaired CEM strips outer quotation marks and edge punctuation first."
)


def table(summary: Summary) -> Table:
    """Return the parts of K.A for one model."""
    return Table(
        title=f"Adaptation in detail on {summary.model}",
        header=("Method", *_SHOWN, "Unreachable answers"),
        rows=tuple(
            (name_cell(row), *(score_cell(row, name) for name in _SHOWN), Cell(unreachable(row) or DASH))
            for row in summary.rows
        ),
        notes=(_NOTE,),
    )


def unreachable(row: Row) -> str:
    """Return how many gold answers the official CEM cannot credit, empty where no record says."""
    found = (score_of(record, "unreachable") for record in row.done)
    return ", ".join(sorted({f"{score.value:.0f}" for score in found if score is not None}))


def figures(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """Return the CSV's lines: K.A and its parts with interval, spread, n and change, and the unreachable answers."""
    return [
        {**identity(row), **columns_of(row, _SHOWN), "unreachable answers": unreachable(row)}
        for summary in summaries
        for row in summary.rows
    ]


REPORT = table_report(
    "adaptation-table", "What K.A is made of", "adaptation",
    tables=lambda summary: [table(summary)], figures=figures,
)  # fmt: skip
