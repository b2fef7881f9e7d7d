"""Frontiers: each trained cell's change scaled down without retraining (WiSE-FT), every point evaluated and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from kore_bench.calibration import seen_skills
from kore_bench.errors import UserError, nearest
from kore_bench.evaluation import Evaluator
from kore_bench.examples import Knowledge
from kore_bench.export import Trained, find_trained
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.measures import Score
from kore_bench.results import FRONTIER, Record, RunFolder, whole_lines, write_lines
from kore_bench.task import Task

TASKS = ("adaptation", "retention")


def frontier_session(folder: Path, methods: Sequence[str], scales: Sequence[float], out: Console) -> int:
    """Evaluate every trained cell of a run at each scale; points that are there already are not asked again.

    Returns 1 where a method can have no such points, else 0. Raises UserError for a run without trained cells, an
    unknown method, or a scale that is not between 0 and 1 (0 is the base, 1 the cell itself: both are known).
    """
    for scale in scales:
        if not 0 < scale < 1:
            raise UserError(f"--scales {scale:g} is out of range: between 0 (the base) and 1 (the cell as it is)")
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
    disable_progress_bar()  # type: ignore[no-untyped-call]
    refused = 0
    for record in chosen:
        name = run.name_of(record)
        missing = [scale for scale in scales if scale not in known(run.cell(name) / FRONTIER)]
        reason = _trace(run, record, missing, out) if missing else ""
        if reason:
            out.print(f"{record.method}, seed {record.seed}: not available: {reason}", soft_wrap=True, markup=False)
            refused = 1
    return refused


def known(file: Path) -> dict[float, Mapping[str, Any]]:
    """Return the points of one cell by scale; none where there is no file."""
    return {float(row["scale"]): row for row in whole_lines(file)}


def _trace(run: RunFolder, record: Record, scales: Sequence[float], out: Console) -> str:
    """Evaluate one cell at ``scales`` and keep the points; return why it cannot be scaled, empty where it can."""
    name = run.name_of(record)
    trained = find_trained(run, name)
    knowledge = read_knowledge(trained.plan.knowledge_folder())
    model = LMM.load(trained.plan.card, trained.plan.train.max_length)
    try:
        change = change_of(model, trained.adapter)
    except ValueError as error:
        return str(error)
    file = run.cell(name) / FRONTIER
    points = dict(known(file))
    for scale in scales:
        with scaled(model, change, scale), out.status(f"{record.method}, seed {record.seed}: {scale:g} of its change"):
            scores = _evaluate(trained, model, knowledge, run.cell(name) / "frontier" / f"{scale:g}")
        points[scale] = {"scale": scale, **{metric: asdict(score) for metric, score in scores.items()}}
        write_lines(file, [points[key] for key in sorted(points)])
        shown = ", ".join(f"{metric} {score.value:.1f}" for metric, score in scores.items())
        out.print(f"{record.method}, seed {record.seed}, {scale:g} of its change: {shown}", highlight=False)
    return ""


def _evaluate(trained: Trained, model: LMM, knowledge: Knowledge, folder: Path) -> dict[str, Score]:
    plan, record = trained.plan, trained.record
    tasks: tuple[Task, ...] = tuple(task for task in plan.tasks if task.card.name in TASKS)
    evaluator = Evaluator(
        model=model, knowledge=knowledge, folder=folder, in_context=False,
        seen_skills=seen_skills(knowledge, plan.old, record.seed),
    )  # fmt: skip
    found = evaluator.evaluate(tasks, _no_phase, None)
    failed = [outcome.reason for outcome in found.tasks.values() if outcome.status == "failed"]
    if failed:
        raise UserError(f"{record.method}, seed {record.seed}: {failed[0]}")
    return {task.card.metric: found.scores[task.card.name][task.card.metric] for task in tasks}


@contextmanager
def _no_phase(name: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


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
