"""How much faster are benchmarks of VLMEvalKit asked here than by its own loop? Same model, file, machine and answers.

Questions of the mini world's retention are written as VLMEvalKit's file of OCRVQA_TESTCORE, whose prompt ends as theirs
do. Its own inference runs in a process of its own with our model inside, one sample at a time; ours asks in batches.
Both read prompts from `build_prompt`, with the pictures on disk already. Needs VLMEvalKit (docs/toolkits.md).
"""

from __future__ import annotations

import argparse
import base64
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAME = "OCRVQA_TESTCORE"
DATA = "LMUData"  # the variable, spelt as VLMEvalKit has it
SHORT = "Answer the question using a single word or phrase."
GOAL = 5.0


def write_questions(folder: Path, count: int) -> None:
    """Write ``count`` retention questions with one picture each as a file of VLMEvalKit."""
    from kore_bench.cache import cache_folder
    from kore_bench.formats import read_knowledge
    from kore_bench.mini import world_folder

    every = read_knowledge(world_folder(cache_folder())).retention
    chosen = [question for question in every if len(question.images) == 1 and question.text.endswith(SHORT)][:count]
    with (folder / f"{NAME}.tsv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, delimiter="\t")
        table.writerow(["index", "question", "answer", "image"])
        for number, question in enumerate(chosen):
            picture = base64.b64encode(question.images[0].read_bytes()).decode()
            table.writerow([number, question.text.removesuffix(SHORT).strip(), question.answer, picture])


def alone(model: str, folder: Path) -> tuple[dict[str, str], float]:
    """Return VLMEvalKit's own answers by index, and the seconds that its inference took."""
    file = folder / "alone.json"
    request = {"model": model, "url": "", "names": [NAME], "judged": [], "file": str(file)}
    script = Path(__file__).with_name("vlmevalkit_alone.py")
    subprocess.run([sys.executable, "-P", str(script), json.dumps(request)], check=True, capture_output=True)
    found = json.loads(file.read_text())[NAME]
    return found["answers"], found["seconds"]


def ours(model: str, folder: Path, tokens: int) -> tuple[dict[str, str], float]:
    """Return our answers by index, and the seconds from the first prompt to the last answer; the process is warm."""
    from kore_bench.lmm import LMM
    from kore_bench.plan import find_card
    from kore_bench.registry import Registry
    from kore_bench.vlmevalkit import read_questions, toolkit
    from kore_bench.vlmevalkit.asking import ask

    lmm = LMM.load(find_card(Registry(), model, {}))
    kit = toolkit("", "this benchmark")
    _ = kit.known
    begin = time.perf_counter()
    rows = read_questions(kit, NAME).rows
    said = ask(lmm, rows, folder / "ours.answers-0", tokens, lambda done, total: None)
    seconds = time.perf_counter() - begin
    return {row.id: texts[0] for row, texts in zip(rows, said, strict=True)}, seconds


def main() -> None:
    """Print samples a second on both sides and their ratio; exit with 1 where the answers differ."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="mini-llava")
    options.add_argument("--samples", type=int, default=512)
    given = options.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="vlmeval-") as name:
        folder = Path(name)
        os.environ[DATA] = name
        write_questions(folder, given.samples)
        ours(given.model, folder, 1)  # writes the pictures
        (folder / "ours.answers-0").unlink()
        their_answers, their_seconds = alone(given.model, folder)
        our_answers, our_seconds = ours(given.model, folder, 8)
    count = len(our_answers)
    print(f"VLMEvalKit {count / their_seconds:8.1f} samples/s")
    print(f"kore-bench {count / our_seconds:8.1f} samples/s")
    print(f"ratio      {their_seconds / our_seconds:8.1f}   (goal: {GOAL:.0f})")
    if our_answers != their_answers:
        sys.exit("the answers differ")
    print(f"the same {count} answers, {len(set(our_answers.values()))} of them distinct")


if __name__ == "__main__":
    main()
