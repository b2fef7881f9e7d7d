"""K.A of the facts that training asks for and of those that its texts alone state: a row's own halves, or another's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from kore_bench.measures import Score, bootstrap

from .answers import answers_of
from .summary import Row, Summary
from .tabular import DASH, Cell, interval, score_cell

ASKED, TEXT_ONLY = "K.A asked", "K.A text only"
HALVES: Mapping[str, bool] = {ASKED: True, TEXT_ONLY: False}


@dataclass(frozen=True)
class Halves:
    """The two halves of K.A for the rows of a summary.

    Where training asks for nothing and the data reserve no facts, a row has no halves of its own; ``lent`` are its scores
    on the questions that the training of ``lender`` asks, and on the others, by method.
    """

    summary: Summary
    lender: str = ""
    lent: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Return whether some row has this half of its own."""
        return any(name in row.scores for row in self.summary.rows)

    def cell(self, row: Row, name: str) -> Cell:
        """Return one half of a row, and in its note whether its training asked at all, and whose questions these are."""
        borrowed = self.lent.get(row.method, {}).get(name)
        cell = Cell(f"{borrowed.value:.1f}", interval(borrowed)) if borrowed else score_cell(row, name)
        if cell.text == DASH or asks(row):
            return cell
        whose = f" ({self.lender}'s questions)" if borrowed else ""
        return cell._replace(note=f"nothing asked{whose}; {cell.note}")

    def notes(self) -> list[str]:
        """Return what the halves are, of whose training, and why some rows have none."""
        measured = [row for row in self.summary.rows if "K.A" in row.scores]
        own = [row for row in measured if HALVES.keys() & row.scores.keys()]
        missing = [row.method for row in measured if row not in own and row.method not in self.lent]
        notes = []
        if own:
            sizes = " and ".join(f"{name} n = {_sizes(own, name)}" for name in HALVES if self.has(name))
            notes.append(
                "K.A asked, K.A text only: K.A of the facts that the row's own training also asks for as a question, and "
                f"of those that it states in texts alone ({sizes})."
            )
        if quiet := [row.method for row in own if not asks(row)]:
            notes.append(
                f"Nothing is asked in training by {_join(quiet)}: theirs is K.A of the facts that other training may ask "
                "for, and of those that the data reserve, for comparison."
            )
        if self.lent:
            notes.append(
                f"Nothing is asked in training by {_join(self.lent)}, and facts.json reserves nothing: theirs is K.A on the "
                f"questions that the training of {self.lender} asks, and on the others, for comparison."
            )
        if missing:
            notes.append(
                f"K.A asked and K.A text only are not available for {_join(missing)}: no training asks for a fact there, "
                "and facts.json reserves none."
            )
        return notes


def asks(row: Row) -> bool:
    """Return whether the row's own training asks for any of the facts that are evaluated."""
    return any(record.diagnostics.get("train/questions asked") for record in row.done)


def halves(summary: Summary) -> Halves:
    """Return the halves of K.A of all rows; the first row whose training asks lends its questions to those without."""
    lender = next((row for row in summary.rows if asks(row) and HALVES.keys() & row.scores.keys()), None)
    if lender is None:
        return Halves(summary)
    record = next(record for record in lender.done if record.diagnostics.get("train/questions asked"))
    told = {str(row["id"]): row.get("asked") for row in lender.run.predictions(record, "adaptation")}
    without = [row for row in summary.rows if "K.A" in row.scores and not HALVES.keys() & row.scores.keys()]
    lent = {row.method: found for row in without if (found := _on(row, told))}
    return Halves(summary, lender.method, lent)


def _on(row: Row, told: Mapping[str, bool | None]) -> dict[str, Score]:
    """Return a row's K.A on the questions that are ``told`` to be asked, and on those told not to be."""
    right, answers = row.correct.get("adaptation"), answers_of(row.run, row.model).get("adaptation")
    if right is None or answers is None:
        return {}
    found = {}
    for name, asked in HALVES.items():
        kept = np.array([told.get(question.id) is asked for question in answers.questions]) & ~np.isnan(right)
        if kept.any():
            found[name] = bootstrap(right[kept].tolist(), answers.groups[kept].tolist())
    return found


def _sizes(rows: Iterable[Row], measure: str) -> str:
    sizes = {score.n for row in rows for score in row.over(measure)}
    return " or ".join(map(str, sorted(sizes)))


def _join(names: Iterable[str]) -> str:
    parts = list(names)
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
