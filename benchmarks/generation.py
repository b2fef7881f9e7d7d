"""Batched generation against one prompt at a time, on mini-llava: the same answers, and how much faster."""

from __future__ import annotations

import argparse
import time

import torch

from kore_bench.cache import cache_folder
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.mini import world_folder
from kore_bench.models.mini_llava import CARD


def main() -> None:
    """Print seconds, answers a second, and the ratio, for three alternating repetitions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    knowledge = read_knowledge(world_folder(cache_folder()))
    step = max(1, len(knowledge.retention) // arguments.questions)
    prompts = [(question.text, question.images) for question in knowledge.retention[::step]][: arguments.questions]
    model = LMM.load(CARD)
    model.generate(prompts)  # every picture is then processed, for both sides
    for _ in range(arguments.repetitions):
        seconds, answers = {}, {}
        for size in (CARD.evaluation_batch_size, 1):
            begin = time.perf_counter()
            answers[size] = model.generate(prompts, batch_size=size)
            seconds[size] = time.perf_counter() - begin
        batched, alone = seconds[CARD.evaluation_batch_size], seconds[1]
        same = sum(one == other for one, other in zip(*answers.values(), strict=True))
        print(
            f"batched {batched:.2f} s ({len(prompts) / batched:.0f}/s), one at a time {alone:.2f} s "
            f"({len(prompts) / alone:.0f}/s), ratio {alone / batched:.1f}, {same} of {len(prompts)} answers equal"
        )


if __name__ == "__main__":
    main()
