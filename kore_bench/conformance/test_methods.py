"""What every method must hold: settings, shape, data, the hooks' promises, training, saving, and equal seeds."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from kore_bench.card import parse_setting
from kore_bench.component import Component, Defaults, Needs, fold, settings_of
from kore_bench.conformance.prepared import Prepared, mini_card
from kore_bench.examples import Knowledge
from kore_bench.lmm import layer_shapes
from kore_bench.registry import Composition, Registry


@pytest.fixture
def composition(method: str, registry: Registry) -> Composition:
    """Return the components of the method that is tested."""
    return registry.compose(method)


def test_method_describes_itself(composition: Composition) -> None:
    """Names are lower case with hyphens, components are explained, and every default can be written on the command line."""
    for component in composition.components:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", component.name), f"{component.name!r} is no name for --set"
        assert _own_doc(component), f"{component.name} has no docstring: `kore-bench list methods` shows it"
        for field, value in settings_of(component).items():
            option = f"{component.name}.{field}"
            assert parse_setting(component, field, _as_text(value), option) == value, f"--set {option}={value}"


def test_method_agrees_on_its_adapter_before_anything_loads(composition: Composition) -> None:
    """The spec comes from layer shapes alone, is of the adapter's kind, and says what it needs."""
    card = mini_card()
    layers = layer_shapes(card)
    spec = fold(composition.components, layers, Defaults(rank=card.rank, dropout=card.dropout))
    assert spec.kind == composition.adapter.kind
    for component in composition.components:
        needs = component.needs(spec, layers)
        assert isinstance(needs, Needs)
        assert needs.kept >= 0
        assert needs.forwards >= 0


def test_method_keeps_the_contract(
    composition: Composition, mini_knowledge: Knowledge, registry: Registry, tmp_path: Path
) -> None:
    """The base is unchanged and outputs unmoved (see `Prepared`); training moves what is declared, and is saved whole."""
    for component in composition.components:
        component.check_data(mini_knowledge, registry.find)
    prepared = Prepared(mini_knowledge, composition, registry=registry)
    _check_data(prepared)
    _check_penalties(prepared)
    before = {name: value.detach().clone() for name, value in prepared.model.model.named_parameters()}
    prepared.train()
    after = dict(prepared.model.model.named_parameters())
    frozen = {name for name, value in after.items() if not value.requires_grad}
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved, "training changed nothing"
    assert not moved & frozen, "what is frozen changed while training"
    for component in composition.components:
        component.finish(prepared.model, prepared.run)
    assert torch.allclose(prepared.reload(tmp_path), prepared.logits(), atol=1e-4), "a saved model answers otherwise"


def test_method_starts_equal_seeds_at_the_same_place(
    composition: Composition, mini_knowledge: Knowledge, registry: Registry
) -> None:
    """All randomness comes from the seed: equal weights and equal data."""
    first, second = (Prepared(mini_knowledge, composition, registry=registry) for _ in range(2))
    others = dict(second.model.model.named_parameters())
    for name, value in first.model.model.named_parameters():
        assert torch.equal(value, others[name]), f"{name} starts elsewhere under an equal seed"
    assert first.run.examples == second.run.examples, "the data differ under an equal seed"


def _check_data(prepared: Prepared) -> None:
    run = prepared.run
    assert run.examples, "no training data are left"
    for example in run.examples:
        assert example.turns, f"example {example.id} has no turns"
        assert all(turn.question.strip() and turn.answer.strip() for turn in example.turns), f"{example.id} has no text"
        assert all(image.is_file() for image in example.images), f"an image of {example.id} is missing"
    calibration = {example.id for example in run.calibration}
    for component in prepared.components:
        assert set(component.old_samples(run)) <= calibration, f"{component.name} counts what are no old samples"


def _check_penalties(prepared: Prepared) -> None:
    model = prepared.model
    batch = next(model.batches(prepared.run.examples[:2], 2))
    outputs = model.model(**batch)
    for component in prepared.components:
        penalty = component.penalty(model, batch, outputs, prepared.run)
        if penalty is not None:
            assert penalty.ndim == 0, f"the penalty of {component.name} is no scalar"
            assert torch.isfinite(penalty), f"the penalty of {component.name} is not finite"
            assert penalty.requires_grad, f"the penalty of {component.name} has no gradient"


def _own_doc(component: Component) -> str:
    return inspect.cleandoc(vars(type(component)).get("__doc__") or "")


def _as_text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
