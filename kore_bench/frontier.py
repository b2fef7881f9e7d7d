"""Frontiers: a trained cell's change scaled down without retraining (WiSE-FT), every point evaluated and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from kore_bench.distributed import attempt, first
from kore_bench.errors import UserError
from kore_bench.evaluation import Evaluator
from kore_bench.examples import Knowledge
from kore_bench.lmm import LMM
from kore_bench.plan import Plan
from kore_bench.results import FRONTIER, whole_lines, write_lines
from kore_bench.task import Task

SAMPLE = {"adaptation": 150, "retention": 350}
"""Questions of each task that a point within a run is asked at most, drawn by whole groups: the same for every cell."""

MEASURES = ("K.A", "K.R", "K.R calibrated", "K.R held-out")
"""What a point holds of its tasks' scores."""

FOLDER = "frontier"
"""In a cell's folder: the answers at each scale."""

MISSING = "frontier/not available"
"""Stands among a record's diagnostics where there is no frontier, with the reason."""

Point = Mapping[str, Any]
"""``scale``, and each measure as a Score's fields."""


def known(file: Path) -> dict[float, Point]:
    """Return the points of one cell by scale; none where there is no file."""
    return {float(row["scale"]): row for row in whole_lines(file)}


def tasks_of(plan: Plan, *, sample: bool) -> tuple[Task, ...]:
    """Return the tasks that a point is asked, with all of their questions or a sample; none where the plan lacks one."""
    tasks = {task.card.name: task for task in plan.tasks}
    if not SAMPLE.keys() <= tasks.keys():
        return ()
    limits = {name: min(tasks[name].limit or most, most) for name, most in SAMPLE.items()}
    return tuple(replace(tasks[name], limit=limits[name]) if sample else tasks[name] for name in SAMPLE)


def trace(
    model: LMM, adapter: Path, tasks: Sequence[Task], knowledge: Knowledge, seen_skills: frozenset[str], cell: Path,
    scales: Sequence[float], progress: Callable[[int, int], None],
) -> Iterator[Point]:  # fmt: skip
    """Evaluate a cell at ``scales`` and keep each point in the folder ``cell``; yield the points as they come.

    ``model`` is the untouched base, and is so again afterwards. Raises ValueError where the cell cannot be scaled, and
    UserError where a task fails.
    """
    change = change_of(model, adapter)
    points = known(cell / FRONTIER)
    for scale in scales:
        with scaled(model, change, scale):
            point = _point(model, tasks, knowledge, seen_skills, cell / FOLDER / f"{scale:g}", progress)
        points[scale] = {"scale": scale, **point}
        if first():
            write_lines(cell / FRONTIER, [points[key] for key in sorted(points)])
        yield points[scale]


def trace_cell(
    plan: Plan, knowledge: Knowledge, cell: Path, adapter: Path, seen_skills: frozenset[str],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:  # fmt: skip
    """Evaluate the points that a run's plan asks of a cell, and return why there are none, for its record's diagnostics.

    Points that stand are not asked again. The base is loaded anew: nothing else tells for every kind of adapter what
    it changed.
    """
    missing = [scale for scale in plan.request.frontier if scale not in known(cell / FRONTIER)]
    tasks = tasks_of(plan, sample=True)
    if not tasks or any(task.skip(knowledge) for task in tasks):
        return {MISSING: f"it takes both {' and '.join(SAMPLE)}"}
    if not missing:
        return {}

    def traced() -> list[Point]:
        model = LMM.load(plan.card, plan.train.max_length)
        return list(trace(model, adapter, tasks, knowledge, seen_skills, cell, missing, progress))

    result = attempt(traced)
    return {MISSING: " ".join(str(result).split())} if isinstance(result, Exception) else {}


def _point(
    model: LMM, tasks: Sequence[Task], knowledge: Knowledge, seen_skills: frozenset[str], folder: Path,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:  # fmt: skip
    evaluator = Evaluator(model=model, knowledge=knowledge, folder=folder, in_context=False, seen_skills=seen_skills)

    @contextmanager
    def phase(name: str) -> Iterator[Callable[[int, int], None]]:
        yield progress

    found = evaluator.evaluate(tuple(tasks), phase, None)
    if failed := [outcome.reason for outcome in found.tasks.values() if outcome.status == "failed"]:
        raise UserError(failed[0])
    scores = {name: score for task in tasks for name, score in found.scores[task.card.name].items()}
    return {name: asdict(scores[name]) for name in MEASURES if name in scores}


Change = Mapping[str, torch.Tensor]
"""Parameter of the base model -> what training added to it, float32, of the same shape; on the CPU."""


@torch.no_grad()
def change_of(model: LMM, adapter: Path) -> Change:
    """Return what the trained weights in ``adapter`` add to the untouched ``model``, which is the base again after it.

    Adapters are merged first, so that any scale of what they add can be written into the weights. Raises ValueError
    where they cannot be merged, as what they add depends on the input.
    """
    before = {name: value.detach().to("cpu", copy=True) for name, value in model.model.named_parameters()}
    model.load_trained(adapter)
    if isinstance(model.model, PeftModel):
        try:
            model.model = model.merged()
        except (NotImplementedError, AttributeError, ValueError) as error:
            raise ValueError(f"its adapter cannot be merged into the weights ({error})") from error
    change = {}
    for name, value in model.model.named_parameters():
        difference = value.detach().float().cpu() - before[name].float()
        if difference.any():
            change[name] = difference
        value.copy_(before[name])
    return change


@contextmanager
def scaled(model: LMM, change: Change, scale: float) -> Iterator[None]:
    """Add ``scale`` times the change to the base's weights, and take the base's own again afterwards."""
    parameters = dict(model.model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in change}
    with torch.no_grad():
        for name, difference in change.items():
            moved = before[name].float() + scale * difference.to(before[name].device)
            parameters[name].copy_(moved)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                parameters[name].copy_(value)
