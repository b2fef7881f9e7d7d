"""Reads from the base what the constraint and its controls start from: factors of every layer, and their quality."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from kore_bench.component import Run
from kore_bench.examples import Example
from kore_bench.lmm import LMM
from kore_bench.spectra import by_block, spectra
from kore_bench.spectrum import Spectrum
from kore_bench.statistics import Counting, Inputs
from kore_bench.subspace import factors_within

from .null_space import (
    NullBasis,
    cut,
    energy,
    excess,
    held_out_tail_share,
    random_basis,
    scale_to_energy,
    top_basis,
)

ENERGY_EXAMPLES = 256
"""How many new examples (evenly spaced) the controls' energy is matched on, at most."""

Factors = dict[str, tuple[Tensor, Tensor]]
"""Layer -> (A ``[r, n]``, B0 ``[m, r]``), float64."""


def null_factors(model: LMM, run: Run, counting: Counting, *, orthonormal: bool, log: bool) -> Factors:
    """Return the factors of every layer in the null space of its old inputs, and ``log`` their quality.

    Logged under ``kore-null/``: the excess of the basis and of A as used (rounded to the training dtype), worst and
    median over layers; the share of old energy that A lets through, on the calibration samples and on held-out ones;
    nullity, the smallest gap, and remarks on cuts that the data do not determine.
    """
    found, rank = _spectra(model, run, counting), run.spec.rank
    bases = {layer: cut(item.values, item.vectors, rank, eps=item.eps) for layer, item in found.items()}
    factors = {
        layer: factors_within(linear.weight, bases[layer].vectors, orthonormal=orthonormal)
        for layer, linear in model.linears().items()
    }
    if log:
        _log(run, found, bases, _quality(model, run, counting, found, bases, factors, orthonormal))
    return factors


def control_factors(model: LMM, run: Run, bases: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return A of every layer in ``bases`` (layer -> ``[n, r]``), scaled to the null space's energy on the new data."""
    counting = Counting()
    null = null_factors(model, run, counting, orthonormal=False, log=False)
    linears = model.linears()

    def matched(inputs: Inputs) -> dict[str, Tensor]:
        scaled = {}
        for layer in inputs.names:
            a, _ = factors_within(linears[layer].weight, bases[layer])
            target = energy(null[layer][0], inputs.covariance)
            scaled[layer] = a * scale_to_energy(a, inputs.covariance, target)
        return scaled

    step = -(-len(run.examples) // ENERGY_EXAMPLES)
    return by_block(model, run.examples[::step], matched, counting)


def random_bases(model: LMM, run: Run, seed: int) -> dict[str, Tensor]:
    """Return a random basis ``[n, rank]`` by layer, one for each distinct input, as the null space has one."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for layer, item in _spectra(model, run, Counting()).items():
        if layer not in drawn:
            drawn |= dict.fromkeys(item.names, random_basis(len(item.values), run.spec.rank, generator))
    return drawn


def top_bases(model: LMM, run: Run) -> dict[str, Tensor]:
    """Return the largest eigenvectors ``[n, rank]`` of every layer's old inputs."""
    rank = run.spec.rank

    def top(inputs: Inputs) -> dict[str, Tensor]:
        return dict.fromkeys(inputs.names, top_basis(inputs.covariance, rank))

    key = {**_key("top eigenvectors", run.calibration, Counting()), "rank": rank}
    return by_block(model, run.calibration, top, Counting(), key, run.cache)


def _spectra(model: LMM, run: Run, counting: Counting) -> dict[str, Spectrum]:
    return spectra(model, run.calibration, counting, run.spec.rank)


def _quality(
    model: LMM, run: Run, counting: Counting, found: Mapping[str, Spectrum], bases: Mapping[str, NullBasis],
    factors: Factors, orthonormal: bool,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Return by layer the excess of the basis and of A as used, and the tail shares, measured on the covariances."""
    dtype = next(model.model.parameters()).dtype
    key = {
        **_key("null space quality", run.calibration, counting),
        "rank": run.spec.rank,
        "orthonormal": orthonormal,
        "dtype": str(dtype),
    }
    used = {layer: a.to(dtype) for layer, (a, _) in factors.items()}

    def inside(inputs: Inputs) -> dict[str, Tensor]:
        return {
            layer: torch.tensor(
                [
                    excess(inputs.covariance, bases[layer], found[layer].values),
                    excess(inputs.covariance, used[layer].T, found[layer].values),
                    held_out_tail_share(used[layer], inputs.covariance),
                ],
                dtype=torch.float64,
            )
            for layer in inputs.names
        }

    def outside(inputs: Inputs) -> dict[str, Tensor]:
        return {
            layer: torch.tensor([held_out_tail_share(used[layer], inputs.covariance)], dtype=torch.float64)
            for layer in inputs.names
        }

    measured = by_block(model, run.calibration, inside, counting, key, run.cache)
    names = ["excess", "excess as used", "tail share, calibration"]
    if run.held_out:
        held_out = {**key, "held out": [example.id for example in run.held_out]}
        unseen = by_block(model, run.held_out, outside, counting, held_out, run.cache)
        measured = {layer: torch.cat([numbers, unseen[layer]]) for layer, numbers in measured.items()}
        names.append("tail share, held-out")
    return {layer: dict(zip(names, numbers.tolist(), strict=True)) for layer, numbers in measured.items()}


def _log(
    run: Run, found: Mapping[str, Spectrum], bases: Mapping[str, NullBasis], quality: Mapping[str, Mapping[str, float]]
) -> None:
    for name in next(iter(quality.values())):
        numbers = [entry[name] for entry in quality.values()]
        run.log(f"kore-null/{name}, worst layer", max(numbers))
        run.log(f"kore-null/{name}, median", statistics.median(numbers))
    run.log("kore-null/nullity, largest", max(basis.nullity for basis in bases.values()))
    run.log("kore-null/gap, smallest", min(basis.gap for basis in bases.values()))
    run.log("kore-null/rank", run.spec.rank)
    run.log("kore-null/tokens", min(item.tokens for item in found.values()))
    remarks = [f"{layer}: {basis.remark}" for layer, basis in bases.items() if basis.remark]
    if remarks:
        run.log("kore-null/remarks", remarks)


def _key(statistic: str, examples: Sequence[Example], counting: Counting) -> dict[str, object]:
    return {
        "statistic": statistic,
        "examples": [example.id for example in examples],
        "counting": asdict(counting),
    }
