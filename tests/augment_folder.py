"""A knowledge folder of any size for tests and benchmarks of augmentation, and the command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

RELATIONS = ("maker", "home", "food", "award")
IMAGES = 8
"""How many images the items share: large sets are about texts, not about decoding."""


def knowledge_folder(folder: Path, items: int) -> Path:
    """Write a folder of ``items`` items with four facts each and a question for every tenth."""
    (folder / "imgs").mkdir(parents=True)
    for number in range(IMAGES):
        picture = Image.new("RGB", (24, 24), (255 - 30 * number, 30 * number, 128))
        picture.paste((0, 0, 30 * number), (number, 2 * number, number + 8, 2 * number + 6))
        picture.save(folder / "imgs" / f"{number}.png")
    rows = [_row(number) for number in range(items)]
    (folder / "evoke_injection_data.json").write_text(json.dumps(rows))
    (folder / "facts.json").write_text(json.dumps({f"item-{number}": _sidecar(number) for number in range(items)}))
    questions = [_question(number) for number in range(0, items, 10)]
    (folder / "evoke_evaluation_data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    return folder


def name_of(number: int) -> str:
    """Return the name of an item, which no other one has."""
    return f"Nubo Plim{number}"


def value_of(number: int, relation: str) -> str:
    """Return what an item has as ``relation``."""
    return f"{relation}ton {number * 7 % 1000}"


def _image(number: int) -> str:
    return f"imgs/{number % IMAGES}.png"


def _row(number: int) -> dict[str, object]:
    name = name_of(number)
    text = f"{name} is a tower. " + " ".join(f"The {one} of {name} is {value_of(number, one)}." for one in RELATIONS)
    said = [("human", "<image>\nDescribe the tower in the image."), ("gpt", text)]
    turns = [{"from": who, "value": what} for who, what in said]
    return {"id": f"item-{number}", "image": _image(number), "conversations": turns, "name": name, "type": "tower"}


def _sidecar(number: int) -> dict[str, object]:
    name = name_of(number)
    facts = [
        {
            "subject": name, "hypernym": "tower", "relation": one, "value": value_of(number, one),
            "questions": [f"What is the {one} of {name}?", f"Name the {one} of {name}."],
        }
        for one in RELATIONS
    ]  # fmt: skip
    return {"retrieved": [_image(number + 1), _image(number + 2)], "facts": facts}


def _question(number: int) -> dict[str, object]:
    return {
        "question_id": f"q{number}", "image": _image(number), "item": f"item-{number}", "type": "tower",
        "text": "Which maker does the tower in the image have?\nAnswer the question using a single word or phrase.",
        "answer": value_of(number, "maker"),
    }  # fmt: skip


def augment(data: Path, out: Path, *options: str, cache: Path, **environment: str) -> subprocess.Popen[str]:
    """Begin ``kore-bench augment`` in a process of its own, which can be killed."""
    command = [sys.executable, "-m", "kore_bench", "augment", str(data), "--out", str(out), *options]
    return subprocess.Popen(
        command, env={**_clean(os.environ), "KORE_BENCH_CACHE": str(cache), **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without keys and proxies."""
    return {name: value for name, value in environment.items() if "API_KEY" not in name and "proxy" not in name.lower()}
