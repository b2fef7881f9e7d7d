"""Low-rank adaptation (LoRA): of every linear layer of the language model's blocks, or of some kinds of them."""

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
    sharded = True
    rank: int | str = "auto"
    alpha: float = 0.0
    dropout: float | str = "auto"

    def check(self) -> None:
        """Refuse a dropout outside [0, 1) and a negative scale."""
        if isinstance(self.dropout, float) and not 0 <= self.dropout < 1:
            raise UserError(f"{self.name}.dropout={self.dropout} must be at least 0 and below 1")
        if self.alpha < 0:
            raise UserError(f"{self.name}.alpha={self.alpha} must not be negative")

    def spec(self, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Return a plain LoRA of the asked rank."""
        rank = resolve_rank(self.rank, f"{self.name}.rank", layers, defaults, freeze_a=False)
        dropout = self.dropout if isinstance(self.dropout, float) else defaults.dropout
        return AdapterSpec(kind=self.kind, rank=rank, alpha=self.alpha or 2 * rank, dropout=dropout)

    def adapt(self, model: LMM, run: Run) -> None:
        """Insert the adapter that the folded spec describes; A is drawn from this component's own stream."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.rng(self).getrandbits(63))
            model.insert_lora(run.spec, run.train_projector)

    def trainable(self, name: str, spec: AdapterSpec) -> bool:
        """Both factors train unless A is frozen, DoRA's magnitudes, and the projector's copy where it was asked for."""
        factor = "lora_B" in name or ("lora_A" in name and not spec.freeze_a)
        return factor or "lora_magnitude_vector" in name or "modules_to_save" in name


@dataclass(frozen=True, kw_only=True)
class LoRAAttention(LoRA):
    """LoRA on the attention projections alone; ``rank``, ``alpha`` and ``dropout`` are as `lora`'s.

    Zhu et al. 2025 (arXiv 2510.08564) train the weights of these layers themselves and keep the others.
    ``auto`` is the rank with (at most) as many trained parameters as LoRA on every layer at the card's rank.
    """

    name = "lora-attention"
    leaves = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True, kw_only=True)
class LoRAGateUp(LoRA):
    """LoRA on the feed-forward layers' gate and up projections alone; settings are as `lora-attention`'s."""

    name = "lora-gate-up"
    leaves = ("gate_proj", "up_proj")


METHOD = Method(
    name="lora",
    summary="low-rank adapters on every linear layer of the language model's blocks",
    source="Hu et al. 2022, arXiv 2106.09685; recipe of LLaVA-1.5",
    components=(LoRA(),),
)
ATTENTION = Method(
    name="lora-attention",
    summary="LoRA on attention projections only, at LoRA's trainable budget",
    source="the choice of layers of Zhu et al. 2025, arXiv 2510.08564; as low-rank adapters",
    components=(LoRAAttention(),),
)
GATE_UP = Method(
    name="lora-gate-up",
    summary="LoRA on the feed-forward gate and up projections only, at LoRA's trainable budget",
    source="the choice of layers of Zhu et al. 2025, arXiv 2510.08564; as low-rank adapters",
    components=(LoRAGateUp(),),
)
