"""What `kore-bench frontier` does: points of a finished run's cells, on all of the questions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kore_bench.calibration import plan_knowledge, seen_skills
from kore_bench.errors import UserError, nearest
from kore_bench.export import find_trained
from kore_bench.frontier import MEASURES, SAMPLE, known, tasks_of, trace
from kore_bench.lmm import LMM
from kore_bench.plan import check_scales
from kore_bench.results import FRONTIER, Record, RunFolder


def frontier_session(
    folder: Path, methods: Sequence[str], scales: Sequence[float], out: Console, plugins: tuple[str, ...] = ()
) -> int:
    """Evaluate every trained cell of a run at each scale; points that stand on all questions are not asked again.

    ``plugins`` are those of the run, named again (see `kore_bench.export.find_trained`).

    Returns 1 where a method can have no such points, else 0. Raises UserError for a run without trained cells, an
    unknown method, or a scale that is not between 0 and 1 (0 is the base, 1 the cell itself: both are known).
    """
    check_scales("--scales", scales)
    run = RunFolder(folder)
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}")
    records = [record for record in run.records() if record.status == "done" and not record.reference]
    names = {record.method for record in records}
    for method in methods:
        if method not in names:
            raise UserError(f"--methods {method}: {run.path} has no trained cell of it; {nearest(method, names)}")
    chosen = [record for record in records if not methods or record.method in methods]
    if not chosen:
        raise UserError(f"{run.path} has no trained cell that is done")
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    # PEFT reads the old name of a transformers property; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    return max([_trace(run, record, scales, plugins, out) for record in chosen])


def _trace(run: RunFolder, record: Record, scales: Sequence[float], plugins: tuple[str, ...], out: Console) -> int:
    """Evaluate one cell at those of ``scales`` that it lacks, and say what came of it."""
    name, title = run.name_of(record), f"{record.method}, seed {record.seed}"
    missing = [scale for scale in scales if not _whole(run, record, scale)]
    if not missing:
        return 0
    trained = find_trained(run, name, plugins)
    tasks = tasks_of(trained.plan, sample=False)
    if not tasks:
        raise UserError(f"{run.path} has no frontier: it takes the tasks {' and '.join(SAMPLE)}")
    knowledge = plan_knowledge(trained.plan, record.seed)
    model = LMM.load(trained.plan.card, trained.plan.train.max_length)
    skills = seen_skills(knowledge, trained.plan.old, record.seed)
    try:
        with out.status(f"{title}: parts of its change"):
            for point in trace(
                model, trained.adapter, tasks, knowledge, skills, run.cell(name), missing, lambda done, total: None
            ):
                shown = ", ".join(
                    f"{measure} {point[measure]['value']:.1f}" for measure in MEASURES if measure in point
                )
                out.print(f"{title}, {point['scale']:g} of its change: {shown}", highlight=False)
    except ValueError as error:
        out.print(f"{title}: not available: {error}", soft_wrap=True, markup=False)
        return 1
    return 0


def _whole(run: RunFolder, record: Record, scale: float) -> bool:
    """Return whether a point was asked as many questions as the cell itself."""
    point = known(run.cell(run.name_of(record)) / FRONTIER).get(scale)
    scores = {measure: record.score(measure) for measure in ("K.A", "K.R")}
    return point is not None and all(score and point[name]["n"] == score.n for name, score in scores.items())
