"""Tables in a paper's form: figures ranked by column, their spread, counts and intervals, the paper's rows beneath."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kore_bench.report import Report, TableStyle
from kore_bench.results import RunFolder, write_text

from .latex import latex_table
from .paper import SOURCE, PaperRow, counterparts, data_of
from .retained import PAPER, left_out, marked, notes, outcomes
from .summary import BENCHMARKS, Row, Summary, summarise
from .tabular import (
    DASH,
    Cell,
    Table,
    columns_of,
    csv_text,
    data_frame,
    identity,
    interval,
    markdown_table,
    plain_table,
    signed,
)

if TYPE_CHECKING:
    import pandas

DECIMALS = 2
"""As in the paper. Figures that are equal so rounded share their rank."""

_WRITERS: Mapping[str, Callable[[Table], str]] = {
    "latex": latex_table,
    "markdown": markdown_table,
    "text": plain_table,
}


@dataclass(frozen=True, kw_only=True)
class RankedTable:
    """A table whose columns are measures, the same for every model of a run; ``columns`` chooses them."""

    title: str
    columns: Callable[[Sequence[Summary]], tuple[str, ...]]

    def render(self, run: RunFolder, style: TableStyle) -> str:
        """Return the tables of all models in the style's format."""
        if style.format == "csv":
            return csv_text(self.figures(run))
        summaries = summarise(run)
        columns = self.columns(summaries)
        tables = (self.table(run, summary, columns, style) for summary in summaries)
        return "\n".join(map(_WRITERS[style.format], tables))

    def figures(self, run: RunFolder) -> list[dict[str, object]]:
        """Return the CSV's lines of all models: our figures in full, the places, and the paper's figures beside."""
        summaries = summarise(run)
        columns = self.columns(summaries)
        return [line for summary in summaries for line in _figures(run, summary, columns)]

    def frame(self, run: RunFolder, full: bool) -> pandas.DataFrame:
        """Return the same in pandas, a row a method; without ``full`` only what is not a detail of a figure."""
        return data_frame(self.figures(run), full).set_index("method")

    def report(self, name: str, title: str, file: str) -> Report:
        """Return the table's report, which writes ``tables/<file>`` as CSV, Markdown and LaTeX."""
        return Report(
            name=name, title=title, kind="table", build=lambda run, folder: self.write(run, folder, file),
            render=self.render, frame=self.frame,
        )  # fmt: skip

    def write(self, run: RunFolder, folder: Path, name: str) -> list[Path]:
        """Write ``tables/<name>`` as CSV (full figures), Markdown and LaTeX."""
        styles = {"csv": TableStyle(format="csv"), "md": TableStyle(format="markdown"), "tex": TableStyle()}
        files = {folder / "tables" / f"{name}.{ending}": style for ending, style in styles.items()}
        for file, style in files.items():
            write_text(file, self.render(run, style))
        return list(files)

    def table(self, run: RunFolder, summary: Summary, columns: Sequence[str], style: TableStyle) -> Table:
        """Return one model's table: references, the methods in the plan's order, and the counts where asked for.

        Below a method that the paper has stand the paper's row and the difference to it, outside the ranking.
        """
        places = {name: ranks(summary, name) for name in columns}
        papers = counterparts(run, summary)
        rows: list[tuple[Cell, ...]] = []
        parts = set()
        for reference in (True, False):
            parts.add(len(rows))
            for row in (row for row in summary.rows if row.reference is reference):
                rows.append((_name(row), *(_cell(row, name, places[name], style) for name in columns)))
                rows += _beside(row, papers[row.method], columns) if row.method in papers else []
        if style.n:
            parts.add(len(rows))
            label = "Questions" if len(summary.seeds) == 1 else "Questions a seed"
            rows.append((Cell(label), *(Cell(_count(summary, name)) for name in columns)))
        return Table(
            title=f"{self.title} on {summary.model}",
            header=("Method", *(marked(summary, name) for name in columns)),
            rows=tuple(rows),
            notes=(
                *_notes(summary, columns, style),
                *(_sources(run, summary, columns, papers.values()) if papers else ()),
            ),
            parts=frozenset(parts - {0, len(rows)}),
        )


def _figures(run: RunFolder, summary: Summary, columns: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield the CSV's lines: our figures in full, and in columns of their own the places and the paper's figures."""
    places = {name: ranks(summary, name) for name in columns}
    papers = counterparts(run, summary)
    scored = [name for name in columns if name != "HARS"]
    for row in summary.rows:
        paper = papers.get(row.method)
        line = {**identity(row), **columns_of(row, scored)}
        if "HARS" in columns:
            line |= {"HARS": _blank(row.hars), "HARS note": row.hars_note}
        line |= {f"{name} rank": _blank(places[name].get(row.method)) for name in columns}
        line["paper row"] = f"{paper.name}, tables {paper.tables} of {SOURCE}" if paper else ""
        for name in columns:
            line[f"{name} paper"] = _blank(paper.figures.get(name)) if paper else ""
            line[f"{name} minus paper"] = _blank(_difference(row, paper, name)) if paper else ""
        yield line


def _blank(value: float | None) -> object:
    return "" if value is None else value


def ranks(summary: Summary, measure: str) -> dict[str, int]:
    """Return method -> place by ``measure`` among the trained methods, 1 the highest.

    Figures that are equal as shown share a place, and the next lower one takes the next place. References have none,
    nor has any method where there are not two different figures, or where one has been trained on a single seed: how far
    its figure would move with another is unknown.
    """
    rows = [row for row in summary.trained if _value(row, measure) is not None]
    if any(len(row.seeds) < 2 for row in rows):
        return {}
    shown = {row.method: round(value, DECIMALS) for row in rows if (value := _value(row, measure)) is not None}
    order = sorted(set(shown.values()), reverse=True)
    return {method: order.index(value) + 1 for method, value in shown.items()} if len(order) > 1 else {}


def _value(row: Row, measure: str) -> float | None:
    if measure == "HARS":
        return row.hars
    return row.scores[measure].value if measure in row.scores else None


def _name(row: Row) -> Cell:
    return Cell(row.method, "" if row.status == "done" else row.status)


def _cell(row: Row, measure: str, places: Mapping[str, int], style: TableStyle) -> Cell:
    value, spread = _value(row, measure), row.spread.get(measure)
    if value is None:
        return Cell(DASH)
    text, note = f"{value:.{DECIMALS}f}", ""
    if style.intervals and measure in row.scores:
        note = interval(row.scores[measure], DECIMALS)
    elif spread is not None:
        text += f" ± {spread:.{DECIMALS}f}"
    place = places.get(row.method)
    return Cell(text, note, "best" if place == 1 else "next" if place == 2 else "")


def _beside(row: Row, paper: PaperRow, columns: Sequence[str]) -> list[tuple[Cell, ...]]:
    """Return the paper's row and the row of differences to it."""
    theirs = (paper.figures.get(name) for name in columns)
    printed = (DASH if value is None else f"{value:.{DECIMALS}f}" for value in theirs)
    apart = (_difference(row, paper, name) for name in columns)
    signs = (DASH if value is None else signed(value, DECIMALS) for value in apart)
    names = (f"paper: {paper.name}", "difference")
    return [
        tuple(Cell(text, mark="aside") for text in (name, *texts))
        for name, texts in zip(names, (printed, signs), strict=True)
    ]


def _difference(row: Row, paper: PaperRow, measure: str) -> float | None:
    ours, theirs = _value(row, measure), paper.figures.get(measure)
    return None if ours is None or theirs is None else ours - theirs


def _count(summary: Summary, measure: str) -> str:
    counts = sorted({row.scores[measure].n for row in summary.rows if measure in row.scores})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else DASH


def _notes(summary: Summary, columns: Sequence[str], style: TableStyle) -> Iterator[str]:
    seeds = len(summary.seeds)
    if style.intervals:
        yield f"Percent; 95 % intervals {f'over {seeds} seeds' if seeds > 1 else 'by bootstrap, from one seed'}."
    else:
        yield f"Percent; mean ± standard deviation over {seeds} seeds." if seeds > 1 else "Percent, from one seed."
    kept = [name for name in BENCHMARKS if any(name in row.scores for row in summary.rows)]
    if "K.R" in columns and kept:
        of = "" if summary.benchmarks else f" K.R that of {', '.join(kept)};"
        yield f"K.A is the mean of CEM and F1;{of} Avg that of K.A and K.R."
    yield from notes(summary, columns)
    if not {"K.R", *BENCHMARKS} & {*columns}:
        yield from left_out(summary)
    if any(ranks(summary, name) for name in columns):
        yield "The highest figure of trained methods is bold and the next underlined."
    elif single := [row.method for row in summary.trained if len(row.seeds) < 2]:
        yield f"No figure is set off: one seed carries no ranking ({', '.join(single) if seeds > 1 else 'of any method'})."
    if augmented := [row.method for row in summary.trained if row.training_data == "augmented"]:
        yield f"Trained on augmented data: {', '.join(augmented)}; compare them with each other."
    if "HARS" in columns and any(row.hars is None for row in summary.trained):
        yield "HARS is not given where K.A did not gain on the base's."


def _sources(run: RunFolder, summary: Summary, columns: Sequence[str], papers: Iterable[PaperRow]) -> Iterator[str]:
    """Yield where the paper's rows come from, and what the differences hold besides the methods."""
    tables = "; ".join(dict.fromkeys(paper.tables for paper in papers))
    yield f"In italics the rows of {SOURCE}, tables {tables}, measured on EVOKE and twelve benchmarks."
    means = {"K.R", *BENCHMARKS} & {*columns}
    if means and 0 < len(found := {*PAPER} & {outcomes(summary)[name].metric for name in summary.benchmarks}) < len(
        PAPER
    ):
        yield f"Their means are taken over the same {len(found)} benchmarks, and their HARS is left out."
    if set(columns) & set(BENCHMARKS):
        yield "Its dimensions are here the means of their benchmarks."
    yield f"Ours are measured on {Path(data_of(run)).name}; differences (ours minus the paper's) include those of data and settings."
