"""Tables: what a reader sees (short cells with notes) and what a program reads (CSV with full figures)."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from kore_bench.measures import Score
from kore_bench.report import Report
from kore_bench.results import RunFolder, write_text

from .summary import Row, Summary, summarise

if TYPE_CHECKING:
    import pandas

DASH = "\N{EN DASH}"
"""Stands where there is no figure."""


class Cell(NamedTuple):
    """One cell: a short ``text``, an optional ``note`` in small print (an interval, a reason), and how it is set off.

    ``mark``: the ``best`` figure stands bold, the ``next`` one underlined, and in italics what is said ``aside``: a
    figure that is not this run's.
    """

    text: str
    note: str = ""
    mark: Literal["", "best", "next", "aside"] = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table for readers; the first column names the row, the columns named in ``words`` are set as text.

    ``parts`` are the rows, by index, that begin a new part of the table.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    parts: frozenset[int] = frozenset()


def table_report(
    name: str, title: str, file: str, *,
    tables: Callable[[Summary], list[Table]], figures: Callable[[Sequence[Summary]], list[dict[str, object]]],
    shown: Sequence[str] = (),
) -> Report:  # fmt: skip
    """Return the report of a table with a row a method.

    ``tables`` gives what readers see of one model, ``figures`` the CSV's lines of all models (equal keys). The files
    are ``tables/<file>.csv`` and ``.md``. As pandas, only the scores in ``shown`` (empty: all) stand in the short form.
    """

    def build(run: RunFolder, folder: Path) -> list[Path]:
        summaries = summarise(run)
        shown = [table for summary in summaries for table in tables(summary)]
        return write_table(folder, file, shown, figures(summaries)) if shown else []

    def frame(run: RunFolder, full: bool) -> pandas.DataFrame:
        lines = figures(summarise(run))
        if shown and not full:
            lines = [{key: value for key, value in line.items() if key in (*_IDENTITY, *shown)} for line in lines]
        found = data_frame(lines, full)
        return found.set_index("method") if lines else found

    return Report(name=name, title=title, kind="table", build=build, frame=frame)


def write_table(
    folder: Path, name: str, tables: Sequence[Table], figures: Sequence[Mapping[str, object]]
) -> list[Path]:
    """Write ``tables/<name>.csv`` (``figures``: one mapping a row, equal keys) and ``tables/<name>.md``."""
    files = [folder / "tables" / f"{name}.csv", folder / "tables" / f"{name}.md"]
    write_text(files[0], csv_text(figures))
    write_text(files[1], "\n".join(markdown_table(table) for table in tables))
    return files


def csv_text(figures: Sequence[Mapping[str, object]]) -> str:
    """Return ``figures`` (one mapping a row, equal keys) as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(figures[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(figures)
    return text.getvalue()


def data_frame(figures: Sequence[Mapping[str, object]], full: bool) -> pandas.DataFrame:
    """Return ``figures`` (one mapping a row, equal keys) as pandas', with missing values for empty texts.

    Without ``full`` those columns go that tell more about a measure beside them.
    """
    import pandas

    frame = pandas.DataFrame([{key: None if value == "" else value for key, value in row.items()} for row in figures])
    if full:
        return frame
    details = {f"{name} {detail}" for name in frame.columns for detail in DETAILS}
    return frame.drop(columns=[name for name in frame.columns if name in details])


_IDENTITY = ("model", "method", "training data", "tuned", "learning rate", "seeds", "status", "reason")


def identity(row: Row) -> dict[str, object]:
    """Return the CSV columns that say which row this is and what it may be compared with."""
    rate = "" if row.learning_rate is None else row.learning_rate
    seeds = " ".join(map(str, row.seeds))
    values = (row.model, row.method, row.training_data, row.tuned, rate, seeds, row.status, row.reason)
    return dict(zip(_IDENTITY, values, strict=True))


DETAILS = ("low", "high", "sd over seeds", "n", "change")
"""What the columns after a measure's own tell of it: their names are the measure's with one of these behind."""


def columns_of(row: Row, measures: Sequence[str]) -> dict[str, object]:
    """Return the CSV columns of ``measures``: value, interval, spread, n, change; empty where not measured."""
    columns: dict[str, object] = {}
    for name in measures:
        score = row.scores.get(name)
        value, low, high, n = ("",) * 4 if score is None else (score.value, score.low, score.high, score.n)
        details = (low, high, row.spread.get(name, ""), n, row.change.get(name, ""))
        columns[name] = value
        columns |= {f"{name} {detail}": value for detail, value in zip(DETAILS, details, strict=True)}
    return columns


def name_cell(row: Row) -> Cell:
    """Return the method's name, with its status where it is not plainly done, and the tasks that failed."""
    words = [] if row.status == "done" else [row.status]
    words += [shorten(row.reason, 90)] if row.reason else []
    if row.reference and row.done:
        words.insert(0, "reference")
    return Cell(row.method, ": ".join(words))


def score_cell(row: Row, measure: str) -> Cell:
    """Return ``62.1`` (``62.1 ± 1.3`` over several seeds) with its interval as the note; a dash where unmeasured."""
    score = row.scores.get(measure)
    if score is None:
        return Cell(DASH)
    spread = row.spread.get(measure)
    text = f"{score.value:.1f}" if spread is None else f"{score.value:.1f} ± {spread:.1f}"
    return Cell(text, interval(score))


def interval(score: Score, decimals: int = 1) -> str:
    """Return an interval as ``58.0 to 66.0``."""
    return f"{score.low:.{decimals}f} to {score.high:.{decimals}f}"


def signed(value: float, decimals: int = 1) -> str:
    """Return a change with its sign and a true minus; a change that rounds to zero has no sign."""
    text, zero = f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}"), f"{0:.{decimals}f}"
    return zero if text[1:] == zero else text


def one_line(text: str) -> str:
    """Return ``text`` on one line, without control characters: a terminal or LaTeX would obey or refuse them."""
    return "".join(mark for mark in " ".join(text.split()) if unicodedata.category(mark) != "Cc")


def shorten(text: str, length: int) -> str:
    """Return ``text`` on one line, cut to ``length`` characters with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def escape_markdown(text: str) -> str:
    """Return ``text`` so that Markdown (and the HTML it allows) shows it as it is, on one line, also in a table."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)


def markdown_table(table: Table) -> str:
    """Return the table in Markdown: title in bold, notes of cells in parentheses, the table's notes below."""
    lines = [f"**{escape_markdown(table.title)}**", ""]
    lines.append("| " + " | ".join(map(escape_markdown, table.header)) + " |")
    sides = ("---" if index == 0 or name in table.words else "---:" for index, name in enumerate(table.header))
    lines.append("| " + " | ".join(sides) + " |")
    for row in table.rows:
        lines.append("| " + " | ".join(map(_markdown_cell, row)) + " |")
    lines += ["", *(f"{escape_markdown(note)}\n" for note in table.notes)]
    return "\n".join(lines)


_MARKDOWN = {"": "{}", "best": "**{}**", "next": "<ins>{}</ins>", "aside": "*{}*"}
_PLAIN = {"": "{}", "best": "*{}*", "next": "_{}_", "aside": "{}"}


def _markdown_cell(cell: Cell) -> str:
    text = _MARKDOWN[cell.mark].format(escape_markdown(cell.text))
    return f"{text} ({escape_markdown(cell.note)})" if cell.note else text


def plain_table(table: Table) -> str:
    """Return the table as aligned text; as in mail, ``*best*`` is bold and ``_next_`` underlined."""

    def shown(cell: Cell) -> str:
        text = _PLAIN[cell.mark].format(one_line(cell.text))
        return f"{text} ({one_line(cell.note)})" if cell.note else text

    rows = [list(table.header), *([shown(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [index == 0 or name in table.words for index, name in enumerate(table.header)]
    lines = [
        "  ".join(
            text.ljust(width) if word else text.rjust(width)
            for text, width, word in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    for index in sorted({0, *table.parts}, reverse=True):
        lines.insert(index + 1, rule)
    return "\n".join([table.title, "", *lines, "", *table.notes, ""])
