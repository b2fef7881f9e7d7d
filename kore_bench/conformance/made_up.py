"""A made-up run folder, for reports to show: two seeds of four rows, one cell failed, answers that try to be markup."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from kore_bench.benchmarks import pool
from kore_bench.formats import DIMENSIONS
from kore_bench.measures import Score
from kore_bench.registry import Registry
from kore_bench.results import FRONTIER, POOLED, Cost, Outcome, Record, RunFolder, cell_name, write_lines, write_text

HOSTILE = "<script>alert(1)</script>"
QUESTIONS = 70
BUDGET = "20 steps x 16 examples"
ROWS = {"base": 0.1, "in-context": 0.7, "lora": 0.4, "kore": 0.8}
"""Share of right answers by row."""
_TOOLKITS = {
    "pope": Outcome(status="done", metric="POPE", dimension="HAL"),
    "lm-eval:made_up": Outcome(status="done", metric="lm-eval:made_up"),
}
"""A benchmark of retention, and another task that a toolkit scores."""


def write_run(path: Path, registry: Registry) -> RunFolder:
    """Write a run in which every known task was scored, under its headline figure and those that reports know."""
    run = RunFolder(path)
    tasks = {name: found.value.card.metric for name, found in registry.all("tasks").items()}
    cells = []
    for method, share in ROWS.items():
        for seed in (0, 1):
            record = _record(method, seed, share, tasks)
            name = cell_name(record.model, record.method, record.seed, record.key)
            cells.append(name)
            run.write(name, record)
            if record.status == "done":
                for task in tasks:
                    write_lines(run.cell(name) / "predictions" / f"{task}.jsonl", _answers(task, share, seed))
            if record.status == "done" and not record.reference:
                points = [{"scale": 0.5, **{name: asdict(_score(50 * share)) for name in ("K.A", "K.R")}}]
                write_lines(run.cell(name) / FRONTIER, points)
                log = [{"step": step, "loss": 3 / step, "learning_rate": 1e-3} for step in range(1, 21)]
                write_lines(run.cell(name) / "train.jsonl", log)
    request = {"model": "mini-llava", "data": "mini"}
    plan = {"request": request, "budget": BUDGET, "old": {"samples": 256}, "cells": cells}
    write_text(path / "plan.yaml", yaml.safe_dump(plan, sort_keys=False))
    write_text(path / "environment.json", json.dumps({"python": "3.11", "platform": "Linux", "cpus": 2}))
    write_text(path / "tuning.json", json.dumps([_tuning(method, share) for method, share in ROWS.items()][2:]))
    return run


def _record(method: str, seed: int, share: float, tasks: dict[str, str]) -> Record:
    reference = method in ("base", "in-context")
    identity: dict[str, Any] = {
        "key": f"{sum(map(ord, method)):06d}{seed:04d}", "model": "mini-llava", "method": method, "seed": seed,
        "reference": reference, "tuned": "" if reference else "untuned",
    }  # fmt: skip
    if method == "kore" and seed == 1:
        return Record(status="failed", reason=f"RuntimeError: {HOSTILE}", **identity)
    value = 100 * share + seed
    scores = {task: {metric: _score(value)} for task, metric in tasks.items()}
    scores["adaptation"] |= {name: _score(value) for name in ("CEM", "F1", "CEM repaired", "unreachable")}
    scores["retention"] |= {name: _score(95 - value / 2) for name in ("K.R", *DIMENSIONS)}
    scores["retention"] |= {f"{name} chance": _score(10.0) for name in DIMENSIONS}
    scores |= {task: {outcome.metric: _score(value)} for task, outcome in _TOOLKITS.items()}
    scores[POOLED] = pool(scores, _TOOLKITS)
    moved = {"KL": share, "drift by depth": [0.0, share], "leak by depth": [share / 100]}
    settings = {"old": {"samples": 256, "skills": 4}}
    trained = {
        "train": {"steps": 20, "batch_size": 16, "learning_rate": 1e-3},
        "components": {"lora": {"rank": "auto"}},
    }
    counts = {"trainable_parameters": 80_000, "examples": 60, "samples": 320, "steps": 20, "tokens": 30_000}
    return Record(
        status="done", tasks=_TOOLKITS,
        diagnostics={} if reference else {f"forgetting/{name}": value for name, value in moved.items()},
        settings=settings | ({} if reference else trained), scores=scores,
        cost=Cost(
            total_parameters=1_000_000, seconds={"load": 1.0, "train": 0.0 if reference else 9.0, "evaluate": 4.0},
            peak_memory=2**29, **({} if reference else counts),
        ),
        versions={"kore-bench": "0", "torch": "2"},
        data={"root": "world", "digest": "0" * 64, "items": 14, "old skills": sorted(DIMENSIONS)[:4]}, **identity,
    )  # fmt: skip


def _tuning(method: str, share: float) -> dict[str, Any]:
    trials = [
        {
            "learning_rate": rate, "settings": {}, "K.A": 100 * share * gain, "K.R": 90 / gain,
            "Avg": 50 * share * gain + 45 / gain, "seconds": 9.0,
        }
        for rate, gain in ((1e-3, 0.8), (1e-2, 1.0), (1e-1, 1.1))
    ]  # fmt: skip
    chosen = {"learning_rate": 1e-2, "settings": {}}
    return {"method": method, "model": "mini-llava", "budget": BUDGET, "trials": trials, "chosen": chosen}


def _score(value: float) -> Score:
    return Score(value=value, low=value - 2, high=value + 2, n=QUESTIONS)


def _answers(task: str, share: float, seed: int) -> Iterator[dict[str, Any]]:
    dimensions = tuple(DIMENSIONS) if task == "retention" else ("",)
    stream = random.Random(seed)
    for number in range(QUESTIONS):
        right = stream.random() < share
        yield {
            "id": f"{task}-{number}", "images": ["images/0.png"], "text": f"What is {number}?",
            "answer": f"gold {number}", "prediction": f"gold {number}" if right else HOSTILE, "correct": float(right),
            "type": dimensions[number % len(dimensions)], "kind": "", "group": f"item-{number // 5}",
        }  # fmt: skip
