"""The coarse table of a paper: K.A, K.R, Avg and HARS, ranked; where the KORE paper has the row, its figures below."""

from __future__ import annotations

from pathlib import Path

from kore_bench.report import Report
from kore_bench.results import RunFolder

from .ranked import RankedTable

TABLE = RankedTable(title="Adaptation and retention", columns=lambda summaries: ("K.A", "K.R", "Avg", "HARS"))


def build(run: RunFolder, folder: Path) -> list[Path]:
    """Write ``tables/paper.csv``, ``.md`` and ``.tex``."""
    return TABLE.write(run, folder, "paper")


REPORT = Report(
    name="paper-table",
    title="K.A, K.R, Avg and HARS for a paper (LaTeX, Markdown, CSV)",
    kind="table",
    build=build,
    render=TABLE.render,
    frame=TABLE.frame,
)
