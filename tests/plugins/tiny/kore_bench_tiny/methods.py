"""LoRA with a penalty on its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kore_bench.component import Component, Method, Run
from kore_bench.errors import UserError

from .norms import squared_norm

if TYPE_CHECKING:
    import torch

    from kore_bench.lmm import LMM


@dataclass(frozen=True, kw_only=True)
class Decay(Component):
    """Adds (strength / 2) ||theta||^2 over the trained parameters to the loss of every step."""

    name = "decay"
    strength: float = 0.1

    def check(self) -> None:
        """Refuse a negative strength."""
        if self.strength < 0:
            raise UserError(f"decay.strength={self.strength} must not be negative")

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Run) -> torch.Tensor:
        """Return the penalty."""
        return 0.5 * self.strength * squared_norm(model.model)


METHOD = Method(
    name="decay",
    summary="LoRA with a penalty on the size of its factors",
    source="weight decay towards zero",
    components=(Decay(),),
)
