"""The coarse table of a paper: K.A, K.R, Avg and HARS, ranked; where the KORE paper has the row, its figures below."""

from __future__ import annotations

from .ranked import RankedTable

TABLE = RankedTable(title="Adaptation and retention", columns=lambda summaries: ("K.A", "K.R", "Avg", "HARS"))
REPORT = TABLE.report("paper-table", "K.A, K.R, Avg and HARS for a paper (LaTeX, Markdown, CSV)", "paper")
