"""A run whose questions show pictures, for tests of the page: two tasks, two seeds, answers that are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from kore_bench.measures import Score
from kore_bench.results import Cost, Record, RunFolder, cell_name, write_lines, write_text

METHODS = ("base", "lora", "kore")
COUNT = 60
"""Questions of adaptation, and as many of retention."""


def write_pictures(folder: Path, count: int = 7) -> Path:
    """Write a data folder with ``count`` different small pictures and return it."""
    (folder / "images").mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (32, 32), (30 * index, 90, 200)).save(folder / "images" / f"{index}.png")
    return folder


def write_run(
    path: Path,
    data: Path,
    *,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0, 1),
    lost: Sequence[tuple[str, int]] = (),
    reason: str = "RuntimeError: loss is not finite",
    words: str = "",
    pictures: int = 7,
) -> RunFolder:
    """Write a run; cells in ``lost`` failed. ``words`` stand in every text that a model or a data folder gives."""
    run = RunFolder(path)
    cells = []
    for seed in seeds:
        for number, method in enumerate(methods):
            record = _record(method, seed, data.name)
            if (method, seed) in lost:
                empty: dict[str, Any] = {"scores": {}, "settings": {}, "data": {}}
                record = replace(record, status="failed", reason=reason, **empty)
            name = cell_name(record.model, method, seed, record.key)
            cells.append(name)
            run.write(name, record)
            if record.status == "done":
                for task in ("adaptation", "retention"):
                    rows = [_row(task, index, number, seed, words, pictures) for index in range(COUNT)]
                    write_lines(run.cell(name) / "predictions" / f"{task}.jsonl", rows)
    request = {"model": "mini-llava", "data": str(data), "tasks": ["adaptation", "retention"]}
    plan = {"request": request, "budget": "10 steps x 4 examples", "cells": cells}
    write_text(path / "plan.yaml", yaml.safe_dump(plan, sort_keys=False))
    write_text(path / "environment.json", json.dumps({"python": "3.11.7"}))
    return run


def right(task: str, index: int, method: int, seed: int) -> float:
    """Return how right an answer of the run is: 0, 0.5 or 1; every third question is right for the method of its turn."""
    return 0.5 if task == "adaptation" and index % 10 == 9 else float((index + seed) % 3 <= method - (index % 2))


def _row(task: str, index: int, method: int, seed: int, words: str, pictures: int) -> dict[str, Any]:
    correct = right(task, index, method, seed)
    said = {1.0: f"gold {index}", 0.5: f"gold, {index} half"}.get(correct, f"silver {index} of {method}")
    return {
        "id": f"{index}{words}",
        "images": [f"images/{index % pictures}.png"]
        + ([f"images/{(index + 1) % pictures}.png"] if index % 4 == 0 else []),
        "text": f"What is number {index}?{words}\nAnswer in a word.",
        "answer": f"gold {index}{words}",
        "prediction": said + words,
        "correct": correct,
        "type": (f"vehicle{words}", "plant")[index % 2] if task == "adaptation" else ("COM", "OCR")[index % 2],
        "kind": ("news", "wiki")[index % 3 == 0] if task == "adaptation" else "",
        "group": f"item-{index // 5}" if task == "adaptation" else "",
    }


def _record(method: str, seed: int, root: str) -> Record:
    score = Score(value=50.0 + seed + sum(map(ord, method)) % 15, low=40.0, high=70.0, n=COUNT)
    reference = method == "base"
    names = {"adaptation": ("K.A", "CEM", "F1"), "retention": ("K.R", "COM", "OCR")}
    return Record(
        key=f"{sum(map(ord, method)):010d}", model="mini-llava", method=method, seed=seed, status="done", reference=reference,
        settings={} if reference else {"train": {"learning_rate": 1e-3}, "components": {method: {}}},
        tuned="" if reference else "untuned", scores={task: dict.fromkeys(found, score) for task, found in names.items()},
        cost=Cost(trainable_parameters=1000 + seed, seconds={"train": 2.0}), versions={"kore-bench": "0.1.0"},
        data={"root": root, "digest": "ab" * 32, "items": 12, "old skills": ["COM"]},
    )  # fmt: skip
