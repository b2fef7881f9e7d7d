"""Learning without forgetting (LwF): the model is held to the base's own answers on the new data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kore_bench.component import AdapterSpec, Component, Layers, Method, Needs, Run
from kore_bench.errors import UserError

if TYPE_CHECKING:
    import torch

    from kore_bench.lmm import LMM


@dataclass(frozen=True, kw_only=True)
class LwF(Component):
    """Penalty strength T^2 KL(p_base || p) over answer tokens of the *new* data (Li and Hoiem 2017, section 3).

    p_base are the next-token probabilities of the base, p the model's, both softened by the temperature T; the mean
    is over the step's answer tokens, as in the task loss. No old sample is read. ``strength`` is the paper's lambda_o
    (1), ``temperature`` its T (2).

    Deviations: the paper's cross-entropy has the KL's gradient, and the KL is 0 at the start; T^2, which the paper has
    not, keeps the gradient's size for any T (Hinton et al. 2015); there is no warm-up of a new head, for there is none.
    Published code for language models differs in its weights (EasyCL: (1 - a) task loss + a KL), and takes the logits
    at the label's own position; here the logits before a token are compared, as they are in the task loss.
    """

    name = "lwf"
    by_token = True
    strength: float = 1.0
    temperature: float = 2.0

    def check(self) -> None:
        """Refuse a negative strength, and a temperature that is not positive."""
        if not self.strength >= 0:
            raise UserError(f"lwf.strength={self.strength} must not be negative")
        if not self.temperature > 0:
            raise UserError(f"lwf.temperature={self.temperature} must be above 0 (the paper has 2)")

    def start(self, model: LMM, run: Run) -> None:
        """Keep what it takes to have the base's answers while training."""
        from kore_bench.distillation import keep_base

        run.state(self)["base"] = keep_base(model, run.spec)

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Run) -> torch.Tensor:
        """Return the divergence from the base, summed over the batch's answer tokens."""
        from kore_bench.distillation import answer_divergence, base_logits

        teacher = base_logits(model, run.state(self)["base"], batch)
        return self.strength * answer_divergence(outputs.logits, teacher, batch["labels"], self.temperature)

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """One forward pass of the base a step; its values where the adapter cannot be switched off."""
        from kore_bench.distillation import kept_bytes

        return Needs(forwards=1.0, kept=kept_bytes(spec, layers))


METHOD = Method(
    name="lwf",
    summary="LoRA held to the base's own next-token probabilities on the new data",
    source="Li and Hoiem 2017, arXiv 1606.09282; on answer tokens",
    components=(LwF(),),
    tunes={"lwf.strength": (0.3, 3.0)},
)
