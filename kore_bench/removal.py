"""Which components of a weight a decomposition holds for the least, and the weight without them: SVD, ASVD and CO-SVD.

A weight W ``[m, n]`` is decomposed as SVD(W S) = U Sigma V^T, so that W is the sum over its k = min(m, n) components
sigma_i u_i v_i^T S^-1. S is the identity (plain SVD), the diagonal of the inputs' mean magnitudes to a power (ASVD, Yuan
et al. 2023) or their covariance C = X X^T (CO-SVD, the decomposition of CorDA; KORE section 3.3, figure 4).

Without the components in U_r the weight is W - U_r Sigma_r V_r^T S^-1 = W - U_r U_r^T W, for U_r^T W S = Sigma_r V_r^T:
S^-1 drops out. So C is neither inverted nor damped (CorDA adds 1 % of its mean diagonal to be able to), and may be
singular.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from kore_bench.statistics import Batch, Inputs

ASVD_POWER = 0.5
"""ASVD's S is the diagonal of mean |x| to this power (alpha in Yuan et al. 2023, and in CorDA's code)."""


def components(shape: tuple[int, int]) -> int:
    """Return how many components a weight of this shape has."""
    return min(shape)


def least_directions(weight: Tensor, scale: Tensor | None, count: int) -> Tensor:
    """Return the columns of U ``[m, count]``, float64, of the ``count`` smallest singular values of W S, least first.

    ``scale`` is S: None for the identity, a vector ``[n]`` for a diagonal, or a matrix ``[n, n]``. Raises ValueError
    where the weight has fewer components.
    """
    k = components((weight.shape[0], weight.shape[1]))
    if not 0 <= count <= k:
        raise ValueError(f"a weight of shape {tuple(weight.shape)} has {k} components, not {count}")
    product = weight.detach().double()
    if scale is not None:
        scale = scale.to(product.device, torch.float64)
        product = product * scale if scale.ndim == 1 else product @ scale
    left: Tensor = torch.linalg.svd(product, full_matrices=False)[0]
    return left[:, k - count :].flip(1)


def without(weight: Tensor, directions: Tensor) -> Tensor:
    """Return W - U_r U_r^T W in the weight's dtype, for orthonormal ``directions`` U_r ``[m, r]``."""
    full, left = weight.detach().double(), directions.to(weight.device, torch.float64)
    return (full - left @ (left.T @ full)).to(weight.dtype)


def output_change(weight: Tensor, directions: Tensor, covariance: Tensor) -> Tensor:
    """Return ``[count]``: for r = 1, 2, ... the relative change of old outputs once the first r directions are removed.

    It is ||U_r U_r^T W X|| / ||W X|| in the Frobenius norm, from C = X X^T alone.
    """
    full, left = weight.detach().double(), directions.to(weight.device, torch.float64)
    old = full @ covariance.to(weight.device, torch.float64)
    rows = left.T @ full
    lost = ((left.T @ old) * rows).sum(dim=1).clamp(min=0)
    return (lost.cumsum(0) / (old * full).sum()).sqrt()


def decompose(weight: Tensor, inputs: Inputs, magnitude: Tensor, count: int) -> dict[str, Tensor]:
    """Return each decomposition's least directions ``[m, count]`` (``NAME``) and their output change (``NAME/change``).

    ``magnitude`` is the mean of |x| by channel ``[n]``.
    """
    found = {}
    scales = {"svd": None, "asvd": magnitude**ASVD_POWER, "co-svd": inputs.covariance}
    for name, scale in scales.items():
        found[name] = least_directions(weight, scale, count)
        found[f"{name}/change"] = output_change(weight, found[name], inputs.covariance)
    return found


def mean_magnitudes(model: nn.Module, linears: Mapping[str, nn.Linear], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return linear layer -> the mean of |x| over all tokens that are no padding, by input channel ``[n]``, float64."""
    totals = {name: torch.zeros(layer.in_features, dtype=torch.float64) for name, layer in linears.items()}
    tokens, keep = 0, torch.empty(0)

    def reader(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def read(module: nn.Module, args: tuple[Tensor]) -> None:
            totals[name] += args[0][keep].abs().sum(dim=0, dtype=torch.float64).cpu()

        return read

    with ExitStack() as hooks, torch.no_grad():
        for name, layer in linears.items():
            hooks.enter_context(layer.register_forward_pre_hook(reader(name)))
        for batch in batches:
            keep = batch["attention_mask"] > 0
            tokens += int(keep.sum())
            model(**batch, use_cache=False)
    return {name: total / tokens for name, total in totals.items()}
