"""KL on old samples: the penalty by hand, its draws, its mixtures, and what training with it keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kore_bench.conformance.prepared import Prepared
from kore_bench.distillation import answer_divergence, base_logits
from kore_bench.lmm import IGNORED, LMM

Prepare = Callable[..., Prepared]


def drawn(prepared: Prepared, new: int) -> list[str]:
    kl: Any = prepared.component("kl")
    return [example.id for example in kl._draw(new, prepared.run)]


def batch(prepared: Prepared, size: int) -> dict[str, torch.Tensor]:
    return next(prepared.model.batches(prepared.run.examples[:size], size))


def test_the_penalty_is_the_mean_divergence_on_the_drawn_samples(prepare: Prepare) -> None:
    prepared, other = (prepare("kl", {"kl.strength": "3", "kl.ratio": "0.5"}) for _ in range(2))
    with torch.no_grad():
        for value in prepared.model.model.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) / 8)
    penalty: Any = prepared.component("kl").penalty(prepared.model, batch(prepared, 4), None, prepared.run)
    ids = drawn(other, 4)  # the other's first draw is the same
    assert len(ids) == 2
    samples = [example for id in ids for example in prepared.run.calibration if example.id == id]
    base = LMM.load(prepared.model.card)
    total, tokens = 0.0, 0
    for sample in samples:
        row = next(prepared.model.batches([sample], 1))
        labels = row.pop("labels")
        with torch.no_grad():
            present, before = (model(**row).logits[0].double() for model in (prepared.model.model, base.model))
        for position in range(labels.shape[1] - 1):
            if labels[0, position + 1] != IGNORED:
                p, q = before[position].softmax(-1), present[position].softmax(-1)
                total += float((p * (p / q).log()).sum())
                tokens += 1
    assert float(penalty.detach()) == pytest.approx(3 * total / tokens, rel=1e-3)
    torch.autograd.backward(penalty)
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in prepared.model.model.parameters())


def test_draws_differ_between_batches_and_steps_and_come_again_from_the_same_memory(prepare: Prepare) -> None:
    prepared = prepare("kl")
    kl = prepared.component("kl")
    first, second = drawn(prepared, 16), drawn(prepared, 16)
    assert len(first) == len(set(first)) == 4
    assert drawn(prepared, 1), "a small batch draws one at least"
    kl.step(prepared.model, prepared.run)
    memory = dict(prepared.state("kl"))
    third = drawn(prepared, 16)
    assert len({tuple(sorted(ids)) for ids in (first, second, third)}) == 3
    prepared.state("kl").update(memory)
    assert drawn(prepared, 16) == third
    assert drawn(prepare("kl"), 16) == first
    assert drawn(prepare("kl", seed=1), 16) != first


@pytest.mark.parametrize(("method", "rate"), [("lora", 5e-3), ("full", 5e-4)])
def test_training_with_it_stays_nearer_to_the_base_on_old_samples(method: str, rate: float, prepare: Prepare) -> None:
    distances = {}
    for strength in ("0", "3"):
        prepared = prepare(f"{method}+kl", {"kl.strength": strength, "kl.ratio": "1"})
        prepared.train(steps=20, rate=rate)
        rows = next(prepared.model.batches(prepared.run.calibration, 16))
        labels = rows.pop("labels")
        with torch.no_grad():
            student = prepared.model.model(**rows).logits
        teacher = base_logits(prepared.model, prepared.state("kl")["base"], rows)
        distances[strength] = float(answer_divergence(student, teacher, labels))
    assert distances["3"] < 0.6 * distances["0"]


@pytest.mark.parametrize("method", ["kore-null+kl", "kore-null+ewc", "kore-null+replay", "kl+ewc+lwf"])
def test_it_joins_others(method: str, prepare: Prepare) -> None:
    prepared = prepare(method)
    before = prepared.logits()
    prepared.train(steps=2)
    assert not torch.equal(before, prepared.logits())
    assert len(prepared.components) == 1 + method.count("+") + 1


def test_its_cost_is_declared(prepare: Prepare) -> None:
    prepared = prepare("kl", {"kl.ratio": "0.5"})
    assert prepared.component("kl").needs(prepared.run.spec, {"layer": (3, 2)}).forwards == 2
    assert set(prepared.component("kl").old_samples(prepared.run)) == {e.id for e in prepared.run.calibration}


@pytest.mark.parametrize("setting", [{"kl.strength": "-1"}, {"kl.ratio": "0"}])
def test_impossible_settings_are_refused(setting: dict[str, str], prepare: Prepare) -> None:
    with pytest.raises(Exception, match=next(iter(setting))):
        prepare("kl", setting)
