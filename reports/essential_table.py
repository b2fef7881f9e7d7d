"""Superficial and essential forgetting: how the points of K.R that a method lost divide, and what of it comes back."""

from __future__ import annotations

from collections.abc import Sequence

from .essential import lost, recovered, why_not_recovered
from .forgetting import Left, left
from .retained import remarks
from .summary import Row, Summary
from .tabular import DASH, Cell, Table, identity, name_cell, signed, table_report

_NOTES = (
    (
        "K.R lost = in form + still known + essential, in points. In form: the method's own answer covers the right one. "
        "Still known: it says otherwise, but of a closed set of options the right one is the likeliest (beyond chance, and "
        "against the base's), or on held-out skills format-only steps bring it back, whichever shows more. Essential: none "
        "of these. Parts are estimates from samples, and may be below zero."
    ),
    (
        "Old facts left, in percent of what the base knew: by the method's own answers, where a word of two counts in part, and "
        "by likelihood, where a fact is known or not."
    ),
    (
        "Recovered: points of K.R on held-out skills that come back after {steps} steps which train nothing but the gains of "
        "the norms ({parameters} parameters), on old samples of other skills. Everything else here is from before them."
    ),
)


def table(summary: Summary) -> Table:
    """Return how one model's methods forgot."""
    rows = [row for row in summary.rows if not row.reference]
    return Table(
        title=f"Superficial and essential forgetting on {summary.model}",
        header=(
            "Method", "K.R lost", "In form", "Still known", "Essential", "Old facts left", "By likelihood", "Recovered"
        ),
        rows=tuple(_cells(row) for row in rows),
        notes=tuple(_notes(summary, rows)),
    )  # fmt: skip


def _cells(row: Row) -> tuple[Cell, ...]:
    parts = lost(row) or (None,) * 4
    facts = (left(row, "old-facts"), _facts_by_likelihood(row))
    back = recovered(row)
    return (
        name_cell(row),
        *(Cell(DASH if part is None else signed(part).lstrip("+")) for part in parts),
        *(Cell(DASH if one is None else f"{one.value:.0f}") for one in facts),
        Cell(DASH if back is None else signed(back)),
    )


def _facts_by_likelihood(row: Row) -> Left | None:
    return left(row, "old-facts by likelihood", "old-facts by likelihood chance")


def _notes(summary: Summary, rows: Sequence[Row]) -> list[str]:
    """Return what the columns mean, and of what is not available why."""
    found = [record.diagnostics for row in rows for record in row.done if "recovery/steps" in record.diagnostics]
    shown = {name: found[0][f"recovery/{name}"] for name in ("steps", "parameters")} if found else {}
    notes = [text.format(**shown) for text in _NOTES if shown or "{" not in text]
    if rows and not any(map(lost, rows)):
        notes.append("How K.R divides is not available: it takes the tasks retention and likelihood, and a base.")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if reason := why_not_recovered(row):
            reasons.setdefault(reason, []).append(row.method)
    for reason, methods in reasons.items():
        notes.append(f"Recovered is not available ({', '.join(methods)}): {reason}.")
    if not found and not reasons:
        notes.append("Recovered is not available: it goes with the task likelihood.")
    return [*notes, *(f"By likelihood: {note}{methods}." for note, methods in remarks(summary, "likelihood").items())]


def figures(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """Return the CSV's lines: the parts of what was lost, old facts, and what was recovered."""
    lines = []
    for row in (row for summary in summaries for row in summary.rows if not row.reference):
        parts, facts, back = lost(row), left(row, "old-facts"), recovered(row)
        weighed = _facts_by_likelihood(row)
        lines.append(
            {
                **identity(row),
                **dict(zip(("K.R lost", "in form", "still known", "essential"), parts or ("",) * 4, strict=True)),
                "old facts left": "" if facts is None else facts.value,
                "old facts left by likelihood": "" if weighed is None else weighed.value,
                "recovered": "" if back is None else back,
            }
        )
    return lines


def tables(summary: Summary) -> list[Table]:
    """Return the table where something was trained, and none else."""
    return [table(summary)] if summary.trained else []


REPORT = table_report(
    "essential-table", "Superficial and essential forgetting", "essential", tables=tables, figures=figures
)
