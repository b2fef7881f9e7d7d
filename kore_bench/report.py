"""The contract of a report: records in, files and objects out; it never loads a model."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kore_bench.errors import UserError
from kore_bench.results import RunFolder

if TYPE_CHECKING:  # a registry of reports must not load them
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class TableStyle:
    """How a table is written: its format, and whether numbers of questions and 95 % intervals stand in it.

    CSV always holds both, with every figure in full.
    """

    format: Literal["latex", "markdown", "csv", "text"] = "latex"
    n: bool = False
    intervals: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """One table, figure or page.

    A file in reports/ defines one as ``REPORT``; the file's name, underscores as hyphens, is the report's name.
    ``build(run, folder)`` reads the run's records and writes below ``folder`` (``tables/``, ``figures/`` or the folder
    itself); it returns the files written, none where the run has nothing to show. Equal records give equal bytes. A
    page may read the figures that lie in ``folder``: tables and figures are built before it.

    The other three are for those reports that can do it. ``render(run, style)`` returns a table as text for pasting
    (`kore-bench table`). In Python (`kore_bench.Run`), ``frame(run, full)`` returns a table as data, ``full`` with the
    intervals, spreads and counts of its CSV, and ``draw(run)`` returns a figure for each model of the run, none where
    there is nothing to show.
    """

    name: str
    title: str
    kind: Literal["table", "figure", "page"]
    build: Callable[[RunFolder, Path], list[Path]]
    render: Callable[[RunFolder, TableStyle], str] | None = None
    frame: Callable[[RunFolder, bool], pandas.DataFrame] | None = None
    draw: Callable[[RunFolder], list[Figure]] | None = None


@dataclass(frozen=True, kw_only=True)
class AnalysisReport:
    """The tables and figures of one of the analyses of `kore-bench analyze`, which look at a model and not at a run.

    A file in reports/ defines one as ``REPORT``. ``build(folder)`` reads what the analysis left in ``folder``, writes
    ``tables/`` and ``figures/`` below it, and returns the files written.
    """

    name: str
    title: str
    build: Callable[[Path], list[Path]]


class BrokenReportsError(Exception):
    """Some reports could not be built; ``files`` of the others are written, ``causes`` says by name what happened."""

    def __init__(self, files: Sequence[Path], causes: Mapping[str, Exception]) -> None:
        self.files, self.causes = list(files), dict(causes)
        super().__init__("; ".join(self.sentences()))

    def sentences(self) -> list[str]:
        """Return what happened to each, in a sentence."""
        return [f"report {name} could not be written: {_words(cause)}" for name, cause in self.causes.items()]


def _words(error: Exception) -> str:
    """Return an exception on one line; where it is not the user's mistake, with its class and the line of code."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({place.filename}:{place.lineno})"


def ensure_records(run: RunFolder) -> None:
    """Raise UserError where there is no such run folder, or no record in it yet."""
    if not run.path.is_dir():
        raise UserError(f"there is no run folder {run.path}")
    if not run.records():
        raise UserError(f"{run.path} has no records yet: no cell of its plan has run")


def build_all(run: RunFolder, reports: Sequence[Report]) -> list[Path]:
    """Build ``reports`` into the run's own folder, pages last, and return the files written.

    Raises UserError as `ensure_records` does, and, after all others are built, BrokenReportsError where one raised.
    """
    ensure_records(run)
    files: list[Path] = []
    causes: dict[str, Exception] = {}
    for report in sorted(reports, key=lambda report: report.kind == "page"):
        try:
            files += report.build(run, run.path)
        except Exception as error:  # noqa: BLE001 (one report's mistake must not take the others along)
            causes[report.name] = error
    if causes:
        raise BrokenReportsError(files, causes) from ExceptionGroup("reports", list(causes.values()))
    return files
