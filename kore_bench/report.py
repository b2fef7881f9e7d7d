"""The contract of a report: records in, files out; it never loads a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kore_bench.errors import UserError
from kore_bench.results import RunFolder


@dataclass(frozen=True, kw_only=True)
class Report:
    """One table, figure or page.

    A file in reports/ defines one as ``REPORT``; the file's name, underscores as hyphens, is the report's name.
    ``build(run, folder)`` reads the run's records and writes below ``folder`` (``tables/``, ``figures/`` or the folder
    itself); it returns the files written, none where the run has nothing to show. Equal records give equal bytes. A
    page may read the figures that lie in ``folder``: tables and figures are built before it.
    """

    name: str
    title: str
    kind: Literal["table", "figure", "page"]
    build: Callable[[RunFolder, Path], list[Path]]


def build_all(run: RunFolder, reports: Sequence[Report]) -> list[Path]:
    """Build ``reports`` into the run's own folder, pages last, and return the files written.

    Raises UserError where the run has no record yet.
    """
    if not run.records():
        raise UserError(f"{run.path} has no records yet: no cell of its plan has run")
    ordered = sorted(reports, key=lambda report: report.kind == "page")
    return [file for report in ordered for file in report.build(run, run.path)]
