"""What each method cost: parameters, data, steps, time by phase and memory."""

from __future__ import annotations

from pathlib import Path

from kore_bench.report import Report
from kore_bench.results import RunFolder

from .summary import Row, Summary, summarise
from .tabular import Cell, Table, identity, name_cell, write_table

_COUNTS = {
    "trainable_parameters": "Trainable parameters",
    "examples": "Examples",
    "samples": "Samples seen",
    "steps": "Steps",
    "tokens": "Tokens",
    "old_samples": "Old samples",
}


def table(summary: Summary) -> Table:
    """Return the costs of one model's methods, means over seeds."""
    phases = _phases(summary)
    counts = tuple(f"{_COUNTS[name]}" for name in _COUNTS)
    return Table(
        title=f"Cost on {summary.model}",
        header=("Method", *counts, *(f"{phase} (s)" for phase in phases), "All (s)", "Peak memory"),
        rows=tuple(_cells(row, phases) for row in summary.rows),
        notes=(
            "Examples are distinct training conversations, samples seen count repetitions, tokens are those that went "
            "through the model in training; old samples are the distinct old-knowledge samples that the method read. "
            "Seconds are wall time of one cell" + (", means over seeds." if len(summary.seeds) > 1 else "."),
        ),
    )


def build(run: RunFolder, folder: Path) -> list[Path]:
    """Write ``tables/cost.csv`` and ``tables/cost.md``."""
    summaries = summarise(run)
    phases = list(dict.fromkeys(phase for summary in summaries for phase in _phases(summary)))
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
    return write_table(folder, "cost", [table(summary) for summary in summaries], rows)


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
    return list(dict.fromkeys(phase for row in summary.rows if row.done for phase in row.cost.seconds))


def _cells(row: Row, phases: list[str]) -> tuple[Cell, ...]:
    if not row.done:
        return (name_cell(row), *(Cell("–") for _ in range(len(_COUNTS) + len(phases) + 2)))
    cost = row.cost
    share = f"{100 * cost.trainable_parameters / cost.total_parameters:.1f} %" if cost.total_parameters else ""
    counts = [Cell(amount(getattr(cost, name)) if getattr(cost, name) else "–") for name in _COUNTS]
    if cost.trainable_parameters:
        counts[0] = Cell(counts[0].text, share)
    seconds = (f"{cost.seconds[phase]:.1f}" if cost.seconds.get(phase) else "–" for phase in phases)
    whole = f"{sum(cost.seconds.values()):.1f}"
    return (name_cell(row), *counts, *map(Cell, seconds), Cell(whole), Cell(memory(cost.peak_memory)))


REPORT = Report(name="cost-table", title="What each method cost", kind="table", build=build)
