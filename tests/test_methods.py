"""Each method's own mathematics; what all of them must hold is in kore_bench.conformance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from kore_bench.calibration import draw_held_out, draw_old
from kore_bench.conformance.prepared import Prepared
from kore_bench.examples import Example, Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.plan import OldSettings
from kore_bench.registry import Registry
from kore_bench.runner import BrokenContractError

REGISTRY = Registry()


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


def prepare(knowledge: Knowledge, method: str, settings: dict[str, str] | None = None, seed: int = 0) -> Prepared:
    return Prepared(knowledge, REGISTRY.compose(method, settings), seed)


def test_equal_trainable_parameters(knowledge: Knowledge) -> None:
    def count(method: str) -> int:
        return sum(
            value.numel() for value in prepare(knowledge, method).model.model.parameters() if value.requires_grad
        )

    lora = count("lora")
    assert count("ewc") == lora
    for method in ("kore-null", "frozen-random", "frozen-top"):
        assert 0.97 * lora < count(method) <= lora


def test_old_samples_come_from_four_skills_that_rotate(knowledge: Knowledge) -> None:
    skills = {}
    for seed in (0, 1):
        drawn = draw_old(knowledge, OldSettings(), seed)
        skills[seed] = {example.source for example in drawn}
        assert len(drawn) == len({example.id for example in drawn}) == 256
        held_out = draw_held_out(knowledge, drawn, seed)
        assert not {example.id for example in drawn} & {example.id for example in held_out}
        assert len({example.source for example in held_out}) == 3
        assert not {example.source for example in drawn} & {example.source for example in held_out}
    assert len(skills[0]) == len(skills[1]) == 4
    assert skills[0] != skills[1]


# ---- replay


def test_replay_adds_a_share_of_old_samples_and_records_which(knowledge: Knowledge) -> None:
    prepared = prepare(knowledge, "replay", {"replay.ratio": "0.5"})
    replayed = [example for example in prepared.run.examples if example.source.startswith("replay/")]
    assert len(prepared.run.examples) == 6 + 3
    assert [example.id for example in replayed] == prepared.run.diagnostics["replay/ids"]
    assert {example.id for example in replayed} < {example.id for example in prepared.run.calibration}
    assert prepared.component("replay").old_samples(prepared.run) == [example.id for example in replayed]
    other = prepare(knowledge, "replay", {"replay.ratio": "0.5"}, seed=1)
    assert other.run.diagnostics["replay/ids"] != prepared.run.diagnostics["replay/ids"]


# ---- EWC


@pytest.mark.parametrize("method", ["ewc", "ewc+full", "ewc+kore-null"])
def test_the_ewc_penalty_is_zero_at_the_start_and_then_the_fisher_weighted_distance(
    method: str, knowledge: Knowledge
) -> None:
    prepared = prepare(knowledge, method, {"ewc.strength": "2"})
    ewc = prepared.component("ewc")
    start = ewc.penalty(prepared.model, {}, None, prepared.run)
    assert start is not None
    assert float(start.detach()) == 0.0
    before = _effective(prepared.model)
    with torch.no_grad():
        for value in prepared.model.model.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) / 50)
    penalty = ewc.penalty(prepared.model, {}, None, prepared.run)
    assert penalty is not None
    fisher = prepared.state("ewc")["fisher"]
    assert isinstance(fisher, dict)
    after = _effective(prepared.model)
    expected = sum(float((fisher[name] * (after[name] - before[name]).square()).sum()) for name in before)
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-3)  # strength 2 cancels the half
    torch.autograd.backward(penalty)
    gradients = [value.grad for value in prepared.model.model.parameters() if value.grad is not None]
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


def _effective(model: LMM) -> dict[str, torch.Tensor]:
    adapters = model.lora_layers()
    found = {}
    for name, linear in model.linears().items():
        found[name] = linear.weight.detach().clone()
        if name in adapters:
            a, b = model.factors(name)
            found[name] += adapters[name].scaling["default"] * (b @ a).detach()
    return found


def test_the_fisher_is_normalised_and_a_stronger_ewc_moves_less(knowledge: Knowledge) -> None:
    moved = {}
    for strength in ("0", "1"):
        prepared = prepare(knowledge, "ewc", {"ewc.strength": strength})
        fisher = prepared.state("ewc")["fisher"]
        assert isinstance(fisher, dict)
        count = sum(value.numel() for value in fisher.values())
        assert sum(float(value.double().sum()) for value in fisher.values()) / count == pytest.approx(1.0, rel=1e-5)
        before = _effective(prepared.model)
        prepared.train(steps=8, rate=5e-3)
        after = _effective(prepared.model)
        moved[strength] = sum(float((fisher[name] * (after[name] - before[name]).square()).sum()) for name in before)
    assert moved["1"] < 0.5 * moved["0"]


# ---- KORE and its controls


def test_kore_trains_on_trees_in_the_null_space(knowledge: Knowledge) -> None:
    prepared = prepare(knowledge, "kore")
    assert len(prepared.run.examples) == 6 * 8
    assert {example.source for example in prepared.run.examples} == {
        "kore/dialogue", "kore/recognition", "kore/caption", "kore/vqa",
    }  # fmt: skip
    log = prepared.run.diagnostics
    assert log["kore-null/excess, worst layer"] <= 1.01
    assert log["kore-null/excess as used, worst layer"] <= 1.01
    assert log["kore-null/rank"] == 29


def test_the_null_space_lets_less_old_energy_through_than_its_controls(knowledge: Knowledge) -> None:
    """At equal energy on the new data, layer by layer; averaged over layers in logarithms."""
    shares = {}
    for method in ("kore-null", "frozen-random", "frozen-top"):
        prepared = prepare(knowledge, method)
        new, old = _energies(prepared, prepared.run.examples), _energies(prepared, prepared.run.calibration)
        shares[method] = sum(math.log(old[layer] / new[layer]) for layer in new) / len(new)
    assert shares["kore-null"] < shares["frozen-random"] < shares["frozen-top"]


@pytest.mark.parametrize("method", ["frozen-random", "frozen-top"])
def test_controls_have_the_null_spaces_energy_on_the_new_data(method: str, knowledge: Knowledge) -> None:
    energies = {}
    for name in ("kore-null", method):
        prepared = prepare(knowledge, name)
        energies[name] = _energies(prepared, prepared.run.examples)
    for layer, energy in energies["kore-null"].items():
        assert energies[method][layer] == pytest.approx(energy, rel=1e-3), layer


def _energies(prepared: Prepared, examples: Sequence[Example]) -> dict[str, float]:
    total: dict[str, float] = {}
    hooks = []
    for name, layer in prepared.model.lora_layers().items():

        def hook(module: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor, name: str = name) -> None:
            total[name] = total.get(name, 0.0) + float((output.double().square() * mask[..., None]).sum())

        hooks.append(layer.lora_A["default"].register_forward_hook(hook))
    for batch in prepared.model.batches(examples):
        mask = batch["attention_mask"]
        batch.pop("labels")
        with torch.inference_mode():
            prepared.model.model(**batch)
    for handle in hooks:
        handle.remove()
    return total


def test_training_a_too_uses_the_residual_form(knowledge: Knowledge, tmp_path: Path) -> None:
    prepared = prepare(knowledge, "kore-null", {"kore-null.freeze-a": "false"})
    assert prepared.run.spec.residual
    assert 0 < prepared.run.diagnostics["adapt/drift"] < 1e-5
    start = {
        name: model.detach().clone() for name, model in prepared.model.model.named_parameters() if "lora_A" in name
    }
    prepared.train()
    assert any(not torch.equal(start[name], dict(prepared.model.model.named_parameters())[name]) for name in start)
    assert torch.allclose(prepared.reload(tmp_path), prepared.logits(), atol=1e-3)


def test_the_zero_start_and_the_residual_form_are_one(knowledge: Knowledge) -> None:
    """Training B from 0 on W0 equals training B from B0 on W0 - B0 A, with A frozen and no weight decay."""
    zero = prepare(knowledge, "kore-null")
    residual = prepare(knowledge, "kore-null")
    for name, linear in residual.model.linears().items():
        a = residual.model.factors(name)[0].detach().clone()
        b0 = linear.weight.detach() @ torch.linalg.pinv(a)
        residual.model.set_factors(name, a, b0, freeze_a=True)
    zero.train(steps=4)
    residual.train(steps=4)
    assert torch.allclose(zero.logits(), residual.logits(), atol=5e-3)


# ---- the runner's own assertions


def test_a_method_that_breaks_the_contract_is_caught(knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    from kore_bench.methods.replay import Replay

    def spoil(self: Replay, model: LMM, run: object) -> None:
        with torch.no_grad():
            next(model.model.parameters()).add_(1.0)

    with monkeypatch.context() as patch:
        patch.setattr(Replay, "measure", spoil)
        with pytest.raises(BrokenContractError, match="measure changed a weight"):
            prepare(knowledge, "replay")
    with monkeypatch.context() as patch:
        patch.setattr(Replay, "adapt", lambda self, model, run: model.linears().popitem()[1].weight.data.add_(0.5))
        with pytest.raises(BrokenContractError, match="adapt moved the model's outputs"):
            prepare(knowledge, "replay")
    with monkeypatch.context() as patch:
        patch.setattr(Replay, "adapt", lambda self, model, run: model.base.model.vision_tower.requires_grad_(True))
        with pytest.raises(BrokenContractError, match="would be trained, but lora does not declare it"):
            prepare(knowledge, "replay")
