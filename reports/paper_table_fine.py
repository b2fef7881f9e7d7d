"""The fine table of a paper: every benchmark or dimension of retention, then CEM and F1, ranked, the paper's below."""

from __future__ import annotations

from collections.abc import Sequence

from .ranked import RankedTable
from .summary import BENCHMARKS, Summary


def columns(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """Return the paper's benchmarks that were measured, or else the dimensions; then CEM and F1."""
    measured = {name for summary in summaries for row in summary.rows for name in row.scores}
    benchmarks = [name for parts in BENCHMARKS.values() for name in parts if name in measured]
    return (*(benchmarks or [name for name in BENCHMARKS if name in measured]), "CEM", "F1")


TABLE = RankedTable(title="Retention in detail and adaptation", columns=columns)
REPORT = TABLE.report(
    "paper-table-fine", "Benchmarks or dimensions, CEM and F1 for a paper (LaTeX, Markdown, CSV)", "paper-fine"
)
