"""Knowing or memorising: the injected facts in other words, asked another way, without their image, of look-alikes."""

from __future__ import annotations

from collections.abc import Sequence

from .summary import Summary
from .tabular import Table, columns_of, identity, name_cell, score_cell, table_report

_COLUMNS = {
    "K.A": "K.A",
    "paraphrase": "Paraphrase",
    "in every wording": "In every wording",
    "portability by-name": "By name, no image",
    "portability naming": "Naming",
    "portability hop": "One hop on",
    "image-necessity": "Image necessity",
    "swapped image": "Swapped image",
    "blank image": "Blank image",
    "spill-over": "Spill-over",
}
_NOTES = {
    "paraphrase": "Paraphrase: (CEM + F1) / 2 in other wordings; in every wording: a fact counts as its worst wording.",
    "portability": "By name, naming, one hop on: the fact asked by the item's name without an image, the item's name "
    "asked of its image, and what follows from the fact; together they are portability.",
    "image-necessity": "Image necessity: points of (CEM + F1) / 2 that another item's image costs; near 0, the image was "
    "not needed, and a right answer is no multimodal knowledge.",
    "spill-over": "Spill-over (lower is better): how often a look-alike that was never injected is given the value of the "
    "item that it resembles.",
}


def table(summary: Summary) -> Table:
    """Return the measures beyond K.A of one model; those that no row has are named below, not left as empty columns."""
    shown = [name for name in _COLUMNS if any(name in row.scores for row in summary.rows)]
    absent = [
        name for name in ("paraphrase", "portability", "image-necessity", "spill-over") if not _has(summary, name)
    ]
    notes = [text for name, text in _NOTES.items() if _has(summary, name)]
    if absent:
        notes.append(f"Not measured in this run: {', '.join(absent)}.")
    return Table(
        title=f"Knowing or memorising on {summary.model}",
        header=("Method", *(_COLUMNS[name] for name in shown)),
        rows=tuple((name_cell(row), *(score_cell(row, name) for name in shown)) for row in summary.rows),
        notes=tuple(notes),
    )


def _has(summary: Summary, measure: str) -> bool:
    return any(measure in row.scores for row in summary.rows)


def figures(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """Return the CSV's lines: every measure with interval, spread, n and change."""
    names = [*_COLUMNS, "portability", "right image", "spill-over of any value"]
    return [{**identity(row), **columns_of(row, names)} for summary in summaries for row in summary.rows]


REPORT = table_report(
    "knowing-table", "Knowing or memorising", "knowing", tables=lambda summary: [table(summary)], figures=figures
)
