"""From hooks to adapters: every linear layer of a small Llama, ours, PEFT's CorDA, and the published procedure.

Each side runs the same samples through the same model, sums its covariances and makes its factors: ours block by
block with one fp64 covariance for each distinct input, the others with one fp32 covariance for each layer, all at
once. Excess is measured on fp64 covariances of the same samples; 1 is optimal. Set OMP_NUM_THREADS=1 too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from decomposition import published
from peft import LoraConfig
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from kore_bench.methods.kore.null_space import excess, null_basis
from kore_bench.statistics import Inputs, collect
from kore_bench.subspace import factors_within

R = TypeVar("R")
Factors = dict[str, Tensor]
LEAVES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Side:
    """A model with its layers, and the samples ``[1, length]`` that calibrate it."""

    def __init__(self, hidden: int, layers: int, samples: int, length: int, rank: int) -> None:
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=4096, hidden_size=hidden, intermediate_size=11 * hidden // 4, num_hidden_layers=layers,
                num_attention_heads=hidden // 64, max_position_embeddings=length,
            )
        )  # fmt: skip
        self.model = model.eval()
        self.rank = rank
        self.samples = torch.randint(0, 4096, (samples, 1, length))
        self.layers: dict[str, Any] = {
            f"model.layers.{name}": layer
            for name, layer in self.model.model.layers.named_modules()
            if isinstance(layer, nn.Linear)
        }

    def ours(self) -> Factors:
        """Return A of every layer as the harness makes it."""

        def reduce(inputs: Inputs) -> Factors:
            basis = null_basis(inputs.covariance, self.rank, eps=inputs.eps)
            return {name: factors_within(self.layers[name].weight, basis.vectors)[0].float() for name in inputs.names}

        return {name: found[name] for name, found in self.collect(reduce).items()}

    def collect(self, reduce: Callable[[Inputs], R]) -> dict[str, R]:
        """Return layer -> ``reduce`` of its input's covariance."""
        batches = ({"input_ids": sample, "attention_mask": torch.ones_like(sample)} for sample in self.samples)
        return collect(self.model, self.model.model.layers, self.layers, batches, reduce)

    @torch.no_grad()
    def run(self) -> None:
        """Run every sample through the model."""
        for sample in self.samples:
            self.model(sample, use_cache=False)

    def corda(self) -> Factors:
        """Return A of every layer as PEFT's CorDA makes it (knowledge-preserved mode)."""
        config = LoraConfig(
            r=self.rank, init_lora_weights="corda", target_modules=LEAVES,
            corda_config=CordaConfig(corda_method="kpm", prune_temporary_fields=True),
        )  # fmt: skip
        preprocess_corda(self.model, config, run_model=self.run)
        factors = {name: layer.eigens.V_WC.T for name, layer in self.layers.items()}
        for layer in self.layers.values():
            del layer.eigens
        return factors

    @torch.no_grad()
    def published(self) -> Factors:
        """Return A of every layer as the paper's public code makes it, with fp32 in place of its half precision."""
        sums: dict[str, Tensor] = {}

        def read(name: str, layer: nn.Module, args: tuple[Tensor]) -> None:
            x = args[0].flatten(0, -2).float()
            x = x / x.max().abs()
            sums[name] = sums.get(name, 0) + x.T @ x / len(self.samples)

        hooks = [layer.register_forward_pre_hook(partial(read, name)) for name, layer in self.layers.items()]
        self.run()
        for hook in hooks:
            hook.remove()
        return {name: published(sums[name], layer.weight, self.rank) for name, layer in self.layers.items()}


def main() -> None:
    """Print one table: the median CPU time of each side, its ratio to ours, and its excess over all layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1024, help="hidden size, a multiple of 64 (default: 1024)")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=256, help="tokens a sample (default: 256)")
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)  # CPU time is then what a machine of its own would take
    side = Side(options.n, options.layers, options.samples, options.length, options.rank)
    sides = {"ours (fp64, exact)": side.ours, "PEFT CorDA (fp32)": side.corda, "published (fp32)": side.published}
    times: dict[str, list[float]] = {name: [] for name in sides}
    factors: dict[str, Factors] = {}
    for _ in range(options.rounds):
        for name, make in sides.items():
            begin = time.process_time()
            factors[name] = make()
            times[name].append(time.process_time() - begin)

    def worst(inputs: Inputs) -> dict[str, dict[str, float]]:
        return {
            layer: {name: excess(inputs.covariance, found[layer].T) for name, found in factors.items()}
            for layer in inputs.names
        }

    measured = [found[layer] for layer, found in side.collect(worst).items()]
    tokens = options.samples * options.length
    print(f"{options.layers} blocks of hidden size {options.n}, {tokens} tokens, rank {options.rank}, one thread")
    print(f"{'':20}{'CPU, s':>10}{'time':>8}{'excess: median':>16}{'worst':>12}")
    first = statistics.median(times["ours (fp64, exact)"])
    for name in sides:
        seconds, excesses = statistics.median(times[name]), [entry[name] for entry in measured]
        shown = f"{statistics.median(excesses):16.4f}{max(excesses):12.4f}"
        print(f"{name:20}{seconds:10.2f}{seconds / first:7.2f}x{shown}")


if __name__ == "__main__":
    main()
