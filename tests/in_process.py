"""A run's cells in the process of the tests: for what does not depend on workers, which take seconds to start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kore_bench.calibration import plan_knowledge
from kore_bench.engines import Event, _Job, _run
from kore_bench.grid import Cell
from kore_bench.launch import ALONE, Launch
from kore_bench.plan import Request, make_plan
from kore_bench.results import RunFolder


def run_cells(
    request: Request,
    folder: Path,
    cells: Sequence[Cell],
    jobs: int,
    listen: Callable[[Event], None],
    fresh: bool = False,
    launch: Launch = ALONE,
    gpus: int = 0,
) -> None:
    """Do what `kore_bench.engines.run_cells` does, cell by cell, as its worker would."""
    plan = make_plan(request)
    job = _Job(request, folder, fresh, launch)
    for cell in cells:
        listen(Event("start", cell))

        def tell(phase: str, done: int, total: int, cell: Cell = cell) -> None:
            listen(Event("phase", cell, phase, done, total))

        record = _run(plan, cell, plan_knowledge(plan, cell.seed), RunFolder(folder), tell, job)
        listen(Event("end", cell, record=record))
