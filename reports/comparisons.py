"""Who is better than whom: every trained method against the base, and every pair, with corrected p values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from kore_bench.comparison import LEVEL, MARKS, Comparison, compare, p_words
from kore_bench.report import Report
from kore_bench.results import RunFolder

from .answers import sheet_of
from .tabular import DASH, Cell, Table, data_frame, signed, write_table

_MOST = 16
"""With more methods the pairs say little after correction and take long: `kore-bench compare` tests chosen ones."""

_TITLES = {"against base": "Each method against the base", "every pair": "Every pair"}
_NOTE = (
    "Differences in points, the first minus the second, on the same questions; in small print the 95 % interval (over "
    "seeds and questions; over questions alone where there is one seed) and p, corrected by Holm over the whole table. "
    f"* is better or worse on other questions to these trainings (p at most {LEVEL:g}, whole clusters swapped), ** also "
    "with other seeds."
)


def compared(run: RunFolder) -> list[tuple[str, str, list[Comparison]]]:
    """Return (model, "against base" or "every pair", comparisons): each is one family of tests for each table.

    The references (base, in-context) are no part of the pairs, and more than 16 methods are not paired.
    """
    records = [record for record in run.records() if record.status == "done"]
    found = []
    for model in dict.fromkeys(record.model for record in records):
        own = [record for record in records if record.model == model]
        trained = list(dict.fromkeys(record.method for record in own if not record.reference))
        base = [(method, "base") for method in trained if any(record.method == "base" for record in own)]
        sheet = sheet_of(run, model, (*trained, "base"))
        found.append((model, "against base", compare(sheet, base)))
        pairs = list(combinations(trained, 2)) if len(trained) <= _MOST else []
        found.append((model, "every pair", compare(sheet, pairs)))
    return [(model, family, rows) for model, family, rows in found if rows]


def tables(model: str, family: str, rows: Sequence[Comparison]) -> list[Table]:
    """Return the headline measures and the dimensions of one family as tables, a line for each contrast."""
    measures = {
        chosen: dict.fromkeys(row.measure for row in rows if row.dimension == chosen) for chosen in (False, True)
    }
    cells = {(row.one, row.other, row.measure): _cell(row) for row in rows}
    contrasts = dict.fromkeys((row.one, row.other) for row in rows)
    notes = [_NOTE]
    if len({row.one for row in rows}) > _MOST:
        notes.append(
            f"More than {_MOST} methods are not paired here: kore-bench compare tests the pairs that you name."
        )
    if any(len(row.seeds) == 1 for row in rows):
        notes.append("With one seed the spread over seeds is unknown: no ranking is claimed.")
    return [
        Table(
            title=f"{_TITLES[family]}{', by dimension' if chosen else ''}, on {model}",
            header=("Difference", *names),
            rows=tuple(
                (Cell(f"{one} \N{MINUS SIGN} {other}"), *(cells.get((one, other, name), Cell(DASH)) for name in names))
                for one, other in contrasts
            ),
            notes=tuple(notes),
        )
        for chosen, names in measures.items()
        if names
    ]


def figures(model: str, family: str, row: Comparison) -> dict[str, object]:
    """Return the CSV columns of one comparison; empty where a figure is unknown."""
    within, overall = row.within or ("", ""), row.overall or ("", "")
    return {
        "model": model,
        "family": family,
        "measure": row.measure,
        "method": row.one,
        "other": row.other,
        "method score": row.values[0],
        "other score": row.values[1],
        "difference": row.difference,
        "low": overall[0],
        "high": overall[1],
        "low, questions alone": within[0],
        "high, questions alone": within[1],
        "sd over seeds": _or_empty(row.deviation),
        "by seed": " ".join(f"{value:.4f}" for value in row.by_seed),
        "p": _or_empty(row.p_overall),
        "p Holm": _or_empty(row.holm_overall),
        "p, questions alone": row.p_questions,
        "p Holm, questions alone": row.holm_questions,
        "shown for": {"seeds": "seeds and questions", "questions": "questions", "": ""}[row.evidence],
        "better": row.winner,
        "questions only method has right": _or_empty(row.better),
        "questions only other has right": _or_empty(row.worse),
        "p McNemar": _or_empty(row.mcnemar),
        "detectable difference": _or_empty(row.detectable),
        "seeds": " ".join(map(str, row.seeds)),
        "n": row.n,
        "clusters": row.clusters,
    }


def build(run: RunFolder, folder: Path) -> list[Path]:
    """Write ``tables/comparisons.csv`` and ``tables/comparisons.md``; nothing where no two methods can be compared."""
    found = compared(run)
    rows = _lines(found)
    shown = [table for family in found for table in tables(*family)]
    return write_table(folder, "comparisons", shown, rows) if rows else []


def _lines(found: Sequence[tuple[str, str, list[Comparison]]]) -> list[dict[str, object]]:
    return [figures(model, family, row) for model, family, members in found for row in members]


def _cell(row: Comparison) -> Cell:
    interval = "" if row.interval is None else f"{signed(row.interval[0])} to {signed(row.interval[1])}; "
    p = row.holm_questions if row.holm_overall is None else row.holm_overall
    return Cell(f"{signed(row.difference)} {MARKS[row.evidence]}".strip(), f"{interval}p {p_words(p)}")


def _or_empty(value: float | None) -> object:
    return "" if value is None else value


REPORT = Report(
    name="comparisons",
    title="Who is better than whom, and how sure",
    kind="table",
    build=build,
    frame=lambda run, full: data_frame(_lines(compared(run)), full),
)
