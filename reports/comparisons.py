"""Who is better than whom: the contrasts named beforehand, then every method against the base and every pair."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path

from kore_bench.comparison import LEVEL, MARKS, POWER, PRIMARY, Comparison, compare, p_words
from kore_bench.contrasts import named_beforehand
from kore_bench.report import Report
from kore_bench.results import RunFolder

from .answers import State, sheet_of, state_of
from .summary import Summary
from .tabular import DASH, Cell, Table, data_frame, signed, write_table

_MOST = 16
"""With more methods the pairs say little after correction and take long: `kore-bench compare` tests chosen ones."""

PLANNED = "named beforehand"
_TITLES = {
    PLANNED: "Contrasts named beforehand",
    "against base": "Each method against the base",
    "every pair": "Every pair",
}
_NOTE = (
    "Differences in points, the first minus the second, on the same questions; in small print the 95 % interval (over "
    "seeds and questions; over questions alone where there is one seed), p, corrected by Holm over the whole table, and "
    f"the smallest detectable difference: the size that this run would find {POWER:.0%} of the time at level {LEVEL:g}, by "
    "its own spread and before Holm's correction. "
    f"* is better or worse on other questions to these trainings (p at most {LEVEL:g}, whole clusters swapped), ** also "
    "with other seeds."
)
_EXPLORATORY = (
    "Exploratory: nobody named these before the run, but for the contrasts of the plan, which in "
    f"{' and '.join(PRIMARY)} keep their own correction. What is found here is to be looked for again in a new run."
)


def compared(run: RunFolder) -> list[tuple[str, str, list[Comparison]]]:
    """Return (model, "named beforehand", "against base" or "every pair", comparisons), each a family of tests.

    The contrasts named beforehand are those of the run's plan, in K.A and K.R. The references (base, in-context) are no
    part of the pairs, and more than 16 methods are not paired.
    """
    records = [record for record in run.records() if record.status == "done"]
    found = []
    for model in dict.fromkeys(record.model for record in records):
        own = [record for record in records if record.model == model]
        trained = list(dict.fromkeys(record.method for record in own if not record.reference))
        base = [(method, "base") for method in trained if any(record.method == "base" for record in own)]
        sheet = sheet_of(run, model, tuple(dict.fromkeys(record.method for record in own)))
        planned = named_beforehand(run, sheet.methods)
        found.append((model, PLANNED, list(_planned(run, model, state_of(run)))))
        found.append((model, "against base", compare(sheet, base, planned)))
        pairs = list(combinations(trained, 2)) if len(trained) <= _MOST else []
        found.append((model, "every pair", compare(sheet, pairs, planned)))
    return [(model, family, rows) for model, family, rows in found if rows]


def planned_tables(run: RunFolder, summary: Summary) -> list[Table]:
    """Return the contrasts of one model that the plan named beforehand, none where it named none that finished."""
    rows = _planned(run, summary.model, state_of(run))
    return tables(summary.model, PLANNED, rows) if rows else []


@lru_cache(maxsize=4)
def _planned(run: RunFolder, model: str, state: State) -> tuple[Comparison, ...]:
    done = (record.method for record in run.records() if record.model == model and record.status == "done")
    planned = named_beforehand(run, list(done))
    if not planned:
        return ()
    sheet = sheet_of(run, model, tuple(dict.fromkeys(name for pair in planned for name in pair)))
    return tuple(row for row in compare(sheet, planned, planned) if row.planned)


def tables(model: str, family: str, rows: Sequence[Comparison]) -> list[Table]:
    """Return the headline measures and the dimensions of one family as tables, a line for each contrast."""
    measures = {
        chosen: dict.fromkeys(row.measure for row in rows if row.dimension == chosen) for chosen in (False, True)
    }
    cells = {(row.one, row.other, row.measure): _cell(row) for row in rows}
    contrasts = dict.fromkeys((row.one, row.other) for row in rows)
    notes = [_NOTE, *_levels(rows)] if family == PLANNED else [_NOTE, _EXPLORATORY, *_levels(rows)]
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
        "low, hierarchical bootstrap": _or_empty(row.bootstrap and row.bootstrap[0]),
        "high, hierarchical bootstrap": _or_empty(row.bootstrap and row.bootstrap[1]),
        "sd over seeds": _or_empty(row.deviation),
        "by seed": " ".join(f"{value:.4f}" for value in row.by_seed),
        "p": _or_empty(row.p_overall),
        "p Holm": _or_empty(row.holm_overall),
        "p, questions alone": row.p_questions,
        "p Holm, questions alone": row.holm_questions,
        "shown for": {"seeds": "seeds and questions", "questions": "questions", "": ""}[row.evidence],
        "better": row.winner if len(row.seeds) > 1 else "",
        "questions only method has right": _or_empty(row.better),
        "questions only other has right": _or_empty(row.worse),
        "p McNemar": _or_empty(row.mcnemar),
        "detectable difference": _or_empty(row.detectable),
        "seeds": " ".join(map(str, row.seeds)),
        "entity draws": row.draws,
        "exploratory": "" if row.planned else "yes",
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
    detectable = "" if row.detectable is None else f"; detectable {row.detectable:.1f}"
    return Cell(f"{signed(row.difference)} {MARKS[row.evidence]}".strip(), f"{interval}p {p_words(p)}{detectable}")


def _levels(rows: Sequence[Comparison]) -> list[str]:
    """Return what the intervals stand on: draws of entities, seeds, and what the hierarchical bootstrap draws."""
    draws, seeds = max(row.draws for row in rows), max(len(row.seeds) for row in rows)
    if seeds == 1:
        return []
    shared = (
        "all share one draw of entities, which says nothing about others" if draws == 1 else f"{draws} entity draws"
    )
    levels = f"{'entity draws, ' if draws > 1 else ''}seeds and questions"
    return [f"{seeds} seeds; {shared}. The CSV has beside them the interval of a hierarchical bootstrap over {levels}."]


def _or_empty(value: float | None) -> object:
    return "" if value is None else value


REPORT = Report(
    name="comparisons",
    title="Who is better than whom, and how sure",
    kind="table",
    build=build,
    frame=lambda run, full: data_frame(_lines(compared(run)), full),
)
