"""Full fine-tuning of the language model (and the projector, where it is trained)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kore_bench.component import Adapter, AdapterSpec, Defaults, Layers, Method, Run

if TYPE_CHECKING:
    from kore_bench.lmm import LMM


@dataclass(frozen=True, kw_only=True)
class Full(Adapter):
    """Every weight of the language model is trained, embeddings and head included; the vision tower is frozen."""

    name = "full"
    kind = "full"
    sharded = True

    def spec(self, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Return the spec of full fine-tuning."""
        return AdapterSpec(kind=self.kind)

    def adapt(self, model: LMM, run: Run) -> None:
        """Unfreeze; nothing is written, so training starts at the base's weights."""
        model.unfreeze(run.train_projector)

    def trainable(self, name: str, spec: AdapterSpec) -> bool:
        """Everything but the vision tower may train."""
        return "vision_tower" not in name and ".visual.blocks" not in name


METHOD = Method(
    name="full",
    summary="full fine-tuning: every weight of the language model, vision tower frozen",
    source="recipe of LLaVA-1.5 (Liu et al. 2024, arXiv 2310.03744)",
    components=(Full(),),
)
