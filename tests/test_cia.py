"""CIA: the average and its weights by hand over a whole training, and where the model ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from kore_bench.component import Component, Run
from kore_bench.conformance.prepared import Prepared
from kore_bench.lmm import LMM
from kore_bench.registry import Registry

Prepare = Callable[..., Prepared]
Values = dict[str, np.ndarray]


def trained(model: LMM) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, value) for name, value in model.model.named_parameters() if value.requires_grad]


@dataclass(frozen=True, kw_only=True)
class Observer(Component):
    """Writes down the parameters before every step, and its gradients."""

    name = "observer"
    parameters: list[Values] = field(default_factory=list)
    gradients: list[Values] = field(default_factory=list)

    def step(self, model: LMM, run: Run) -> None:
        self.parameters.append({name: value.detach().double().numpy().copy() for name, value in trained(model)})
        self.gradients.append({name: value.grad.double().numpy() for name, value in trained(model)
                               if value.grad is not None})  # fmt: skip


def observed(prepared: Prepared, steps: int) -> Observer:
    """Train, watched; the last entry of ``parameters`` is what the last step left."""
    observer = Observer()
    prepared.components = (*prepared.components, observer)
    prepared.train(steps=steps, rate=5e-3)
    observer.parameters.append(
        {name: value.detach().double().numpy().copy() for name, value in trained(prepared.model)}
    )
    return observer


def averaged(observer: Observer, balance: float, fallback: float) -> tuple[Values, list[float], list[bool]]:
    """Return the average over the steps, the weights used, and which of them were the fixed one."""
    averages = dict(observer.parameters[1])
    weights, fixed = [], []
    for step in range(1, len(observer.gradients)):
        for name, average in averages.items():
            now, before = observer.gradients[step][name], observer.gradients[step - 1][name]
            present = observer.parameters[step + 1][name]
            with np.errstate(divide="ignore", invalid="ignore"):
                weight = (
                    balance * (1 + np.abs(now).sum()) / (np.abs(present - average).sum() * np.abs(now - before).sum())
                )
            fixed.append(not 0 < weight < 1)
            weight = fallback if fixed[-1] else float(weight)
            weights.append(weight)
            averages[name] = (1 - weight) * average + weight * present
    return averages, weights, fixed


@pytest.mark.parametrize("balance", [0.005, 2.0])
def test_the_model_ends_at_the_average_of_its_steps(balance: float, prepare: Prepare) -> None:
    prepared = prepare("cia", {"cia.balance": str(balance)})
    observer = observed(prepared, steps=6)
    expected, weights, fixed = averaged(observer, balance, 0.01)
    prepared.component("cia").finish(prepared.model, prepared.run)
    for name, value in trained(prepared.model):
        assert np.allclose(value.detach().numpy(), expected[name], rtol=1e-3, atol=1e-6), name
    assert prepared.run.diagnostics["cia/fixed weight used"] == pytest.approx(np.mean(fixed), abs=1e-6)
    assert prepared.run.diagnostics["cia/weight, mean"] == pytest.approx(float(np.mean(weights)), rel=1e-2)
    if balance < 1:
        assert not all(fixed), "no weight came from the gradients"


def test_the_average_stays_nearer_to_the_start(prepare: Prepare) -> None:
    prepared = prepare("cia")
    start = {name: value.detach().clone() for name, value in trained(prepared.model)}
    prepared.train(steps=10, rate=5e-3)
    before = sum(float((value.detach() - start[name]).square().sum()) for name, value in trained(prepared.model))
    prepared.component("cia").finish(prepared.model, prepared.run)
    after = sum(float((value.detach() - start[name]).square().sum()) for name, value in trained(prepared.model))
    assert 0 < after < before


def test_one_step_is_its_own_average(prepare: Prepare) -> None:
    prepared = prepare("cia+full")
    observer = observed(prepared, steps=1)
    prepared.component("cia").finish(prepared.model, prepared.run)
    for name, value in trained(prepared.model):
        assert np.array_equal(value.detach().double().numpy(), observer.parameters[-1][name])


def test_it_keeps_two_copies_of_what_is_trained(prepare: Prepare) -> None:
    for method in ("cia", "cia+kore-null", "cia+moelora"):
        prepared = prepare(method)
        layers = {name: (linear.out_features, linear.in_features) for name, linear in prepared.model.linears().items()}
        count = sum(value.numel() for _, value in trained(prepared.model))
        assert prepared.component("cia").needs(prepared.run.spec, layers).kept == 8 * count


@pytest.mark.parametrize("setting", [{"cia.balance": "0"}, {"cia.fallback": "2"}])
def test_impossible_settings_are_refused(setting: dict[str, str]) -> None:
    with pytest.raises(Exception, match=next(iter(setting))):
        Registry().compose("cia", setting)


def test_it_is_there_for_any_adapter(prepare: Prepare) -> None:
    prepared: Any = prepare("cia+ewc+full")
    prepared.train(steps=2, rate=5e-4)
    prepared.component("cia").finish(prepared.model, prepared.run)
    assert torch.isfinite(prepared.logits()).all()
