"""Methods in the order of what they learnt."""

from __future__ import annotations

from pathlib import Path

from kore_bench.report import Report
from kore_bench.results import RunFolder, write_text


def build(run: RunFolder, folder: Path) -> list[Path]:
    """Write the methods from the best exact share down, a line each."""
    found = [(score.value, record.method) for record in run.records() if (score := record.score("exact"))]
    if not found:
        return []
    file = folder / "tables" / "ranking.txt"
    write_text(file, "".join(f"{value:.1f} {method}\n" for value, method in sorted(found, reverse=True)))
    return [file]


REPORT = Report(name="ranking", title="Methods by exact answers", kind="table", build=build)
