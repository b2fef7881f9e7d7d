"""How long all reports of a large run take and how much memory: synthetic records of 50 cells, 500,000 predictions."""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from kore_bench.measures import Score
from kore_bench.registry import Registry
from kore_bench.report import build_all
from kore_bench.results import Cost, Record, RunFolder, cell_name, write_lines, write_text

Build = Callable[[RunFolder, Path], list[Path]]
DIMENSIONS = ("COM", "OCR", "M-DIS", "INS", "M-IDU", "MAT", "HAL")
NAMES = (
    "full", "lora", "replay", "ewc", "kore-augmentation", "kore-null", "kore", "frozen-random", "frozen-top", "ewc+replay"
)  # fmt: skip
WORDS = (
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbor",
    "island", "jungle", "lagoon", "meadow", "ridge", "summit", "valley", "willow",
)  # fmt: skip
ENDING = "Answer the question using a single word or phrase."


def write_run(path: Path, *, methods: int, seeds: int, questions: int, pictures: Path | None = None) -> RunFolder:
    """Write a run of ``methods`` x ``seeds`` cells (the first method is the base) of ``questions`` predictions each.

    Half of the questions are of adaptation, half of retention. ``pictures`` is the data folder, where one is wanted:
    its images must be called ``images/0000.jpg`` and so on.
    """
    run = RunFolder(path)
    names = ["base", *(NAMES[index % len(NAMES)] + "+" * (index // len(NAMES)) for index in range(methods - 1))]
    names = [name.rstrip("+") + (f"-{name.count('+') + 1}" if name.endswith("+") else "") for name in names]
    files = sorted(file.name for file in (pictures / "images").iterdir()) if pictures else []
    asked = {"adaptation": _questions("", questions // 2, files)}
    asked["retention"] = [
        question for name in DIMENSIONS for question in _questions(name, questions // 2 // len(DIMENSIONS), files)
    ]
    cells = []
    for seed in range(seeds):
        for number, name in enumerate(names):
            record = _record(name, seed, 30 + 50 * number / len(names), pictures.name if pictures else "gone")
            cells.append(cell_name(record.model, record.method, record.seed, record.key))
            run.write(cells[-1], record)
            write_lines(run.cell(cells[-1]) / "train.jsonl", _log(name, seed) if number else [])
            for task, rows in asked.items():
                chance = random.Random(f"{name}/{seed}/{task}")
                write_lines(
                    run.cell(cells[-1]) / "predictions" / f"{task}.jsonl",
                    ({**row, **_answer(str(row["answer"]), chance, number / len(names))} for row in rows),
                )
    request = {"model": "mini-llava", "data": str(pictures or "gone"), "tasks": list(asked)}
    plan = {"request": request, "budget": "150 steps x 16 examples", "old": {"samples": 256}, "cells": cells}
    write_text(path / "plan.yaml", yaml.safe_dump(plan, sort_keys=False))
    return run


def write_pictures(folder: Path, count: int, side: int) -> Path:
    """Write ``count`` different photograph-like JPEG files of ``side`` x ``side`` pixels and return the data folder."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, size=(24, 24, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / "images" / f"{index:05d}.jpg", quality=88)
    return folder


def _questions(kind: str, count: int, files: list[str]) -> list[dict[str, object]]:
    rng = random.Random(f"questions/{kind}")
    return [
        {
            "id": f"{kind}{number}",
            "images": [f"images/{files[(number + 7919 * len(kind)) % len(files)]}"] if files else ["images/gone.jpg"],
            "text": f"Name the {rng.choice(WORDS)} of the {rng.choice(WORDS)} in the image.\n{ENDING}",
            "answer": f"{rng.choice(WORDS)} {rng.choice(WORDS)} {number % 997}",
            "type": kind or rng.choice(("person", "vehicle", "creature")),
            "kind": "" if kind else rng.choice(("news", "wiki")),
            "group": "" if kind else f"item-{number // 5}",
        }
        for number in range(count)
    ]


def _answer(gold: str, chance: random.Random, skill: float) -> dict[str, object]:
    luck = chance.random()
    if luck < skill:
        return {"prediction": gold, "correct": 1.0}
    if luck < skill + 0.1:
        return {"prediction": f"{gold.split()[0]} {chance.choice(WORDS)}", "correct": 0.25}
    return {"prediction": f"{chance.choice(WORDS)} {chance.choice(WORDS)} {chance.randrange(997)}", "correct": 0.0}


def _record(method: str, seed: int, level: float, root: str) -> Record:
    rng = random.Random(f"{method}/{seed}")

    def score(n: int) -> Score:
        value = level + rng.uniform(-4, 4)
        return Score(value=value, low=value - 2, high=value + 2, n=n)

    reference = method == "base"
    retention = {name: score(700) for name in ("K.R", "K.R calibrated", "K.R held-out", *DIMENSIONS)}
    return Record(
        key=f"{sum(map(ord, method)) * 7919 + seed:010d}", model="mini-llava", method=method, seed=seed, status="done",
        reference=reference, tuned="" if reference else "untuned",
        settings={} if reference else {"train": {"learning_rate": 1e-3}, "components": {"lora": {"rank": 8}}},
        scores={"adaptation": {name: score(5000) for name in ("K.A", "CEM", "F1")}, "retention": retention},
        cost=Cost(trainable_parameters=82_000, seconds={"load": 0.8, "train": 24.0, "evaluate": 5.5}),
        data={"root": root, "digest": "9f2c" * 16, "items": 1000, "old skills": list(DIMENSIONS[:4])},
    )  # fmt: skip


def _log(method: str, seed: int) -> list[dict[str, float]]:
    rng = random.Random(f"loss/{method}/{seed}")
    return [{"step": float(step), "loss": 4 / step + rng.random() / 9, "learning_rate": 1e-3} for step in range(1, 151)]


def main() -> None:
    """Print how long each report takes, the whole, and the peak memory of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", type=int, default=10, help="the base among them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--pictures", type=int, default=0, help="how many JPEG files the questions show")
    parser.add_argument("--side", type=int, default=640, help="their width and height in pixels")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = (
            write_pictures(Path(folder) / "data", arguments.pictures, arguments.side) if arguments.pictures else None
        )
        run = write_run(
            Path(folder) / "run", methods=arguments.methods, seeds=arguments.seeds, questions=arguments.questions,
            pictures=pictures,
        )  # fmt: skip
        reports = [found.value for found in Registry().all("reports").values()]
        spent: dict[str, float] = {}
        begin, cpu = time.perf_counter(), time.process_time()
        build_all(run, [replace(report, build=_timed(report.name, report.build, spent)) for report in reports])
        whole, cpu = time.perf_counter() - begin, time.process_time() - cpu
        size = (run.path / "report.html").stat().st_size
    for name, seconds in spent.items():
        print(f"{name:24} {seconds:6.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"all {len(reports)} reports {whole:.1f} s ({cpu:.1f} s of processor time), peak memory {peak:.0f} MiB, "
        f"report.html {size / 2**20:.1f} MiB"
    )


def _timed(name: str, build: Build, spent: dict[str, float]) -> Build:
    def timed(run: RunFolder, folder: Path) -> list[Path]:
        begin = time.perf_counter()
        try:
            return list(build(run, folder))
        finally:
            spent[name] = time.perf_counter() - begin

    return timed


if __name__ == "__main__":
    main()
