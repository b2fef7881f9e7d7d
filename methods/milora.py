"""MiLoRA: LoRA that starts at the minor singular components of each weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kore_bench.component import AdapterSpec, Component, Defaults, Layers, Method, Run

if TYPE_CHECKING:
    import torch

    from kore_bench.lmm import LMM


@dataclass(frozen=True, kw_only=True)
class MiLoRA(Component):
    """A = S_r^(1/2) V_r^T and B = U_r S_r^(1/2) of W0 = U S V^T, the r *smallest* singular values; W0 - B A is frozen.

    Wang et al. 2024, arXiv 2406.09044, section 3.2. Scale 1 (alpha = rank), as the authors' scripts set it for this
    method though their LoRA has 2; rank and dropout are LoRA's (``lora.rank``, ``lora.dropout``), in their scripts 64
    and 0.05. The SVD is exact, in float64. PEFT has PiSSA, the opposite choice, but not this one.
    """

    name = "milora"

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Claim the adapter's start in the residual form."""
        return spec.claim(self, alpha=float(spec.rank), residual=True)

    def adapt(self, model: LMM, run: Run) -> None:
        """Write both factors of every layer, and take them out of the base weight."""
        for layer in model.lora_layers():
            a, b = minor_factors(model.linears()[layer].weight, run.spec.rank)
            model.set_factors(layer, a, b, freeze_a=False)
        model.keep_start()


def minor_factors(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A ``[rank, n]`` and B ``[m, rank]`` (float64), B A being the smallest components of ``weight`` ``[m, n]``."""
    import torch

    left, values, right = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    root = values[-rank:].sqrt()
    return root[:, None] * right[-rank:], left[:, -rank:] * root


METHOD = Method(
    name="milora",
    summary="LoRA started at the smallest singular components of the weights",
    source="Wang et al. 2024, arXiv 2406.09044",
    components=(MiLoRA(),),
)
