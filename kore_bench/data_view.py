"""How `kore-bench data check` shows on a terminal what it found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kore_bench.data_check import Checked
from kore_bench.data_check import Table as Counts
from kore_bench.examples import Question
from kore_bench.formats import FORMATS

SHOWN = 10
"""How many of one kind of finding are spelt out."""

_MANY = 12  # rows from which a table of counts becomes a list in columns


def view(path: Path, checked: Checked) -> RenderableType:
    """Return all that is shown about the data set at ``path``."""
    parts: list[RenderableType] = [Text(f"{path}: {checked.format}, {FORMATS[checked.format].summary}", style="bold")]
    for title, counts in checked.counts.items():
        parts += [Text(), *_counts(title, counts)]
    return Group(*parts, Text(), *_findings(checked), Text(), _verdict(checked))


def _counts(title: str, counts: Counts) -> Iterator[RenderableType]:
    columns = list(next(iter(counts.values()), {}))
    if len(counts) > _MANY:
        yield Text(f"{title} ({len(counts)}): {', '.join(columns)}", style="bold")
        yield Columns(Text(f"{_label(label)} {_numbers(row.values())}") for label, row in counts.items())
        return
    table = Table(title, *columns, box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for label, row in counts.items():
        table.add_row(Text(_label(label)), *(f"{number:,}" for number in row.values()))
    yield table


def _label(label: str) -> str:
    return label or "(not told)"


def _numbers(numbers: Iterable[int]) -> str:
    return "/".join(f"{number:,}" for number in numbers)


def _findings(checked: Checked) -> Iterator[RenderableType]:
    yield Text(f"images: {checked.images:,} found, {checked.missing:,} missing, {len(checked.broken):,} broken")
    yield from _listed(f"{name} {problem}" for name, problem in checked.broken.items())
    if checked.problems:
        yield Text(f"rows: {len(checked.problems):,} problems", style="bold red")
        yield from _listed(checked.problems)
    if checked.questions:
        yield Text(f"questions whose item is known: {checked.paired:,} of {checked.questions:,}")
        count = len(checked.unreachable)
        yield Text(f"gold answers that the official CEM cannot reach: {count:,} of {checked.questions:,}")
        yield from _listed(map(_question, checked.unreachable))
        yield Text(f"images both injected and asked about (same bytes): {len(checked.overlaps):,}")
        yield from _listed(f"{injected} = {asked}" for injected, asked in checked.overlaps)


def _question(question: Question) -> str:
    return f"question {question.id}: {question.answer}"


def _listed(sentences: Iterable[str]) -> Iterator[RenderableType]:
    """Yield the first sentences, indented, and how many there are beside them."""
    every = list(sentences)
    yield from (Text(f"  {sentence}", overflow="fold") for sentence in every[:SHOWN])
    if len(every) > SHOWN:
        yield Text(f"  and {len(every) - SHOWN:,} more", style="dim")


def _verdict(checked: Checked) -> Text:
    if checked.sound:
        return Text("every row and image can be used", style="green")
    return Text("not all of it can be used: a run would stop at the first of these", style="bold red")
