"""What was forgotten: what is left of each skill beyond chance, the worst and the median skill, answers that flipped."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from kore_bench.report import Report
from kore_bench.results import RunFolder

from .forgetting import DRIFT, LEAK, curve, flips, kl, retained, worst
from .summary import DIMENSIONS, Row, Summary, summarise
from .tabular import DASH, Cell, Table, data_frame, identity, name_cell, score_cell, write_table

_NOTES = (
    (
        "Skills: (score - chance) / (base's score - chance) in percent, chance being the best constant answer's score; over "
        "100 is better than the base. A dash: the base itself is at chance."
    ),
    "K.R tolerant: an answer counts where it covers the gold one; what it is above K.R was lost in form, not in knowledge.",
    "Lost: of the answers that the base had right, how many became wrong; gained: of its wrong ones, how many became right.",
    (
        "KL(base || method) in nats an answer token, drift of the last hidden states ||h - h0|| / ||h0||, and the leak "
        "||dW x||^2 / ||W x||^2 of the leakiest block, all on old samples that no method was fitted to."
    ),
)


def table(run: RunFolder, summary: Summary) -> Table:
    """Return what one model's methods forgot."""
    rows = [row for row in summary.rows if not row.reference]
    sizes = {score.n for row in rows for name, score in row.scores.items() if name in DIMENSIONS}
    each = f" n = {min(sizes)}{f' to {max(sizes)}' if len(sizes) > 1 else ''} questions a skill." if sizes else ""
    return Table(
        title=f"What was forgotten on {summary.model}",
        header=("Method", *DIMENSIONS, "Median", "Worst", "K.R tolerant", "Lost", "Gained", "KL", "Drift", "Leak"),
        rows=tuple(_row(run, summary, row) for row in rows),
        notes=(_NOTES[0] + each, *_NOTES[1:]),
        words=frozenset({"Worst"}),
    )


def _row(run: RunFolder, summary: Summary, row: Row) -> tuple[Cell, ...]:
    values = _values(run, summary, row)
    least = worst(retained(row))
    cells = [Cell(_shown(values[name], 0)) for name in (*DIMENSIONS, "median")]
    cells.append(Cell(f"{least[0]} {least[1]:.0f}" if least else DASH))
    cells.append(Cell(score_cell(row, "K.R tolerant").text))
    cells += [Cell(_shown(values["lost"], 1)), Cell(_shown(values["gained"], 1))]
    cells += [Cell(_shown(values["KL"], 3)), Cell(_shown(values["drift"], 2)), Cell(_small(values["leak"]))]
    return (name_cell(row), *cells)


def _values(run: RunFolder, summary: Summary, row: Row) -> dict[str, float | None]:
    left, flipped = retained(row), flips(run, summary, row)
    drift, leak = curve(row, DRIFT), curve(row, LEAK)
    least = worst(left)
    return {
        **{name: left.get(name) for name in DIMENSIONS},
        "median": median(left.values()) if left else None,
        "worst": least[1] if least else None,
        "K.R tolerant": row.scores["K.R tolerant"].value if "K.R tolerant" in row.scores else None,
        "lost": flipped.lost if flipped else None,
        "gained": flipped.gained if flipped else None,
        "KL": kl(row),
        "drift": None if drift is None else float(drift[-1]),
        "leak": None if leak is None else float(leak.max()),
    }


def _shown(value: float | None, decimals: int) -> str:
    return DASH if value is None else f"{value:.{decimals}f}"


def _small(value: float | None) -> str:
    return DASH if value is None else f"{value:.1e}" if 0 < value < 0.01 else f"{value:.2f}"


def _figures(run: RunFolder) -> list[dict[str, object]]:
    return [
        {
            **identity(row),
            **{name: "" if value is None else value for name, value in _values(run, summary, row).items()},
        }
        for summary in summarise(run)
        for row in summary.rows
        if not row.reference
    ]


def _build(run: RunFolder, folder: Path) -> list[Path]:
    figures = _figures(run)
    return (
        write_table(folder, "forgetting", [table(run, found) for found in summarise(run)], figures) if figures else []
    )


REPORT = Report(
    name="forgetting-table", title="What was forgotten", kind="table", build=_build,
    frame=lambda run, full: data_frame(_figures(run), full),
)  # fmt: skip
