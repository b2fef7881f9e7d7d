"""Training against a bare PyTorch loop: what a step of the harness costs more, on the same model and batch."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kore_bench.component import Adapter, AdapterSpec, Budget
from kore_bench.lmm import LMM
from kore_bench.models.mini_llava import CARD
from kore_bench.registry import Registry
from kore_bench.runner import CellRun
from kore_bench.training import answer_loss, train

BATCH, TOKENS = 8, 256


def main() -> None:
    """Print the median CPU time of a step on both sides, and the overhead, for full fine-tuning and for LoRA."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6, help="steps of each side a round, the first of them not timed")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_llama(Path(folder), hidden=512, layers=4)
        for method in ("full", "lora"):
            harness, bare = Side(Path(folder), method), Side(Path(folder), method)
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(arguments.rounds):
                ours += harness.train(arguments.steps)
                theirs += bare.loop(arguments.steps)
            one, other = statistics.median(ours), statistics.median(theirs)
            print(f"{method}: harness {one:.3f} s a step, bare loop {other:.3f} s, overhead {one / other - 1:+.1%}")


def write_llama(folder: Path, hidden: int, layers: int) -> None:
    """Write the mini model's configuration and processor with a larger Llama."""
    shutil.copytree(CARD.path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": hidden // 8}
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers}
    config["text_config"] |= sizes | heads | {"max_position_embeddings": 2 * TOKENS}
    (folder / "config.json").write_text(json.dumps(config))


class Side:
    """A model with random weights, one method's adapter on it, and a batch of text."""

    def __init__(self, folder: Path, method: str) -> None:
        card = replace(CARD, path=str(folder), weights="random")
        self.model = LMM.load(card)
        self.run = CellRun(
            seed=0, items=(), calibration=(), held_out=(), base={}, train_projector=False,
            budget=Budget(steps=0, epochs=0, batch_size=BATCH), embed=self.model.embed,
            spec=AdapterSpec(kind="full") if method == "full" else AdapterSpec(kind="lora", rank=64, alpha=128.0),
        )  # fmt: skip
        adapter = Registry().compose(method).components[0]
        assert isinstance(adapter, Adapter)
        adapter.adapt(self.model, self.run)
        stream = random.Random(0)
        words = len(self.model.tokenizer)
        texts = [[stream.randrange(5, words) for _ in range(TOKENS)] for _ in range(BATCH)]
        image = self.model.tokenizer.convert_tokens_to_ids("<image>")
        texts = [[token if token != image else 5 for token in text] for text in texts]
        self.rows: list[dict[str, Any]] = [{"input_ids": text, "labels": text, "images": []} for text in texts]

    def train(self, steps: int) -> list[float]:
        """Return the CPU seconds of each step but the first under the harness."""
        times = [0.0]
        settings = replace(CARD.train, steps=steps, batch_size=BATCH, learning_rate=1e-4)
        train(
            self.model, self.rows, settings, (), self.run, io.StringIO(),
            lambda done, total: times.append(time.process_time()),
        )  # fmt: skip
        return [after - before for before, after in itertools.pairwise(times[1:])]

    def loop(self, steps: int) -> list[float]:
        """Return the CPU seconds of each step but the first in a bare loop that does the same arithmetic."""
        model = self.model.model.train()
        trained = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=CARD.train.weight_decay)
        times = []
        for _ in range(steps):
            batch = self.model.to_device(self.model.collate(self.rows))
            labels = batch.pop("labels")
            loss = answer_loss(model(**batch).logits, labels) / (len(self.rows) * (TOKENS - 1))
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(trained, CARD.train.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            times.append(time.process_time())
        return [after - before for before, after in itertools.pairwise(times)]


if __name__ == "__main__":
    main()
