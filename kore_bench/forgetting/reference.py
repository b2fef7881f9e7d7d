"""Why a cell forgot: how far its outputs, hidden states and layers moved on old samples that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from kore_bench.anatomy import block_linears
from kore_bench.chat import IGNORED
from kore_bench.examples import Example
from kore_bench.lmm import LMM

SAMPLES, POSITIONS = 64, 4
"""Samples at most, and the first answer tokens of each: 0.5 GB for LLaVA-1.5-7B in bfloat16."""

Batch = Mapping[str, torch.Tensor]


@dataclass(kw_only=True)
class Reference:
    """What the untouched base does where the answers of old samples begin, kept on the CPU.

    ``logits`` ``[positions, vocabulary]``; ``hidden`` ``[blocks + 1, positions, width]``, the embeddings first; for each
    linear layer its input ``[positions, in]`` and output ``[positions, out]``.
    """

    batches: list[Batch]
    logits: torch.Tensor
    hidden: torch.Tensor
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    @torch.inference_mode()
    def of(cls, model: LMM, samples: Sequence[Example]) -> Reference | None:
        """Run the untouched ``model`` over old samples, spread evenly; None where there are none."""
        if not samples:
            return None
        stride = -(-len(samples) // SAMPLES)
        batches: list[Batch] = list(model.batches(samples[::stride]))
        taps = {name: _Tap() for name in block_linears(model.base)}
        with ExitStack() as hooks:
            for name, layer in block_linears(model.base).items():
                hooks.callback(layer.register_forward_hook(taps[name]).remove)
            logits, hidden = _run(model, batches, list(taps.values()))
        return cls(
            batches=batches, logits=logits, hidden=hidden,
            inputs={name: torch.cat(tap.inputs) for name, tap in taps.items()},
            outputs={name: torch.cat(tap.outputs) for name, tap in taps.items()},
        )  # fmt: skip

    @torch.inference_mode()
    def compare(self, model: LMM) -> dict[str, Any]:
        """Return how far the trained ``model`` is from the base on these samples, for a record's diagnostics.

        "forgetting/KL": KL(base || trained) in nats an answer token. "forgetting/drift by depth": ||h - h0|| / ||h0||
        after the embeddings and after each block, h the hidden states. "forgetting/leak by depth": for each block the
        mean over its linear layers of ||W x - W0 x||^2 / ||W0 x||^2, x the base's own inputs, so that a layer counts for
        what it does and not for what reaches it. "forgetting/positions": how many tokens that is.
        """
        logits, hidden = _run(model, self.batches, [])
        kl = functional.kl_div(
            logits.float().log_softmax(-1), self.logits.float().log_softmax(-1), log_target=True, reduction="batchmean"
        )
        drift = (hidden.float() - self.hidden.float()).norm(dim=(1, 2)) / self.hidden.float().norm(dim=(1, 2))
        return {
            "forgetting/KL": float(kl),
            "forgetting/drift by depth": [float(value) for value in drift],
            "forgetting/leak by depth": self._leak(model),
            "forgetting/positions": len(logits),
        }

    def _leak(self, model: LMM) -> list[float]:
        leaks: dict[int, list[float]] = {}
        for name, layer in block_linears(model.base).items():
            before = self.outputs[name].to(model.device).float()
            moved = layer(self.inputs[name].to(model.device)).float() - before
            leaks.setdefault(_block(name), []).append(float(moved.square().sum() / before.square().sum()))
        return [sum(found) / len(found) for _, found in sorted(leaks.items())]


class _Tap:
    """A forward hook that keeps a layer's input and output at the positions that ``at`` names."""

    def __init__(self) -> None:
        self.at = torch.empty(0)
        self.inputs: list[torch.Tensor] = []
        self.outputs: list[torch.Tensor] = []

    def __call__(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.inputs.append(inputs[0][self.at].cpu())
        self.outputs.append(output[self.at].cpu())


def _run(model: LMM, batches: Sequence[Batch], taps: Sequence[_Tap]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and hidden states where answer tokens are predicted, as `Reference` holds them."""
    model.model.eval()
    logits, hidden = [], []
    for batch in batches:
        at = answer_positions(batch["labels"])
        for tap in taps:
            tap.at = at
        fed = {name: value for name, value in batch.items() if name != "labels"}
        outputs = model.model(**fed, output_hidden_states=True)
        logits.append(outputs.logits[at].cpu())
        hidden.append(torch.stack([state[at].cpu() for state in outputs.hidden_states]))
    return torch.cat(logits), torch.cat(hidden, dim=1)


def answer_positions(labels: torch.Tensor) -> torch.Tensor:
    """Return a mask ``[batch, length]`` of the tokens that predict the first answer tokens of each sample."""
    following = torch.cat([labels[:, 1:] != IGNORED, torch.zeros_like(labels[:, :1], dtype=torch.bool)], dim=1)
    return following & (following.cumsum(dim=1) <= POSITIONS)


def _block(name: str) -> int:
    """Return the number of the block that a layer's name holds: the first whole number among its parts."""
    return next(int(part) for part in name.split(".") if part.isdigit())
