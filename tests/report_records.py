"""A synthetic run folder for tests of reports, and for looking at them: ``python tests/report_records.py FOLDER``."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from kore_bench.measures import Score
from kore_bench.results import Cost, Record, RunFolder, cell_name, write_lines, write_text

DIMENSIONS = ("COM", "OCR", "M-DIS", "INS", "M-IDU", "MAT", "HAL")
BASE = (99.0, 98.5, 88.0, 99.0, 86.5, 81.0, 79.0)
METHODS = {  # K.A, mean loss of retention, trainable parameters, training data
    "full": (50.6, 18.3, 924_000, "plain"),
    "lora": (30.0, 30.5, 82_000, "plain"),
    "replay": (27.1, 21.9, 82_000, "plain"),
    "ewc": (33.6, 7.6, 82_000, "plain"),
    "kore-augmentation": (66.2, 21.7, 82_000, "augmented"),
    "kore-null": (35.2, 6.9, 81_000, "plain"),
    "kore": (96.5, 10.5, 81_000, "augmented"),
    "frozen-random": (34.1, 14.4, 81_000, "plain"),
    "frozen-top": (36.6, 41.2, 81_000, "plain"),
}
MIXTURES = {
    "lora+kore-augmentation": (67.0, 20.2, 82_000, "augmented"),
    "replay+kore-augmentation": (71.4, 9.3, 82_000, "augmented"),
    "ewc+kore-augmentation": (82.3, 12.1, 82_000, "augmented"),
    "ewc+replay": (31.4, 5.1, 82_000, "plain"),
}
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
OLD = {"replay", "ewc", "kore-null", "kore", "frozen-random", "frozen-top"}


def write_run(
    path: Path,
    *,
    seeds: Sequence[int] = (0,),
    methods: Sequence[str] = tuple(METHODS),
    without: Sequence[str] = (),
    failed: str = "",
    skipped: str = "",
    reason: str = "RuntimeError: loss is not finite at step 17",
    tuned: bool = True,
    rename: dict[str, str] | None = None,
    model: str = "mini-llava",
) -> RunFolder:
    """Write a run and return it; ``failed`` fails on the last seed, ``rename`` gives methods other names."""
    run = RunFolder(path)
    cells = []
    for seed in seeds:
        for method in ("base", "in-context", *methods):
            if method in without:
                continue
            record = _record(model, method, seed)
            if method == failed and seed == seeds[-1]:
                record = _lost(record, "failed", reason)
            elif method == skipped:
                record = _lost(record, "skipped", "needs an image pair, which this model cannot read")
            record = replace(record, method=(rename or {}).get(method, method))
            name = cell_name(record.model, record.method, record.seed, record.key)
            cells.append(name)
            run.write(name, record)
            if record.status == "done":
                _predict(run, name, record)
            if record.status == "done" and not record.reference:
                write_lines(run.cell(name) / "train.jsonl", _log(method, seed))
    budget = "240 steps x 16 examples"
    plan = {"request": {"model": model, "data": "mini"}, "budget": budget, "old": {"samples": 256}, "cells": cells}
    write_text(path / "plan.yaml", yaml.safe_dump(plan, sort_keys=False))
    write_text(path / "environment.json", json.dumps({"python": "3.11.7", "platform": "Linux", "cpus": 2}))
    if tuned:
        names = rename or {}
        trials = [_trials(names.get(method, method), method) for method in methods if method not in without]
        write_text(path / "tuning.json", json.dumps(trials))
    return run


def _record(model: str, method: str, seed: int) -> Record:
    ka, loss, parameters, training = (METHODS | MIXTURES).get(method, (5.6, 0.0, 0, ""))
    rng = random.Random(f"{method}/{seed}")
    ka = 58.0 if method == "in-context" else ka
    reference = method in ("base", "in-context")
    if not reference:
        ka, loss = ka + rng.uniform(-3, 3), loss + rng.uniform(-2, 2)
    shares = (0.6, 0.9, 2.6, 0.5, 1.1, 0.8, 0.5)
    values = [max(20.0, start - loss * share) for start, share in zip(BASE, shares, strict=True)]
    retention = {name: _score(value, 300) for name, value in zip(DIMENSIONS, values, strict=True)}
    skills = sorted(random.Random(seed).sample(DIMENSIONS, 4), key=DIMENSIONS.index)
    seen = [retention[name].value for name in skills]
    unseen = [retention[name].value for name in DIMENSIONS if name not in skills]
    retention |= {
        "K.R": _score(sum(values) / 7, 2100),
        "K.R calibrated": _score(sum(seen) / 4, 1200),
        "K.R held-out": _score(sum(unseen) / 3, 900),
    }
    adaptation = {
        "K.A": _score(ka, 300, groups=60),
        "CEM": _score(ka - 1.5, 300, groups=60),
        "F1": _score(ka + 1.5, 300, groups=60),
        "CEM repaired": _score(ka - 1.0, 300, groups=60),
        "unreachable": Score(value=2.0, low=2.0, high=2.0, n=300),
    }
    scores = {"adaptation": adaptation, "retention": retention}
    scores["old-facts"] = {name: _score(min(100.0, max(5.0, 92.0 - 1.6 * loss)), 240) for name in ("old-facts", "CEM")}
    augmented = training == "augmented"
    seconds = {"load": 0.8, "data": 0.4 + augmented, "measure": 2.0 if method in OLD else 0.0}
    seconds |= {"train": 0.0 if reference else 24.0 + 9 * augmented, "evaluate": 5.5}
    return Record(
        key=f"{sum(map(ord, method)) * 7919 + seed:010d}",
        model=model,
        method=method,
        seed=seed,
        status="done",
        reference=reference,
        tuned="" if reference else "tuned",
        settings={"old": {"samples": 256, "skills": 4}} | ({} if reference else _settings(method)),
        scores=scores,
        cost=Cost(
            trainable_parameters=parameters,
            total_parameters=1_120_000,
            examples=0 if reference else 480 if augmented else 60,
            samples=0 if reference else 3840,
            steps=0 if reference else 240,
            tokens=0 if reference else 276_000 + 40_000 * augmented,
            old_samples=256 if method in OLD else 0,
            seconds=seconds,
            peak_memory=812 * 2**20,
        ),
        versions={"kore-bench": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        data={"root": "world", "digest": "9f2c" * 16, "items": 60, "old skills": sorted(skills)},
    )


def _settings(method: str) -> dict[str, Any]:
    parts = {"kore": "kore-augmentation+kore-null", "full": "full"}.get(method, method).split("+")
    adapter = {} if parts[0] in ("full", "lora") else {"lora": {"rank": "auto"}}
    train = {"steps": 240, "epochs": 0.0, "batch_size": 16, "learning_rate": 3e-3, "schedule": "cosine"}
    return {"train": train, "components": adapter | {part: {} for part in parts}}


def _score(value: float, n: int, groups: int = 0) -> Score:
    """Return a score with a normal interval for ``n`` questions (or ``groups`` entities)."""
    share = min(max(value / 100, 0.001), 0.999)
    half = 196 * math.sqrt(share * (1 - share) / (groups * 2 or n))
    return Score(value=value, low=max(0.0, value - half), high=min(100.0, value + half), n=n)


def _lost(record: Record, status: str, reason: str) -> Record:
    """Return the record as a cell that did not finish leaves it: without settings, scores and costs."""
    empty: dict[str, Any] = {"settings": {}, "scores": {}, "versions": {}, "data": {}, "cost": Cost()}
    return replace(record, status=status, reason=reason, **empty)


def _predict(run: RunFolder, name: str, record: Record) -> None:
    """Write predictions whose shares of right answers are about the record's scores."""
    sizes = {"adaptation": {"": 300}, "retention": dict.fromkeys(DIMENSIONS, 300)}
    for task, kinds in sizes.items():
        rows = []
        for kind, count in kinds.items():
            share = record.scores[task][kind or "K.A"].value / 100
            order = random.Random(f"difficulty/{kind}").sample(range(count), count)
            for number in range(count):
                right = order[number] < share * count
                row: dict[str, Any] = {
                    "id": f"{task}-{kind}-{number}",
                    "type": kind,
                    "group": "" if kind else f"item-{number // 5}",
                }
                row |= {"images": [f"images/{number % 3}.png"], "text": f"What is {number}?\nAnswer in a word."}
                row |= {"answer": f"gold {number}", "prediction": f"gold {number}" if right else "nothing"}
                rows.append(row | {"correct": float(right)})
        write_lines(run.cell(name) / "predictions" / f"{task}.jsonl", rows)


def _log(method: str, seed: int) -> list[dict[str, float]]:
    rng = random.Random(f"loss/{method}/{seed}")
    floor = 0.25 if (METHODS | MIXTURES)[method][3] == "augmented" else 0.9
    pace = rng.uniform(25, 70)
    rows = []
    for step in range(1, 241):
        loss = floor + 3.6 * math.exp(-step / pace) + rng.gauss(0, 0.08)
        row = {"step": float(step), "loss": max(loss, 0.02), "learning_rate": 3e-3 * (1 - step / 240)}
        rows.append(row | ({"penalty/ewc": 0.02 * step / 240} if "ewc" in method else {}))
    return rows


def _trials(name: str, method: str) -> dict[str, Any]:
    ka, loss, _, _ = (METHODS | MIXTURES)[method]
    trials: list[dict[str, Any]] = []
    for strength in (1.0, 10.0) if method == "ewc" else (None,):
        for index, rate in enumerate(RATES):
            learnt = min(99.5, ka * (0.25, 0.6, 1.0, 1.08, 0.7)[index] * (0.8 if strength == 10.0 else 1))
            kept = 90.1 - loss * (0.1, 0.4, 1.0, 1.5, 2.0)[index] * (0.6 if strength == 10.0 else 1)
            trial: dict[str, Any] = {
                "learning_rate": rate,
                "settings": {} if strength is None else {"ewc.strength": strength},
            }
            trials.append(trial | {"K.A": learnt, "K.R": kept, "Avg": (learnt + kept) / 2, "seconds": 31.0})
    best = max(trials, key=lambda trial: trial["Avg"])
    chosen = {"learning_rate": best["learning_rate"], "settings": best["settings"]}
    return {
        "method": name,
        "model": "mini-llava",
        "budget": "240 steps x 16 examples",
        "trials": trials,
        "chosen": chosen,
    }


if __name__ == "__main__":
    write_run(Path(sys.argv[1]), methods=[*METHODS, *MIXTURES], failed="ewc+replay", skipped="frozen-top")
