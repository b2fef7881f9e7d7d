"""CIA: what is trained is averaged over the steps, each tensor with its own weight, and the average is put in at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kore_bench.component import AdapterSpec, Component, Layers, Method, Needs, Run
from kore_bench.errors import UserError

if TYPE_CHECKING:
    import torch

    from kore_bench.lmm import LMM


@dataclass(frozen=True, kw_only=True)
class CIA(Component):
    """Moving average p* <- (1 - w) p* + w p of every trained tensor after each step (Qiao et al. 2025).

    The weight is w = balance (1 + |g_t|) / (|p - p*| |g_t - g_(t-1)|) with sums of absolute values, g_t the clipped
    gradient of the step; where that is not between 0 and 1 it is ``fallback``. p* starts as p after the first step, and
    takes p's place when training ends. ``balance`` is the published code's kappa (2; 0.01 in the authors' later
    toolkit), ``fallback`` its fixed weight (0.01 there, 0.001 later).

    Followed is the code, which has the paper's form (from a second-order expansion of the loss, with the curvature by
    a difference of gradients) up to kappa. Its choice of an adapter by the similarity of instructions has no meaning
    for one stage: the average is always on, towards the base from which the adapter has moved but one step. There the
    gradient is read after the optimizer, and where it is already freed the fixed weight is used unsaid; here it is
    read before, and the record says how often the fixed weight was.
    """

    name = "cia"
    balance: float = 2.0
    fallback: float = 0.01

    def check(self) -> None:
        """Refuse a balance that is not positive, and a fixed weight outside (0, 1]."""
        if not self.balance > 0:
            raise UserError(f"cia.balance={self.balance} must be above 0")
        if not 0 < self.fallback <= 1:
            raise UserError(f"cia.fallback={self.fallback} is a weight: use above 0 to 1")

    def step(self, model: LMM, run: Run) -> None:
        """Average the parameters that the step before this one left, and keep this step's gradient for the next."""
        state = run.state(self)
        self._average(model, state)
        gradients = state.setdefault("gradients", {})
        norms = state.setdefault("norms", {})
        for name, value in _trained(model):
            gradient = (value.grad if value.grad is not None else value.new_zeros(value.shape)).float()
            if name in gradients:
                norms[name] = [gradient.abs().sum(), (gradient - gradients[name]).abs().sum()]
            gradients[name] = gradient.clone()

    def _average(self, model: LMM, state: dict[str, dict[str, torch.Tensor]]) -> None:
        """Move p* towards p, with the norms of the step that made p; the first p is taken as it is."""
        import torch

        averages, norms, counts = (state.setdefault(name, {}) for name in ("averages", "norms", "counts"))
        if "gradients" not in state:  # no step has been made
            return
        for name, value in _trained(model):
            present = value.detach().float()
            if name not in averages:
                averages[name] = present.clone()
                continue
            size, change = norms[name]
            weight = self.balance * (1 + size) / ((present - averages[name]).abs().sum() * change)
            usable = (weight > 0) & (weight < 1)
            weight = torch.where(usable, weight, self.fallback)
            averages[name].lerp_(present, weight)
            for key, number in (("updates", torch.ones_like(weight)), ("weights", weight), ("fallbacks", ~usable)):
                counts[key] = counts.get(key, 0.0) + number.float()

    def finish(self, model: LMM, run: Run) -> None:
        """Average what the last step left, put the average in, and say what the weights were."""
        import torch

        state = run.state(self)
        self._average(model, state)
        with torch.no_grad():
            for name, value in _trained(model):
                value.copy_(state["averages"][name])
        counts = {name: float(value) for name, value in state["counts"].items()}
        if counts:
            run.log("cia/weight, mean", counts["weights"] / counts["updates"])
            run.log("cia/fixed weight used", counts["fallbacks"] / counts["updates"])

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """The average and the last gradient of all that is trained, in float32."""
        sides = spec.adapted(layers).values()
        if spec.kind == "full":
            return Needs(kept=8 * sum(out * width for out, width in sides))
        trained = spec.rank * sum(out + (0 if spec.freeze_a else width) for out, width in sides)
        return Needs(kept=8 * (trained + spec.extra))


def _trained(model: LMM) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return ((name, value) for name, value in model.model.named_parameters() if value.requires_grad)


METHOD = Method(
    name="cia",
    summary="LoRA whose factors are averaged over the steps, each with a weight from its gradients",
    source="CIA, Qiao et al. 2025, arXiv 2410.10868",
    components=(CIA(),),
    tunes={"cia.balance": (0.2, 20.0)},
)
