"""Knowing or memorising: facts asked in training or read, in other words, another way, without their image, of others."""

from __future__ import annotations

from collections.abc import Sequence

from .asked import HALVES, halves
from .summary import Summary
from .tabular import Table, columns_of, identity, name_cell, score_cell, table_report

_HOP = "portability hop"
_COLUMNS = {
    "K.A": "K.A",
    **{name: name for name in HALVES},
    "paraphrase": "Paraphrase",
    "in every wording": "In every wording",
    "portability by-name": "By name, no image",
    "portability naming": "Naming",
    _HOP: "One hop on",
    "image-necessity": "Image necessity",
    "swapped image": "Swapped image",
    "blank image": "Blank image",
    "spill-over": "Spill-over",
}
_TASKS = ("paraphrase", "portability", "image-necessity", "spill-over")
_NOTES = {
    "paraphrase": "Paraphrase: (CEM + F1) / 2 in other wordings; in every wording: a fact counts as its worst wording.",
    "portability": "By name, naming, one hop on: the fact asked by the item's name without an image, the item's name "
    "asked of its image, and what follows from the fact; together they are portability.",
    "image-necessity": "Image necessity: points of (CEM + F1) / 2 that another item's image costs; near 0, the image was "
    "not needed, and a right answer is no multimodal knowledge.",
    "spill-over": "Spill-over (lower is better): how often a look-alike that was never injected is given the value of the "
    "item that it resembles.",
}
_READS = (
    "in-context reads the item's paragraph before every question, those about look-alikes too: it shows what a reader says "
    "who never looks whether the paragraph is about the image."
)


def table(summary: Summary) -> Table:
    """Return the measures beyond K.A of one model; those that no row has are named below, not left as empty columns."""
    shown = [name for name in _COLUMNS if _has(summary, name)]
    parted = halves(summary)
    notes = [*parted.notes(), *(text for name, text in _NOTES.items() if _has(summary, name))]
    notes += [_READS] if summary.ceiling and any(_has(summary, name) for name in _TASKS) else []
    return Table(
        title=f"Knowing or memorising on {summary.model}",
        header=("Method", *(_COLUMNS[name] for name in shown)),
        rows=tuple(
            (name_cell(row), *(parted.cell(row, name) if name in HALVES else score_cell(row, name) for name in shown))
            for row in summary.rows
        ),
        notes=(*notes, *_absent(summary)),
    )


def _absent(summary: Summary) -> list[str]:
    """Return which measures no row has, and why, as the records tell it."""
    absent = {task: _reasons(summary, task) for task in _TASKS if not _has(summary, task)}
    notes = [f"Not available: {task} ({reasons})." for task, reasons in absent.items() if reasons]
    if unasked := [task for task, reasons in absent.items() if not reasons]:
        notes.append(f"Not measured in this run: {', '.join(unasked)}.")
    if _has(summary, "portability") and not _has(summary, _HOP):
        notes.append("Not available: one hop on (the data hold no question of what follows from an injected fact).")
    return notes


def _reasons(summary: Summary, task: str) -> str:
    outcomes = [record.tasks[task] for row in summary.rows for record in row.done if task in record.tasks]
    return "; ".join(dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason))


def _has(summary: Summary, measure: str) -> bool:
    return any(measure in row.scores for row in summary.rows)


def figures(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """Return the CSV's lines: every measure with interval, spread, n and change."""
    names = [*_COLUMNS, "portability", "right image", "spill-over of any value"]
    return [{**identity(row), **columns_of(row, names)} for summary in summaries for row in summary.rows]


REPORT = table_report(
    "knowing-table", "Knowing or memorising", "knowing", tables=lambda summary: [table(summary)], figures=figures
)
