"""How long is it from a KORE-74K-sized JSON file to the first batch, and how much memory does it take?

The conversations are generated in KORE-74K's proportions (9,422 dialogues of eight turns, as many recognition tasks and
captions, 46,468 VQA; 65,312 image files), with letters beyond Latin-1 among them. A fresh process reads them all, every
field checked and every image found, and makes one batch of 16 drawn at random. Seconds are the process's CPU time; the
wall time of the whole process stands beside them. "To the first batch" is all but the import of torch, transformers and
PEFT, which takes seconds whatever is read and stands apart. Memory is the peak resident set, these included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ITEMS, VQA, IMAGES = 9_422, 46_468, 65_312
LINKS = 10_000  # file systems bound the names that one file may have
SECONDS, BYTES = 10.0, 2**30
"""What must be reached."""

_TEXT = "the a of in was is made by for with from 2024 river tower film Jaime Olías Chi Lăng Flower café"


def write_set(root: Path, scale: float) -> Path:
    """Write the JSON file and the images (hard links of a few) of a set of ``scale`` times KORE-74K's size."""
    from PIL import Image

    (root / "images").mkdir()
    for number in range(int(IMAGES * scale)):
        image = root / "images" / f"{number}.jpg"
        if number % LINKS == 0:
            first = image
            Image.effect_noise((336, 252), 60).convert("RGB").save(first, quality=80)
        else:
            os.link(first, image)
    file = root / "KORE-74K-training_data.json"
    with file.open("w", encoding="utf-8") as stream:
        for number, row in enumerate(_rows(int(ITEMS * scale), int(VQA * scale), int(IMAGES * scale))):
            stream.write(("[\n" if number == 0 else ",\n") + json.dumps(row, ensure_ascii=False))
        stream.write("\n]\n")
    return file


def _rows(items: int, vqa: int, images: int) -> Iterator[dict[str, Any]]:
    rng, known = random.Random(0), _TEXT.split()

    def text(words: int) -> str:
        return " ".join(rng.choices(known, k=words))

    kinds = [(9, 25)] * items + [(1, 3)] * items + [(1, 25)] * items + [(1, 3)] * vqa
    for id, (turns, words) in enumerate(kinds):
        said = [part for turn in range(turns) for part in (text(14), text(80 if turns > 1 and not turn else words))]
        said[0] = f"<image>\n{said[0]}"
        yield {
            "id": id,
            "image": f"images/{rng.randrange(images)}.jpg",
            "conversations": [{"from": ("human", "gpt")[i % 2], "value": part} for i, part in enumerate(said)],
        }


def read(file: Path, began: float) -> None:
    """Read a set and make one batch (a fresh process's work); print the figures as JSON."""
    from kore_bench.formats import read_conversations

    imported = time.process_time()
    examples = read_conversations(file).examples
    known = time.process_time()
    after_reading = _peak()
    from kore_bench.lmm import LMM
    from kore_bench.models.mini_llava import CARD

    loading = time.process_time()
    model = LMM.load(CARD)
    loaded = time.process_time()
    rows = model.rows(examples)
    batch = model.collate([rows[place] for place in random.Random(0).sample(range(len(rows)), 16)])
    done = time.process_time()
    figures = {
        "conversations": len(examples), "tokens of the batch": batch["input_ids"].numel(), "start": imported,
        "reading": known - imported, "import of torch": loading - known, "model": loaded - loading, "batch": done - loaded,
        "to the first batch": done - (loading - known), "wall time": time.time() - began, "peak after reading": after_reading,
        "peak": _peak(),
    }  # fmt: skip
    print(json.dumps(figures))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Generate the set, read it in fresh processes, print what each took, and exit with 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="times KORE-74K's size (default: 1)")
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes (default: 3)")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(Path(options.read[0]), float(options.read[1]))
        return
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        file = write_set(Path(folder), options.scale)
        print(f"{file.stat().st_size / 1e6:.0f} MB of JSON")
        for _ in range(options.repeats):
            command = [sys.executable, __file__, "--read", str(file), str(time.time())]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures = json.loads(done.stdout)
            shown = (f"{name} {_shown(name, value)}" for name, value in figures.items())
            print(", ".join(shown))
            missed |= figures["to the first batch"] > SECONDS or figures["peak"] > BYTES
    print(f"limits: {SECONDS:g} s to the first batch, {BYTES / 2**20:,.0f} MiB: {'missed' if missed else 'kept'}")
    sys.exit(missed)


def _shown(name: str, value: float) -> str:
    if name.startswith("peak"):
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f} s"


if __name__ == "__main__":
    main()
