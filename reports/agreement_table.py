"""Whether a run puts methods in the KORE paper's order: rank correlations over the rows that both have."""

from __future__ import annotations

from collections.abc import Sequence

from kore_bench.agreement import LEAST, RankCorrelation, agreement

from .paper import SOURCE, counterpart, paper_rows
from .summary import Summary
from .tabular import DASH, Cell, Table, table_report

MEASURES = ("K.A", "K.R", "Avg")
_STANDARD = "llava-7b"
"""Whose rows in the paper stand for a model that it does not have."""


def tables(summary: Summary) -> list[Table]:
    """Return the agreement of one model's trained methods with the paper's, none where they share no row."""
    model, pairs = _shared(summary)
    if not pairs:
        return []
    table = Table(
        title=f"Agreement in order with the paper's {model}, {summary.model}",
        header=("Measure", "Methods", "Spearman", "Kendall"),
        rows=tuple(_row(measure, pairs) for measure in MEASURES),
        notes=(
            (
                "1: the same order, 0: no relation, -1: the reverse; with 95 % intervals (Bonett and Wright 2000) that "
                f"take the methods for a sample. The paper's figures ({SOURCE}) are of other data, questions and budgets."
            ),
            f"Shared rows: {', '.join(method for method, _, _ in pairs)}.",
        ),
    )
    return [table]


Figures = dict[str, float]
Pairs = list[tuple[str, Figures, Figures]]
"""Method, our figures and the paper's; only measures that both have."""


def _shared(summary: Summary) -> tuple[str, Pairs]:
    """Return which model of the paper is compared with, and its rows of the methods that finished here."""
    model = summary.model if summary.model in {row.model for row in paper_rows()} else _STANDARD
    pairs = []
    for row in summary.rows:
        paper = None if row.reference or not row.done else counterpart(row, model)
        if paper:
            ours = {name: row.scores[name].value for name in MEASURES if name in row.scores}
            pairs.append((row.method, ours, {name: paper.figures[name] for name in ours}))
    return model, pairs


def _row(measure: str, pairs: Pairs) -> tuple[Cell, ...]:
    both = [(ours[measure], theirs[measure]) for _, ours, theirs in pairs if measure in ours]
    found = agreement([ours for ours, _ in both], [theirs for _, theirs in both])
    if found is None:
        why = f"fewer than {LEAST} rows" if len(both) < LEAST else "all figures are alike"
        return Cell(measure), Cell(str(len(both))), Cell(DASH, f"not available: {why}"), Cell(DASH)
    return Cell(measure), Cell(str(found.n)), _cell(found.spearman), _cell(found.kendall)


def _cell(found: RankCorrelation) -> Cell:
    low_high = f"{found.interval[0]:.2f} to {found.interval[1]:.2f}" if found.interval else "interval unknown"
    return Cell(f"{found.value:.2f}", low_high)


def figures(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """Return the CSV's lines: one a model, measure and method that both have, with both figures."""
    lines: list[dict[str, object]] = []
    for summary in summaries:
        model, pairs = _shared(summary)
        for method, ours, theirs in pairs:
            lines += [
                {"model": summary.model, "method": method, "paper's model": model, "measure": measure,
                 "ours": ours[measure], "paper": theirs[measure]}
                for measure in ours
            ]  # fmt: skip
    return lines


REPORT = table_report(
    "agreement-table", "Agreement with the paper's order of methods", "agreement", tables=tables, figures=figures
)
