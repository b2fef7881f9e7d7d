"""The main table: adaptation, retention, their mean and HARS, one row a method."""

from __future__ import annotations

from pathlib import Path

from kore_bench.report import Report
from kore_bench.results import RunFolder

from .summary import MEASURES, Row, Summary, summarise
from .tabular import Cell, Table, columns_of, identity, name_cell, score_cell, shorten, signed, write_table

_SHOWN = ("K.A", "K.R", "Avg")
_SKILLS = ("K.R calibrated", "K.R held-out", "old-facts")


def table(summary: Summary) -> Table:
    """Return the main table of one model."""
    header = ("Method", "Training data", "Learning rate", *_SHOWN, "HARS", *_SKILLS, "n (K.A / K.R)")
    repeated = len(summary.seeds) > 1
    notes = (
        "Scores in percent; below each its 95 % interval"
        + (", over seeds; ± is the standard deviation over seeds." if repeated else ", by bootstrap, from one seed.")
        + " Small print under K.R calibrated and K.R held-out: change against the base on the same skills.",
        *(["K.R calibrated and K.R held-out spread over seeds because their skills rotate."] if repeated else []),
        "Rows trained on plain and on augmented data saw different examples: compare within one kind.",
    )
    return Table(
        title=f"Adaptation and retention on {summary.model}",
        header=header,
        rows=tuple(_cells(row) for row in summary.rows),
        words=frozenset({"Training data", "Learning rate"}),
        notes=notes,
    )


def figures(row: Row) -> dict[str, object]:
    """Return the row's CSV columns: every measure with interval, spread, n and change, then HARS."""
    hars = "" if row.hars is None else row.hars
    return {**identity(row), **columns_of(row, MEASURES), "HARS": hars, "HARS note": row.hars_note}


def build(run: RunFolder, folder: Path) -> list[Path]:
    """Write ``tables/main.csv`` and ``tables/main.md``."""
    summaries = summarise(run)
    rows = [figures(row) for summary in summaries for row in summary.rows]
    return write_table(folder, "main", [table(summary) for summary in summaries], rows)


def _cells(row: Row) -> tuple[Cell, ...]:
    rate = "" if row.learning_rate is None else f"{row.learning_rate:.3g}"
    hars = Cell("–" if row.reference else row.hars_note) if row.hars is None else Cell(f"{row.hars:.1f}")
    if not row.done:
        blank = Cell("–")
        return (name_cell(row), Cell(row.training_data or "–"), *(blank for _ in range(len(_SHOWN + _SKILLS) + 3)))
    ka, kr = row.scores.get("K.A"), row.scores.get("K.R")
    return (
        name_cell(row),
        Cell(row.training_data or "–"),
        Cell(rate or "–", shorten(row.tuned, 40)),
        *(score_cell(row, name) for name in _SHOWN),
        hars,
        *(_skill_cell(row, name) for name in _SKILLS),
        Cell(f"{ka.n if ka else '–'} / {kr.n if kr else '–'}"),
    )


def _skill_cell(row: Row, name: str) -> Cell:
    """Return a score whose note is its change against the base: skills differ in difficulty, changes compare."""
    cell = score_cell(row, name)
    return Cell(cell.text, f"{signed(row.change[name])} to base") if name in row.change else Cell(cell.text)


REPORT = Report(name="main-table", title="Adaptation, retention, Avg and HARS", kind="table", build=build)
