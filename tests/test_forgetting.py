"""KL, drift by depth and leak against computations by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kore_bench.calibration import draw_old
from kore_bench.conformance.prepared import mini_card
from kore_bench.examples import Example
from kore_bench.forgetting import POSITIONS, SAMPLES, Reference, answer_positions
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.plan import OldSettings
from kore_bench.registry import Registry

LAYER = "model.language_model.layers.2.mlp.down_proj"


@pytest.fixture(scope="module")
def samples(world: Path) -> list[Example]:
    return list(draw_old(read_knowledge(world), OldSettings(samples=32), 0))


@pytest.fixture
def model() -> LMM:
    torch.set_num_threads(1)
    return LMM.load(mini_card())


def found(model: LMM, samples: list[Example]) -> Reference:
    reference = Reference.of(model, samples)
    assert reference is not None
    return reference


def test_the_base_itself_has_not_moved(model: LMM, samples: list[Example]) -> None:
    moved = found(model, samples).compare(model)
    assert moved["forgetting/KL"] == pytest.approx(0, abs=1e-6)
    assert moved["forgetting/drift by depth"] == [0.0] * 5
    assert moved["forgetting/leak by depth"] == [0.0] * 4
    assert moved["forgetting/positions"] >= len(samples)


def test_a_layer_scaled_by_a_tenth_leaks_a_hundredth_and_nothing_moves_before_it(
    model: LMM, samples: list[Example]
) -> None:
    reference = found(model, samples)
    with torch.no_grad():
        model.linears()[LAYER].weight.mul_(1.1)
    moved = reference.compare(model)
    leak = moved["forgetting/leak by depth"]
    assert leak[2] == pytest.approx(0.01 / 7, rel=1e-4)  # one of the block's seven layers
    assert leak[0] == leak[1] == leak[3] == 0
    drift = moved["forgetting/drift by depth"]
    assert drift[:3] == [0, 0, 0]
    assert drift[3] > 0
    assert drift[4] > 0


def test_kl_is_that_of_the_two_distributions_at_the_answer(model: LMM, samples: list[Example]) -> None:
    reference = found(model, samples[:3])
    with torch.no_grad():
        model.linears()[LAYER].weight.mul_(4.0)
    total, count = 0.0, 0
    for example in samples[:3]:
        batch = next(model.batches([example]))
        labels = batch.pop("labels")[0]
        with torch.inference_mode():
            new = model.model(**batch).logits[0].double().log_softmax(-1)
            with torch.no_grad():
                model.linears()[LAYER].weight.div_(4.0)
            old = model.model(**batch).logits[0].double().log_softmax(-1)
            with torch.no_grad():
                model.linears()[LAYER].weight.mul_(4.0)
        at = [place - 1 for place, label in enumerate(labels.tolist()) if label != -100][:POSITIONS]
        total += float((old[at].exp() * (old[at] - new[at])).sum())
        count += len(at)
    moved = reference.compare(model)
    assert moved["forgetting/positions"] == count
    assert moved["forgetting/KL"] == pytest.approx(total / count, rel=1e-4)
    assert total > 0


def test_an_adapter_is_measured_through_its_own_forward_pass(model: LMM, samples: list[Example]) -> None:
    reference = found(model, samples)
    from kore_bench.component import Defaults, fold

    composition = Registry().compose("lora")
    layers = {name: (linear.out_features, linear.in_features) for name, linear in model.linears().items()}
    model.insert_lora(fold(composition.components, layers, Defaults(rank=4)), projector=False)
    assert reference.compare(model)["forgetting/leak by depth"] == [0.0] * 4
    a, b = model.factors(LAYER)
    with torch.no_grad():
        b.normal_()
    change = (model.lora_layers()[LAYER].scaling["default"] * b @ a).detach()
    x, y = reference.inputs[LAYER], reference.outputs[LAYER]
    by_hand = float((x @ change.T).square().sum() / y.square().sum()) / 7
    assert reference.compare(model)["forgetting/leak by depth"][2] == pytest.approx(by_hand, rel=1e-3)


def test_only_the_first_answer_tokens_of_each_sample_count() -> None:
    labels = torch.full((2, 12), -100)
    labels[0, 3:5] = 7
    labels[1, 2:11] = 7
    at = answer_positions(labels)
    assert at[0].nonzero().flatten().tolist() == [2, 3]
    assert at[1].nonzero().flatten().tolist() == list(range(1, 1 + POSITIONS))


def test_without_old_samples_there_is_no_reference(model: LMM) -> None:
    assert Reference.of(model, []) is None


def test_at_most_so_many_samples_are_kept_spread_over_all(model: LMM, world: Path) -> None:
    many = list(draw_old(read_knowledge(world), OldSettings(samples=200), 0))
    reference = found(model, many)
    assert sum(len(batch["labels"]) for batch in reference.batches) == len(many[::4]) <= SAMPLES
