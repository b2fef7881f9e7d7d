"""From a covariance to an adapter's factors, one layer: ours, the published procedure, and PEFT's CorDA, side by side.

All get the same covariance (eigenvalues spread over a condition number) and the same weight. Ours is solved in fp64,
the others in fp32 as they are published. Set OMP_NUM_THREADS=1 too. Excess is how much more old energy the factor's rows let through than the
best possible ones; 1 is optimal. CorDA's knowledge-preserved factor aims at the same directions by another road.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import collect_eigens_for_layer
from torch import Tensor, nn

from kore_bench.methods.kore.null_space import excess, null_basis
from kore_bench.subspace import factors_within


def published(covariance: Tensor, weight: Tensor, rank: int) -> Tensor:
    """Return A as the paper's public code makes it: the full SVD of C, the projector, the full SVD of W0 P, in fp32."""
    bottom = torch.linalg.svd(covariance.float())[0][:, -rank:]
    _, singular, right = torch.linalg.svd(weight @ (bottom @ bottom.T), full_matrices=False)
    a: Tensor = singular[:rank].sqrt()[:, None] * right[:rank]
    return a


def corda(covariance: Tensor, weight: Tensor, rank: int) -> Tensor:
    """Return A as PEFT's CorDA makes it (knowledge-preserved mode: the smallest singular values of W0 C)."""
    linear: Any = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data, linear.covariance_matrix = weight, covariance.float()
    config = LoraConfig(init_lora_weights="corda", corda_config=CordaConfig(corda_method="kpm"))
    right: Tensor = collect_eigens_for_layer(linear, config).V_WC
    return right[:, -rank:].T


def ours(covariance: Tensor, weight: Tensor, rank: int) -> Tensor:
    """Return the harness's A, in the dtype of the weight."""
    return factors_within(weight, null_basis(covariance, rank).vectors)[0].to(weight.dtype)


def interleaved(sides: Mapping[str, Callable[[], Tensor]], rounds: int) -> dict[str, tuple[float, Tensor]]:
    """Return each side's median CPU time in seconds and its result; rounds go through all sides in turn."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Tensor] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            begin = time.process_time()
            results[name] = side()
            times[name].append(time.process_time() - begin)
    return {name: (statistics.median(times[name]), results[name]) for name in sides}


def problem(n: int, condition: float) -> tuple[Tensor, Tensor]:
    """Return a covariance ``[n, n]`` in fp64 and a weight ``[n, n]`` in fp32."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(0, -float(torch.tensor(condition).log10()), n, dtype=torch.float64)
    covariance = (turn * values) @ turn.T
    return (covariance + covariance.T) / 2, torch.randn(n, n, generator=generator) * 0.02


def main() -> None:
    """Print one table: the median time of each side, its ratio to ours, and its excess."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2048, help="channels in and out (default: 2048)")
    parser.add_argument("--rank", type=int, default=235)
    parser.add_argument("--condition", type=float, default=1e8, help="lambda_max / lambda_min (default: 1e8)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)  # CPU time is then what a machine of its own would take
    covariance, weight = problem(options.n, options.condition)
    rank = min(options.rank, options.n // 2)
    sides = {
        "ours (fp64, exact)": lambda: ours(covariance, weight, rank),
        "published (fp32)": lambda: published(covariance, weight, rank),
        "PEFT CorDA (fp32)": lambda: corda(covariance, weight, rank),
    }
    found = interleaved(sides, options.rounds)
    print(f"n = {options.n}, rank {rank}, condition {options.condition:.0e}, one thread")
    print(f"{'':20}{'CPU, s':>10}{'time':>8}{'excess':>12}")
    first = next(iter(found.values()))[0]
    for name, (seconds, a) in found.items():
        print(f"{name:20}{seconds:10.2f}{seconds / first:7.2f}x{excess(covariance, a.T):12.4f}")


if __name__ == "__main__":
    main()
