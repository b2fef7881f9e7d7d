"""Elastic weight consolidation (EWC) in effective-weight space, for low-rank adapters and full fine-tuning alike."""

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
class EWC(Component):
    """Penalty (strength / 2) sum_i F_i (W_i - W*_i)^2 over the blocks' linear layers (Kirkpatrick et al. 2017).

    F is the empirical Fisher diagonal of the base on the old samples: the mean of *per-example* squared gradients of
    the gold answers' log-likelihood, normalised to mean 1 over all layers. The change W - W* of a low-rank adapter is
    s (B A - B0 A0), for in factor space the Fisher of A would be zero where B starts at zero. ``strength`` is lambda.
    """

    name = "ewc"
    sharded = True
    strength: float = 0.01

    def check(self) -> None:
        """Refuse a negative strength."""
        if not self.strength >= 0:
            raise UserError(f"ewc.strength={self.strength} must not be negative")

    def measure(self, model: LMM, run: Run) -> None:
        """Estimate the Fisher diagonal on the untouched base, or take it from the cache."""
        from kore_bench.fisher import fisher

        key = {"statistic": "fisher", "examples": [example.id for example in run.calibration]}
        run.state(self)["fisher"] = run.cache(
            key,
            lambda: fisher(
                model.model, model.linears(), model.batches(run.calibration, model.card.gradient_batch_size)
            ),
        )

    def start(self, model: LMM, run: Run) -> None:
        """Anchor on the starting point: the weights, or the starting factors of a low-rank adapter."""
        state = run.state(self)
        for name, parts in _parts(model).items():
            state["fisher"][name] = state["fisher"][name].to(model.device)
            state[name] = [part.detach().clone() for part in parts]

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Run) -> torch.Tensor:
        """Return the quadratic penalty on the change of every layer's effective weight.

        The change [m, n] of a layer is made again in the backward pass instead of being kept for all layers.
        """
        from torch.utils.checkpoint import checkpoint

        state = run.state(self)
        terms = [
            checkpoint(_quadratic, state["fisher"][name], parts, state[name], scale, use_reentrant=False)
            for (name, parts), scale in zip(_parts(model).items(), _scales(model), strict=True)
        ]
        total: torch.Tensor = 0.5 * self.strength * sum(terms)
        return total

    def check_spec(self, spec: AdapterSpec, layers: Layers) -> None:
        """Refuse an adapter whose change of a layer is not s B A."""
        spec.check_plain(self)

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """A Fisher value for every weight of the blocks, and an anchor beside it where the weights are trained."""
        weights = sum(out * width for out, width in layers.values())
        return Needs(fisher=True, kept=(8 if spec.kind == "full" else 4) * weights)

    def uses_old_samples(self) -> bool:
        """The Fisher diagonal reads old samples."""
        return True


def _parts(model: LMM) -> dict[str, list[torch.Tensor]]:
    """Return by layer what makes its effective weight: [A, B] under a low-rank adapter, else [W]."""
    layers = model.lora_layers()
    if not layers:
        return {name: [linear.weight] for name, linear in model.linears().items()}
    return {name: list(model.factors(name)) for name in layers}


def _scales(model: LMM) -> list[float]:
    return [layer.scaling["default"] for layer in model.lora_layers().values()] or [1.0] * len(model.linears())


def _quadratic(fisher: torch.Tensor, now: list[torch.Tensor], then: list[torch.Tensor], scale: float) -> torch.Tensor:
    change = now[0] - then[0] if len(now) == 1 else scale * (now[1] @ now[0] - then[1] @ then[0])
    total: torch.Tensor = (fisher * change.square()).sum()
    return total


METHOD = Method(
    name="ewc",
    summary="LoRA held near its start where the base's Fisher information is high",
    source="Kirkpatrick et al. 2017, arXiv 1612.00796; in effective-weight space",
    components=(EWC(),),
    tunes={"ewc.strength": (0.001, 0.1)},
)
