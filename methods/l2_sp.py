"""L2-SP: a plain penalty on the distance to the starting point."""

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
class L2SP(Component):
    """Adds (strength / 2) ||W - W*||^2 to the loss, W* being where training starts (Li et al. 2018, arXiv 1802.01483).

    The paper's eq. 2 without its second term, for no part of the model is new. ``strength`` is its alpha; the paper
    tries 0.001 to 1. The distance is that of the effective weights: of a low-rank adapter s (B A - B0 A0), so that the
    penalty is EWC's with every Fisher value 1, and asks the same of LoRA as of full fine-tuning. Whatever else is
    trained (the projector; all of an adapter whose layers compute something other than W0 x + s B A x, such as DoRA
    or OSF) counts by its own parameters.
    """

    name = "l2-sp"
    sharded = True
    strength: float = 0.01

    def check(self) -> None:
        """Refuse a negative strength."""
        if not self.strength >= 0:
            raise UserError(f"l2-sp.strength={self.strength} must not be negative")

    def start(self, model: LMM, run: Run) -> None:
        """Anchor on the starting point."""
        state, pairs = run.state(self), _pairs(model, run)
        state["factors"] = {layer: [factor.detach().clone() for factor in pair] for layer, pair in pairs.items()}
        state["others"] = {name: value.detach().clone() for name, value in _others(model, pairs).items()}

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Run) -> torch.Tensor:
        """Return half the strength times the squared distance, in float32."""
        import torch

        state, pairs = run.state(self), _pairs(model, run)
        with torch.autocast(model.device.type, enabled=False):
            terms = [
                model.lora_layers()[layer].scaling["default"] ** 2 * squared_change(pair, state["factors"][layer])
                for layer, pair in pairs.items()
            ]
            others = _others(model, pairs).items()
            terms += [(value - state["others"][name]).square().sum() for name, value in others]
            total: torch.Tensor = 0.5 * self.strength * torch.stack(terms).sum()
        return total

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """An anchor for every trained weight."""
        full = spec.kind == "full"
        return Needs(kept=4 * sum(out * width if full else spec.rank * (out + width) for out, width in layers.values()))


def squared_change(now: tuple[torch.Tensor, torch.Tensor], then: list[torch.Tensor]) -> torch.Tensor:
    """Return ||B A - B0 A0||^2 for factors (A ``[r, n]``, B ``[m, r]``), no product ``[m, n]`` being formed.

    The change is L R with L = [B - B0, B0] and R = [A; A - A0], and ||L R||^2 is the sum over (L^T L) * (R R^T).
    """
    import torch

    (a, b), (a0, b0) = now, then
    left, right = torch.cat([b - b0, b0], dim=1), torch.cat([a, a - a0])
    return ((left.T @ left) * (right @ right.T)).sum()


def _pairs(model: LMM, run: Run) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the factors of every layer that computes W0 x + s B A x."""
    return {} if run.spec.form else {layer: model.factors(layer) for layer in model.lora_layers()}


def _others(model: LMM, pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return every other trained parameter by name."""
    inside = {id(factor) for pair in pairs.values() for factor in pair}
    return {
        name: value for name, value in model.model.named_parameters() if value.requires_grad and id(value) not in inside
    }


METHOD = Method(
    name="l2-sp",
    summary="LoRA held near its start by a plain penalty on the distance",
    source="Li et al. 2018, arXiv 1802.01483; in effective-weight space",
    components=(L2SP(),),
    tunes={"l2-sp.strength": (0.01, 0.1, 1.0)},
)
