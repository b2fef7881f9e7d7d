"""What a training step of each registered method costs more than LoRA's: CPU time, side by side with LoRA's own steps."""

from __future__ import annotations

import argparse
import io
import itertools
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from kore_bench.cache import cache_folder
from kore_bench.conformance.prepared import Prepared
from kore_bench.errors import UserError
from kore_bench.examples import Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.mini import world_folder
from kore_bench.registry import Registry
from kore_bench.training import train

BATCH = 8


def main() -> None:
    """Print one line a method: seconds before training, and a step's CPU time as a multiple of LoRA's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="names or mixtures (default: every registered method)")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both sides in turn")
    parser.add_argument("--steps", type=int, default=4, help="steps a round, the first of them not timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    registry = Registry(tuple(Path(file) for file in arguments.plugin))
    knowledge = read_knowledge(world_folder(cache_folder()))
    names = arguments.methods or [name for name in registry.all("methods") if name != "lora"]
    width = max(map(len, names))
    lora = Side("lora", knowledge, registry)
    print(f"{'method':{width}}  start s  step ms  over lora")
    for name in names:
        try:
            method = Side(name, knowledge, registry)
        except UserError as error:
            print(f"{name:{width}}  {error}")
            continue
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            ours += method.run(arguments.steps)
            theirs += lora.run(arguments.steps)
        one, other = statistics.median(ours), statistics.median(theirs)
        print(f"{name:{width}}  {method.start:7.2f}  {1000 * one:7.1f}  {one / other - 1:+9.0%}", flush=True)


class Side:
    """The mini model prepared by one method, and equal examples for all: what augmentations add is not timed."""

    def __init__(self, name: str, knowledge: Knowledge, registry: Registry) -> None:
        begin = time.process_time()
        self.prepared = Prepared(knowledge, registry.compose(name), registry=registry)
        self.start = time.process_time() - begin
        self.rows = self.prepared.model.rows([item.example() for item in knowledge.items[:BATCH]])

    def run(self, steps: int) -> list[float]:
        """Train for a few steps and return the CPU seconds of each but the first."""
        marks: list[float] = []
        settings = replace(self.prepared.model.card.train, steps=steps, batch_size=BATCH, learning_rate=1e-3)
        train(
            self.prepared.model, self.rows, settings, self.prepared.components, self.prepared.run, io.StringIO(),
            lambda done, total: marks.append(time.process_time()),
        )  # fmt: skip
        return [after - before for before, after in itertools.pairwise(marks)]


if __name__ == "__main__":
    main()
