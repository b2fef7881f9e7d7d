"""How exact is the null space? Tokens of a known difficulty go through the harness's own sums, and through rivals.

Each row is one way to get a basis (or to round the factor made of it). Its excess is measured on the tokens
themselves: the energy ||X U||^2 against the best possible, which comes from the singular values of X (by QR, so that
neither side passes through a covariance), both no less than rank x eps64 x lambda_max. 1 is optimal.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kore_bench.methods.kore.null_space import EPS64, null_basis
from kore_bench.statistics import Counting, Gram
from kore_bench.subspace import factors_within

CHUNK = 4096
INPUTS = {
    "condition": "eigenvalues spread evenly (in logarithms) over the condition number",
    "low-rank": "the same, but a quarter of the directions has no energy beyond the tokens' own fp32 rounding",
    "few-tokens": "fewer tokens than channels: n / 2",
    "dead-channels": "one channel in eight is zero, one repeats its neighbour",
}


def tokens(kind: str, n: int, count: int, condition: float) -> Iterator[Tensor]:
    """Yield fp32 tokens ``[at most 4096, n]``, the same ones at every call."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    scale = torch.logspace(0, -0.5 * float(torch.tensor(condition).log10()), n, dtype=torch.float64)
    if kind == "low-rank":
        scale[-n // 4 :] = 0
    mix = scale[:, None] * turn.T
    count = n // 2 if kind == "few-tokens" else count
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        x = (torch.randn(size, n, generator=generator, dtype=torch.float64) @ mix).float()
        if kind == "dead-channels":
            x[:, ::8] = 0
            x[:, 1::8] = x[:, 2::8]
        yield x


Tokens = Callable[[], Iterator[Tensor]]


class Truth:
    """What no method can beat, from the singular values of all tokens."""

    def __init__(self, source: Tokens, rank: int) -> None:
        self.source, self.rank = source, rank
        factor: Tensor | None = None
        for x in source():
            stack = x.double() if factor is None else torch.cat([factor, x.double()])
            factor = torch.linalg.qr(stack, mode="r")[1]
        assert factor is not None
        n = factor.shape[1]
        values = torch.zeros(n, dtype=torch.float64)
        singular = torch.linalg.svdvals(factor)
        values[n - len(singular) :] = singular.flip(0).square()
        self.floor = rank * EPS64 * float(values[-1])
        self.best = max(float(values[:rank].sum()), self.floor)

    def excess(self, vectors: Tensor) -> float:
        """Return the excess of the span of ``vectors`` ``[n, r]``."""
        q = torch.linalg.qr(vectors.double() / vectors.double().norm(dim=0))[0]
        return max(sum(float((x.double() @ q).square().sum()) for x in self.source()), self.floor) / self.best


def ours(source: Tokens, counting: Counting) -> Tensor:
    """Return the covariance by the harness's own sum."""
    gram: Gram | None = None
    for x in source():
        gram = gram or Gram(x.shape[1], x.device, counting)
        gram.add(x)
    assert gram is not None
    return gram.matrix()


def single(source: Tokens) -> Tensor:
    """Return the covariance summed in fp32 throughout."""
    return _running(x.T @ x for x in source())


def published(source: Tokens) -> Tensor:
    """Return the covariance as the paper's public code sums it, where activations are half precision and all stays so.

    Each sample is divided by its maximum, its product is rounded to fp16, and a 256th of it added in fp16.
    """
    count = sum(len(x) for x in source())
    samples = (sample.half() for x in source() for sample in torch.split(x, max(1, count // 256)))
    scaled = ((sample / sample.max().abs()).float() for sample in samples)
    return _running((x.T @ x).half() / 256 for x in scaled).float()


def _running(products: Iterator[Tensor]) -> Tensor:
    total = next(products).clone()
    for product in products:
        total += product
    return total


def best_of(repeats: int, function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return the shortest time in seconds and the result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def main() -> None:
    """Print one table for each kind of input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1024, help="channels of the layer's input (default: 1024)")
    parser.add_argument("--tokens", type=int, default=150_000, help="calibration tokens (default: 150000)")
    parser.add_argument("--condition", type=float, default=1e8, help="lambda_max / lambda_min (default: 1e8)")
    parser.add_argument("--rank", type=int, default=64, help="directions wanted (default: 64)")
    parser.add_argument("--inputs", nargs="+", choices=list(INPUTS), default=list(INPUTS), help="default: all")
    parser.add_argument("--repeats", type=int, default=1, help="the shortest of so many times counts (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="set OMP_NUM_THREADS too (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for kind in options.inputs:
        compare(kind, options)


def compare(kind: str, options: argparse.Namespace) -> None:
    """Print the table of one kind of input."""

    def source() -> Iterator[Tensor]:
        return iter(kept)

    def solved(covariance: Tensor) -> Tensor:
        return null_basis(covariance, options.rank).vectors

    def eigh32(covariance: Tensor) -> Tensor:
        vectors: Tensor = torch.linalg.eigh(covariance)[1][:, : options.rank]
        return vectors

    def svd32(covariance: Tensor) -> Tensor:
        left: Tensor = torch.linalg.svd(covariance)[0][:, -options.rank :]
        return left

    kept = list(tokens(kind, options.n, options.tokens, options.condition))
    truth = Truth(source, options.rank)
    count = sum(len(x) for x in kept)
    print(f"\n{kind}: {INPUTS[kind]}\n{count} tokens, n = {options.n}, rank {options.rank}, ", end="")
    print(f"condition {options.condition:.0e}, {options.threads} thread(s); best possible {truth.best:.3g}", end="")
    print(f" = {truth.best / truth.floor:.3g} floors")
    print(f"{'':34}{'excess':>12}{'sum, s':>10}{'solve, s':>10}{'time':>8}")
    rows: list[tuple[str, Callable[[], Tensor], Callable[[Tensor], Tensor]]] = [
        ("ours (fp64 products, fp64 solve)", lambda: ours(source, Counting()), solved),
        ("fp32 chunks into fp64, fp64 solve", lambda: ours(source, Counting(precision="float32")), solved),
        ("fp32 throughout, fp32 eigh", lambda: single(source), eigh32),
        ("published (fp16 sum, fp32 svd)", lambda: published(source), svd32),
        ("the same with fp32 eigh", lambda: published(source), eigh32),
    ]
    first, basis = 0.0, torch.empty(0)
    for name, summed, solver in rows:
        sum_time, covariance = best_of(options.repeats, summed)
        solve_time, vectors = best_of(options.repeats, lambda: solver(covariance))  # noqa: B023
        first = first or sum_time + solve_time
        basis = vectors if not len(basis) else basis
        ratio = (sum_time + solve_time) / first
        print(f"{name:34}{truth.excess(vectors):12.4f}{sum_time:10.2f}{solve_time:10.2f}{ratio:7.2f}x", flush=True)
    weight = torch.randn(options.n, options.n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a, _ = factors_within(weight, basis)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        name = f"ours, A as used in {str(dtype).removeprefix('torch.')}"
        print(f"{name:34}{truth.excess(a.to(dtype).T):12.4f}", flush=True)


if __name__ == "__main__":
    main()
