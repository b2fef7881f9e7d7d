"""The main table: adaptation, retention, their mean and HARS, one row a method."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from .forgetting import retained, worst
from .retained import marked, notes
from .summary import MEASURES, Row, Summary
from .tabular import DASH, Cell, Table, columns_of, identity, name_cell, score_cell, shorten, signed, table_report

_SHOWN = ("K.A", "K.R", "Avg")
_SKILLS = ("K.R calibrated", "K.R held-out", "old-facts")
_LEFT = "Skills left: median, worst"


def table(summary: Summary) -> Table:
    """Return the main table of one model."""
    repeated, shown = len(summary.seeds) > 1, _shown(summary)
    small = "over seeds; ± is the standard deviation over seeds" if repeated else "by bootstrap, from one seed"
    scores = (
        f"Scores in percent; in small print 95 % intervals {small}. Under K.R calibrated, K.R held-out and old-facts it is "
        f"the change against the base, for the first two on the same skills.{_sizes(summary)}"
    )
    skills = f"{_LEFT}: what is left of a skill beyond chance, in percent of the base's; in small print the worst one."
    words = [
        scores,
        skills,
        "Rows trained on plain and on augmented data saw different examples: compare within one kind.",
    ]
    if repeated:
        words.append("The skills of K.R calibrated and K.R held-out rotate with the seed; their spread includes that.")
    return Table(
        title=f"Adaptation and retention on {summary.model}",
        header=(
            "Method", "Training data", *(marked(summary, name) for name in (*shown, "HARS", *_SKILLS)), _LEFT,
            "Learning rate",
        ),
        rows=tuple(_cells(row, shown) for row in summary.rows),
        words=frozenset({"Training data"}),
        notes=(*words, *notes(summary, (*shown, *_SKILLS))),
    )  # fmt: skip


def _shown(summary: Summary) -> tuple[str, ...]:
    """Return the scores that stand in the table; K.R without judged benchmarks where a judge graded some."""
    judged = any("K.R without judge" in row.scores for row in summary.rows)
    return ("K.A", "K.R", "K.R without judge", "Avg") if judged else _SHOWN


def figures(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """Return the CSV's lines: every measure with interval, spread, n and change, then HARS."""
    return [
        {
            **identity(row),
            **columns_of(row, MEASURES),
            "HARS": "" if row.hars is None else row.hars,
            "HARS note": row.hars_note,
            **_left_columns(row),
        }
        for summary in summaries
        for row in summary.rows
    ]


def _left_columns(row: Row) -> dict[str, object]:
    left = {} if row.reference else retained(row)
    least = worst(left)
    values = (median(left.values()), least[1], least[0]) if least else ("",) * 3
    return dict(zip(("median skill left", "worst skill left", "worst skill"), values, strict=True))


def _cells(row: Row, shown: Sequence[str]) -> tuple[Cell, ...]:
    rate = Cell(DASH) if row.learning_rate is None else Cell(f"{row.learning_rate:.3g}", shorten(row.tuned, 40))
    scores = (
        *(score_cell(row, name) for name in shown),
        _hars_cell(row),
        *(_skill_cell(row, name) for name in _SKILLS),
        _left_cell(row),
    )
    return (name_cell(row), Cell(row.training_data or DASH), *scores, rate)


def _left_cell(row: Row) -> Cell:
    """Return what is left of the median and of the worst skill, whose name is the note; a mean can hide a lost one."""
    left = {} if row.reference else retained(row)
    least = worst(left)
    return Cell(f"{median(left.values()):.0f}, {least[1]:.0f}", least[0]) if least else Cell(DASH)


def _hars_cell(row: Row) -> Cell:
    if row.hars is not None:
        return Cell(f"{row.hars:.1f}")
    return Cell(DASH if row.reference or not row.done else row.hars_note)


def _sizes(summary: Summary) -> str:
    """Return how many questions stand behind the scores, in words."""
    sizes = {
        name: {row.scores[name].n for row in summary.rows if name in row.scores} for name in ("K.A", "K.R", "old-facts")
    }
    words = ", ".join(f"{name} n = {' or '.join(map(str, sorted(found)))}" for name, found in sizes.items() if found)
    return f" Questions: {words}." if words else ""


def _skill_cell(row: Row, name: str) -> Cell:
    """Return a score whose note is its change against the base: skills differ in difficulty, changes compare."""
    cell = score_cell(row, name)
    return Cell(cell.text, signed(row.change[name])) if name in row.change else Cell(cell.text)


REPORT = table_report(
    "main-table", "Adaptation, retention, Avg and HARS", "main",
    tables=lambda summary: [table(summary)], figures=figures, shown=(*_SHOWN, "HARS", *_SKILLS),
)  # fmt: skip
