"""What each method cost: parameters, data, steps, time by phase and memory."""

from __future__ import annotations

from collections.abc import Sequence

from .summary import Row, Summary, in_order
from .tabular import DASH, Cell, Table, identity, name_cell, table_report

_COUNTS = {
    "trainable_parameters": "Trainable parameters",
    "examples": "Examples",
    "samples": "Samples seen",
    "steps": "Steps",
    "tokens": "Tokens",
    "old_samples": "Old samples",
}

_NOTE = (
    "Examples are distinct training conversations; samples seen count repetitions; tokens went through the model in "
    "training; old samples are the distinct old-knowledge samples that the method read; seconds are one cell's wall time."
)


def table(summary: Summary) -> Table:
    """Return the costs of one model's methods, means over seeds."""
    return Table(
        title=f"Cost on {summary.model}",
        header=("Method", *_COUNTS.values(), "Seconds", "Peak memory"),
        rows=tuple(_cells(row) for row in summary.rows),
        notes=(_NOTE + (" Means over seeds." if len(summary.seeds) > 1 else ""),),
    )


def time_table(summary: Summary) -> Table:
    """Return where the seconds went: wall time by phase, means over seeds."""
    phases = _phases(summary)
    rows = [
        (name_cell(row), *(Cell(_seconds(row.cost.seconds.get(phase, 0.0)) if row.done else DASH) for phase in phases))
        for row in summary.rows
    ]
    return Table(title=f"Seconds by phase on {summary.model}", header=("Method", *phases), rows=tuple(rows))


def figures(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """Return the CSV's lines: counts, seconds by phase and in all, and peak memory in bytes."""
    phases = in_order(phase for summary in summaries for phase in _phases(summary))
    rows = []
    for summary in summaries:
        for row in summary.rows:
            cost = row.cost if row.done else None
            columns = identity(row)
            columns |= {name: getattr(cost, name) if cost else "" for name in ("total_parameters", *_COUNTS)}
            columns |= {f"seconds {phase}": cost.seconds.get(phase, 0.0) if cost else "" for phase in phases}
            columns["seconds"] = sum(cost.seconds.values()) if cost else ""
            columns["peak_memory"] = cost.peak_memory if cost else ""
            rows.append(columns)
    return rows


def amount(count: int) -> str:
    """Return a count in short: 812, 82.0 k, 1.12 M, 6.76 G."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if count >= size:
            return f"{count / (1000 if unit == 'k' else size):.3g} {unit}"
    return f"{count:,}".replace(",", " ")


def memory(size: int) -> str:
    """Return bytes as MiB or GiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _phases(summary: Summary) -> list[str]:
    return in_order(phase for row in summary.rows if row.done for phase in row.cost.seconds)


def _cells(row: Row) -> tuple[Cell, ...]:
    if not row.done:
        return (name_cell(row), *(Cell(DASH) for _ in range(len(_COUNTS) + 2)))
    cost = row.cost
    counts = [Cell(amount(getattr(cost, name)) if getattr(cost, name) else DASH) for name in _COUNTS]
    if cost.trainable_parameters and cost.total_parameters:
        counts[0] = Cell(counts[0].text, f"{100 * cost.trainable_parameters / cost.total_parameters:.1f} %")
    return (name_cell(row), *counts, Cell(_seconds(sum(cost.seconds.values()))), Cell(memory(cost.peak_memory)))


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value else DASH


REPORT = table_report(
    "cost-table", "What each method cost", "cost",
    tables=lambda summary: [table(summary), time_table(summary)], figures=figures,
)  # fmt: skip
