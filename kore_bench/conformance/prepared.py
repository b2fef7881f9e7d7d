"""A model that a method has adapted, as the runner does it, on a few items of the mini world."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kore_bench.calibration import draw_held_out, draw_old
from kore_bench.card import ModelCard
from kore_bench.component import Budget, Component, Defaults, fold
from kore_bench.examples import Knowledge
from kore_bench.lmm import LMM
from kore_bench.plan import OldSettings
from kore_bench.registry import Composition, Registry
from kore_bench.runner import CellRun, adapt
from kore_bench.training import train

ITEMS = 6
OLD = OldSettings(samples=16)


def mini_card() -> ModelCard:
    """Return the card of the mini model."""
    card: ModelCard = Registry().find("models", "mini-llava")
    return card


class Prepared:
    """The mini model, adapted by ``method`` and ready to train.

    Only a method that says so is given old samples. Raises BrokenContractError where `measure` changes a weight,
    `adapt` moves the outputs, or a parameter would be trained that the adapter does not declare.
    """

    def __init__(
        self, knowledge: Knowledge, method: Composition, seed: int = 0, registry: Registry | None = None
    ) -> None:
        torch.set_num_threads(1)
        card = mini_card()
        self.components, self.adapter = method.components, method.adapter
        self.model = LMM.load(card)
        layers = {name: (linear.out_features, linear.in_features) for name, linear in self.model.linears().items()}
        calibration = draw_old(knowledge, OLD, seed)
        reads = any(component.uses_old_samples() for component in self.components)
        self.run = CellRun(
            seed=seed, items=knowledge.items[:ITEMS], calibration=calibration if reads else (),
            held_out=draw_held_out(knowledge, calibration, seed)[:16], base={"test": card.name}, train_projector=False,
            budget=Budget(steps=3, epochs=0, batch_size=4), embed=self.model.embed, registry=registry or Registry(),
            spec=fold(self.components, layers, Defaults(rank=card.rank, dropout=card.dropout)),
        )  # fmt: skip
        adapt(self.model, self.components, self.run, _no_phase)

    def state(self, name: str) -> dict[str, Any]:
        """Return what the component called ``name`` remembers."""
        return self.run.states[name]

    def component(self, name: str) -> Component:
        """Return the component called ``name``."""
        return next(component for component in self.components if component.name == name)

    def train(self, steps: int = 3, rate: float = 1e-3) -> None:
        """Train for a few steps of four examples."""
        settings = replace(self.model.card.train, steps=steps, batch_size=4, learning_rate=rate)
        rows = self.model.rows(self.run.examples)
        train(self.model, rows, settings, self.components, self.run, io.StringIO(), lambda done, total: None)

    def logits(self) -> torch.Tensor:
        """Return the model's outputs on two items' plain conversations."""
        return outputs_on(self.model, self.run)

    def reload(self, folder: Path) -> torch.Tensor:
        """Save what was trained, load it onto a fresh base under another seed, and return that model's outputs."""
        self.model.save(folder)
        torch.manual_seed(12345)
        fresh = LMM.load(self.model.card)
        self.adapter.load(fresh, folder)
        return outputs_on(fresh, self.run)


@torch.inference_mode()
def outputs_on(model: LMM, run: CellRun) -> torch.Tensor:
    """Return logits ``[2, tokens, vocabulary]`` of two items' plain conversations."""
    batch = next(model.batches([item.example() for item in run.items[:2]]))
    batch.pop("labels")
    logits: torch.Tensor = model.model(**batch).logits
    return logits


@contextlib.contextmanager
def _no_phase(name: str) -> Iterator[None]:
    yield
