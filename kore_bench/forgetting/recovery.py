"""Recovery: what comes back after a few steps that teach no more than how to answer was lost in form only."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kore_bench.card import TrainSettings
from kore_bench.distributed import world
from kore_bench.examples import Knowledge, Question
from kore_bench.launch import Launch
from kore_bench.lmm import LMM
from kore_bench.results import read_lines
from kore_bench.task import Task, draw, groups
from kore_bench.training import CheckpointedRun, train

RETENTION, LIKELIHOOD = "retention", "likelihood"
"""The task whose skills are asked again, and the one that a run asks where it wants to know what is lost for good."""
STEPS, RATE = 10, 0.01
A_SKILL = 40
"""Questions of each skill that are asked before and after."""
MISSING = "recovery/not available"


def recover(
    model: LMM, task: Task | None, knowledge: Knowledge, run: CheckpointedRun, seen_skills: Collection[str],
    settings: TrainSettings, launch: Launch, predictions: Path, progress: Callable[[int, int], None],
) -> dict[str, Any]:  # fmt: skip
    """Return what a cell recovers in form-only steps, for its record's diagnostics; ``model`` is afterwards as before.

    What is superficially and what is essentially forgotten is SEFE's distinction (arXiv 2505.02486). The steps train the gains of the language model's norms alone, the same few parameters for every method, on
    the old samples that methods may read. Asked are skills outside of these samples: nothing is taught of them but that
    questions are answered in a few words. "recovery/before" and "recovery/after" are the shares of right answers to the
    same questions of ``task``, by skill, in percent; ``predictions`` are those before. "recovery/not available" says
    why there are no such figures.
    """
    questions = _asked(task, knowledge, seen_skills)
    if reason := _missing(model, task, questions, run):
        return {MISSING: reason}
    assert task is not None
    before = {row["id"]: float(row["correct"]) for row in read_lines(predictions)}
    short = replace(
        settings, steps=STEPS, epochs=0.0, learning_rate=RATE, schedule="constant", warmup=0.0, weight_decay=0.0
    )
    with only_gains(model) as gains:
        number = sum(value.numel() for value in gains)
        with model.full_precision():
            train(
                model, model.rows(run.calibration), short, (), run, io.StringIO(), progress,
                launch=replace(launch, report_to=()),
            )  # fmt: skip
        prompts = [(task.prompt(question), question.images) for question in questions]
        answers = model.generate(prompts, max_new_tokens=task.max_new_tokens)
    after = [task.correct(question, answer) for question, answer in zip(questions, answers, strict=True)]
    return {
        "recovery/before": _by_skill(questions, [before[question.id] for question in questions]),
        "recovery/after": _by_skill(questions, after),
        "recovery/questions": len(questions),
        "recovery/steps": STEPS,
        "recovery/learning rate": RATE,
        "recovery/parameters": number,
    }


@contextmanager
def only_gains(model: LMM) -> Iterator[list[nn.Parameter]]:
    """Train nothing but the gains of the language model's norms; everything is put back at the end.

    Weights come back bit for bit, and so do the marks of what is trained.
    """
    gains = norm_gains(model)
    marks = [(value, value.requires_grad) for value in model.model.parameters()]
    kept = [value.detach().clone() for value in gains]
    model.model.requires_grad_(False)
    for value in gains:
        value.requires_grad_(True)
    try:
        yield gains
    finally:
        with torch.no_grad():
            for value, before in zip(gains, kept, strict=True):
                value.copy_(before)
        for value, mark in marks:
            value.requires_grad_(mark)


def norm_gains(model: LMM) -> list[nn.Parameter]:
    """Return the gains (vectors) of the norms in the language model."""
    parameters = model.base.get_decoder().named_parameters()
    return [value for name, value in parameters if value.ndim == 1 and "norm" in name.lower()]


def _asked(task: Task | None, knowledge: Knowledge, seen_skills: Collection[str]) -> list[Question]:
    asked = [one for one in task.asked(knowledge) if one.type not in seen_skills] if task else []
    types = dict.fromkeys(question.type for question in asked)
    own = [[question for question in asked if question.type == type] for type in types]
    return [question for part in own for question in draw(part, groups(part), A_SKILL)]


def _missing(model: LMM, task: Task | None, questions: Sequence[Question], run: CheckpointedRun) -> str:
    """Return why nothing can be measured, empty where it can."""
    if task is None:
        return "retention was not scored"
    if not run.calibration:
        return "there are no old samples to take the steps on"
    if not questions:
        return "old samples cover every skill that is asked, so that steps on them would teach more than form"
    if not norm_gains(model):
        return "the language model has no norms with gains"
    return "the cell ran in several processes" if world() > 1 else ""


def _by_skill(questions: Sequence[Question], right: Sequence[float]) -> dict[str, float]:
    parts: dict[str, list[float]] = {}
    for question, value in zip(questions, right, strict=True):
        parts.setdefault(question.type, []).append(value)
    return {skill: 100 * sum(values) / len(values) for skill, values in parts.items()}
