"""LoRA on some kinds of layers: which, at what budget, in which mixtures, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kore_bench.component import Defaults, fold
from kore_bench.conformance.prepared import Prepared, mini_card
from kore_bench.errors import UserError
from kore_bench.lmm import layer_shapes
from kore_bench.registry import Registry

Prepare = Callable[..., Prepared]
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
GATE_UP = {"gate_proj", "up_proj"}


def count(prepared: Prepared) -> int:
    return sum(value.numel() for value in prepared.model.model.parameters() if value.requires_grad)


@pytest.mark.parametrize(("method", "leaves"), [("lora-attention", ATTENTION), ("lora-gate-up", GATE_UP)])
def test_only_its_layers_are_adapted_at_loras_budget(method: str, leaves: set[str], prepare: Prepare) -> None:
    prepared, lora = prepare(method), prepare("lora")
    assert {name.split(".")[-1] for name in prepared.model.lora_layers()} == leaves
    assert len(prepared.model.lora_layers()) == len(leaves) * len(prepared.model.blocks())
    assert 0.95 * count(lora) < count(prepared) <= count(lora)
    before = {name: value.detach().clone() for name, value in prepared.model.model.named_parameters()}
    prepared.train(steps=2)
    moved = {name for name, value in prepared.model.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert all(any(f".{leaf}.lora_" in name for leaf in leaves) for name in moved)


@pytest.mark.parametrize("method", ["lora-attention+kore-null", "lora-gate-up+ewc", "lora-attention+olora"])
def test_other_components_work_on_its_layers(method: str, prepare: Prepare) -> None:
    prepared = prepare(method)
    adapted = set(prepared.model.lora_layers())
    assert 0 < len(adapted) < len(prepared.model.linears())
    prepared.train(steps=2)
    if "kore-null" in method:
        assert 0.95 * count(prepare("lora")) < count(prepared) <= count(prepare("lora"))
        assert all(not prepared.model.factors(layer)[0].requires_grad for layer in adapted)


def test_its_rank_may_be_given(prepare: Prepare) -> None:
    assert prepare("lora-attention", {"lora-attention.rank": "3"}).run.spec.rank == 3


def test_a_model_with_other_names_is_refused() -> None:
    layers = {"blocks.0.qkv": (12, 4), "blocks.0.dense": (4, 4)}
    with pytest.raises(UserError) as error:
        fold(Registry().compose("lora-attention").components, layers, Defaults(rank=2))
    assert str(error.value) == (
        "lora-attention adapts q_proj, k_proj, v_proj, o_proj, and this model's layers are called dense, qkv"
    )


def test_a_rank_that_its_layers_cannot_hold_is_refused() -> None:
    card = mini_card()
    components = Registry().compose("lora-attention", {"lora-attention.rank": "500"}).components
    with pytest.raises(UserError, match=r"lora-attention.rank=500 is out of range: .* allows ranks 1 to 128"):
        fold(components, layer_shapes(card), Defaults(rank=card.rank))
