"""Low-rank adaptation (LoRA) of every linear layer of the language model's blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kore_bench.component import Adapter, AdapterSpec, Defaults, Layers, Method, Run, resolve_rank
from kore_bench.errors import UserError

if TYPE_CHECKING:
    from kore_bench.lmm import LMM


@dataclass(frozen=True, kw_only=True)
class LoRA(Adapter):
    """W = W0 + (alpha / rank) B A with A random, B zero (Hu et al. 2022, arXiv 2106.09685).

    ``rank``: ``auto`` takes the model card's (128 in LLaVA-1.5's recipe). ``alpha``: 0 takes twice the rank.
    ``dropout`` on the adapter's input: ``auto`` takes the card's (0.05 in LLaVA-1.5's recipe); it is 0 wherever a
    component freezes a factor.
    """

    name = "lora"
    rank: int | str = "auto"
    alpha: float = 0.0
    dropout: float | str = "auto"

    def check(self) -> None:
        """Refuse a dropout outside [0, 1) and a negative scale."""
        if isinstance(self.dropout, float) and not 0 <= self.dropout < 1:
            raise UserError(f"lora.dropout={self.dropout} must be at least 0 and below 1")
        if self.alpha < 0:
            raise UserError(f"lora.alpha={self.alpha} must not be negative")

    def spec(self, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Return a plain LoRA of the asked rank."""
        rank = resolve_rank(self.rank, "lora.rank", layers, defaults, freeze_a=False)
        dropout = self.dropout if isinstance(self.dropout, float) else defaults.dropout
        return AdapterSpec(kind=self.kind, rank=rank, alpha=self.alpha or 2 * rank, dropout=dropout)

    def adapt(self, model: LMM, run: Run) -> None:
        """Insert the adapter that the folded spec describes; A is drawn from this component's own stream."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.rng(self).getrandbits(63))
            model.insert_lora(run.spec, run.train_projector)

    def trainable(self, name: str, spec: AdapterSpec) -> bool:
        """Both factors train unless A is frozen; the projector's copy trains where it was asked for."""
        return "lora_B" in name or ("lora_A" in name and not spec.freeze_a) or "modules_to_save" in name


METHOD = Method(
    name="lora",
    summary="low-rank adapters on every linear layer of the language model's blocks",
    source="Hu et al. 2022, arXiv 2106.09685; recipe of LLaVA-1.5",
    components=(LoRA(),),
)
