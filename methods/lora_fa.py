"""LoRA-FA: A stays as it was drawn, only B is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kore_bench.component import AdapterSpec, Component, Defaults, Layers, Method, Run, resolve_rank

if TYPE_CHECKING:
    from kore_bench.lmm import LMM

_DAMPING = 1e-8
"""Added to the diagonal of A A^T, as PEFT does."""


@dataclass(frozen=True, kw_only=True)
class LoRAFA(Component):
    """W = W0 + s B A with A random and frozen, B from zero (Zhang et al. 2023, arXiv 2308.03303).

    ``rank``: a number, ``match:lora@R`` for the rank with as many trained parameters as LoRA of rank R, or ``auto`` for
    the model card's LoRA rank matched so (the paper keeps LoRA's rank and trains fewer: ``match`` makes budgets equal).
    The scale is LoRA's, alpha twice the rank; no dropout.

    ``precondition`` is what PEFT's LoRA-FA optimizer adds to the paper: B's gradient G becomes G (A A^T)^-1 / s^2, for
    which the change of the weight lies nearest to the full gradient. It is applied here before the run's own AdamW
    instead of in PEFT's optimizer, which has one learning rate for B and the projector, rounds the product to bfloat16
    and inverts A A^T in every step; the update is otherwise PEFT's (its epsilon in Adam is 1e-6, ours 1e-8).
    """

    name = "lora-fa"
    sharded = True
    rank: int | str = "auto"
    precondition: bool = True

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Claim LoRA's own start with A frozen; no dropout."""
        rank = resolve_rank(self.rank, "lora-fa.rank", layers, defaults, freeze_a=True)
        return spec.claim(self, rank=rank, alpha=2.0 * rank, dropout=0.0, freeze_a=True)

    def adapt(self, model: LMM, run: Run) -> None:
        """Freeze A where the adapter has drawn it."""
        for layer in model.lora_layers():
            model.set_factors(layer, model.factors(layer)[0], None, freeze_a=True)

    def start(self, model: LMM, run: Run) -> None:
        """Invert s^2 A A^T ``[r, r]`` of every layer, once: A does not move."""
        import torch

        if not self.precondition:
            return
        for layer, lora in model.lora_layers().items():
            a = model.factors(layer)[0].detach().double()
            gram = a @ a.T + _DAMPING * torch.eye(len(a), dtype=a.dtype, device=a.device)
            run.state(self)[layer] = (torch.linalg.inv(gram) / lora.scaling["default"] ** 2).float().contiguous()

    def step(self, model: LMM, run: Run) -> None:
        """Turn B's gradient into the one whose change of the weight is nearest to the full gradient."""
        for layer, inverse in run.state(self).items():
            gradient = model.factors(layer)[1].grad
            if gradient is not None:
                gradient.copy_(gradient @ inverse)


METHOD = Method(
    name="lora-fa",
    summary="LoRA with A frozen where it was drawn; only B is trained",
    source="Zhang et al. 2023, arXiv 2308.03303; PEFT's LoRA-FA optimizer",
    components=(LoRAFA(),),
)
