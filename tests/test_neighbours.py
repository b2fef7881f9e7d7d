"""The mathematics of PEFT's neighbours of LoRA, against independent computations and against PEFT itself."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft.optimizers import create_lorafa_optimizer

from kore_bench.anatomy import block_linears
from kore_bench.component import Defaults, check_peft, fold
from kore_bench.conformance.prepared import Prepared, mini_card
from kore_bench.errors import UserError
from kore_bench.examples import Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.lmm import layer_shapes
from kore_bench.methods.l2_sp import squared_change
from kore_bench.methods.osf import changes
from kore_bench.runner import CellRun
from kore_bench.training import answer_loss

shared: Any = importlib.import_module("neighbours")
REGISTRY, prepare, base_weights = shared.REGISTRY, shared.prepare, shared.base_weights
NEIGHBOURS = ("lora-fa", "dora", "pissa", "milora", "corda", "lora-null", "lora-null-v2", "eva", "osf", "l2-sp")
RESIDUAL = ("pissa", "milora", "corda", "lora-null")


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


# ---- what all of them hold


@pytest.mark.parametrize("method", NEIGHBOURS)
def test_as_many_parameters_train_as_the_estimate_says(method: str, knowledge: Knowledge) -> None:
    from kore_bench.architecture import read_architecture
    from kore_bench.estimate import trainable_parameters

    prepared = prepare(knowledge, method)
    trained = sum(value.numel() for value in prepared.model.model.parameters() if value.requires_grad)
    sizes = read_architecture(mini_card())
    assert trained == trainable_parameters(sizes, prepared.run.spec, projector=False)
    lora = trainable_parameters(sizes, prepare(knowledge, "lora").run.spec, projector=False)
    assert 0.97 * lora < trained < 1.05 * lora


@pytest.mark.parametrize("method", RESIDUAL)
def test_residual_forms_take_their_start_out_of_the_base_weight(method: str, knowledge: Knowledge) -> None:
    before = base_weights()
    prepared = prepare(knowledge, method)
    assert prepared.run.spec.alpha == prepared.run.spec.rank
    for name, linear in prepared.model.linears().items():
        a, b = (factor.detach().double() for factor in prepared.model.factors(name))
        assert (b @ a).norm() > 1e-3 * before[name].norm()
        assert torch.allclose(linear.weight.double() + b @ a, before[name], atol=1e-5)


@pytest.mark.parametrize("method", ["lora-fa", "lora-null-v2"])
def test_a_frozen_factor_does_not_move_by_one_bit(method: str, knowledge: Knowledge) -> None:
    prepared = prepare(knowledge, method)
    start = {name: prepared.model.factors(name)[0].detach().clone() for name in prepared.model.lora_layers()}
    prepared.train(steps=6, rate=1e-2)
    for name, a in start.items():
        assert torch.equal(prepared.model.factors(name)[0], a)
        assert prepared.model.factors(name)[1].abs().sum() > 0


@pytest.mark.parametrize("method", ["pissa", "dora", "corda", "osf", "eva"])
def test_the_projector_trains_beside_them(method: str, knowledge: Knowledge, tmp_path: Path) -> None:
    prepared = prepare_with_projector(knowledge, method)
    trained = [name for name, value in prepared.model.model.named_parameters() if value.requires_grad]
    assert any("modules_to_save" in name for name in trained)
    prepared.train(steps=2, rate=1e-2)
    assert torch.allclose(prepared.reload(tmp_path), prepared.logits(), atol=1e-4)


def prepare_with_projector(knowledge: Knowledge, method: str) -> Prepared:
    from kore_bench.conformance import prepared as module

    def with_projector(**fields: Any) -> CellRun:
        return CellRun(**{**fields, "train_projector": True})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CellRun", with_projector)
        prepared: Prepared = prepare(knowledge, method)
    return prepared


# ---- DoRA


def test_doras_layers_compute_its_formula_and_its_norm_has_no_gradient(knowledge: Knowledge) -> None:
    prepared = prepare(knowledge, "dora")
    prepared.train(steps=3, rate=1e-2)
    for name, layer in prepared.model.lora_layers().items():
        a, b = (factor.detach().double() for factor in prepared.model.factors(name))
        weight = prepared.model.linears()[name].weight.detach().double()
        magnitude: Any = layer.lora_magnitude_vector["default"].weight
        moved = weight + layer.scaling["default"] * b @ a
        x = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(1))
        expected = x.double() @ (magnitude.detach().double()[:, None] * moved / moved.norm(dim=1, keepdim=True)).T
        with torch.inference_mode():
            assert torch.allclose(layer(x).double(), expected, atol=1e-4)
        assert (magnitude.detach().double() - weight.norm(dim=1)).abs().max() > 1e-6
    layer_name, layer = next(iter(prepared.model.lora_layers().items()))
    a, b = prepared.model.factors(layer_name)
    x = torch.randn(3, a.shape[1], generator=torch.Generator().manual_seed(2))
    target = torch.randn(3, b.shape[0], generator=torch.Generator().manual_seed(3))
    magnitude = layer.lora_magnitude_vector["default"].weight
    weight = prepared.model.linears()[layer_name].weight
    (layer(x) * target).sum().backward()
    own, b.grad = b.grad, None
    moved = weight + layer.scaling["default"] * b @ a
    scale = (magnitude / moved.norm(dim=1)).detach()
    (x @ (scale[:, None] * moved).T * target).sum().backward()
    assert own is not None
    assert b.grad is not None
    assert torch.allclose(own, b.grad, atol=1e-4)


# ---- LoRA-FA


def test_lora_fas_step_is_that_of_pefts_optimizer(knowledge: Knowledge) -> None:
    """PEFT rounds the preconditioned gradient to bfloat16, so steps agree to a few parts in a hundred."""
    prepared = prepare(knowledge, "lora-fa")
    model, run = prepared.model, prepared.run
    optimizer = create_lorafa_optimizer(model.model, r=run.spec.rank, lora_alpha=int(run.spec.alpha), lr=1e-3)
    ours = {name: model.factors(name)[1].detach().clone().requires_grad_() for name in model.lora_layers()}
    adam = torch.optim.AdamW(list(ours.values()), lr=1e-3, weight_decay=0.0)
    component = prepared.component("lora-fa")
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        gradients = {name: torch.randn(b.shape, generator=generator) for name, b in ours.items()}
        for name, gradient in gradients.items():
            model.factors(name)[1].grad = gradient.clone()
        component.step(model, run)
        for name, b in ours.items():
            b.grad = model.factors(name)[1].grad.clone()
            model.factors(name)[1].grad = gradients[name].clone()
        adam.step()
        optimizer.step()
    for name, b in ours.items():
        theirs = model.factors(name)[1].detach()
        assert float((theirs - b).detach().norm() / theirs.norm()) < 0.05


def test_lora_fas_gradient_gives_the_change_nearest_to_the_full_gradient(knowledge: Knowledge) -> None:
    prepared = prepare(knowledge, "lora-fa")
    model, name = prepared.model, next(iter(prepared.model.lora_layers()))
    a, b = model.factors(name)
    scale = model.lora_layers()[name].scaling["default"]
    full = torch.randn(b.shape[0], a.shape[1], generator=torch.Generator().manual_seed(0))
    b.grad = scale * full @ a.T
    prepared.component("lora-fa").step(model, prepared.run)
    nearest = torch.linalg.lstsq(scale * a.T, full.T).solution.T  # min over G of ||s G A - full||
    assert torch.allclose(b.grad, nearest, rtol=1e-3, atol=1e-4)
    plain = prepare(knowledge, "lora-fa", **{"lora-fa__precondition": "false"})
    plain.model.factors(name)[1].grad = full @ a.T
    plain.component("lora-fa").step(plain.model, plain.run)
    kept = plain.model.factors(name)[1].grad
    assert kept is not None
    assert torch.equal(kept, full @ a.T)


# ---- OSF


def test_osf_projects_gradients_off_what_it_preserves_but_adam_does_not_keep_to_it(knowledge: Knowledge) -> None:
    prepared = prepare(knowledge, "osf")
    model, rank = prepared.model, prepared.run.spec.rank
    before = base_weights()
    batch = next(model.batches(prepared.run.examples[:4], 4))
    labels = batch.pop("labels")
    logits = model.model(**batch).logits
    torch.autograd.backward(answer_loss(logits, labels))
    for name, layer in block_linears(model.base).items():
        part = cast(Any, layer).osf_svd_params["default"]
        left, values, right = torch.linalg.svd(before[name], full_matrices=False)
        assert torch.allclose(part["S_low"].detach().double(), values[-rank:], atol=1e-4)
        high = left[:, :-rank], right[:-rank]
        assert (high[0].T @ part["U_low"].grad.double()).norm() < 1e-3 * part["U_low"].grad.norm() + 1e-9
        assert (part["V_low"].grad.double() @ high[1].T).norm() < 1e-3 * part["V_low"].grad.norm() + 1e-9
    model.model.zero_grad()
    prepared.train(steps=8, rate=1e-3)
    prepared.component("osf").finish(model, prepared.run)
    share = prepared.run.diagnostics["osf/share in the preserved subspace"]
    assert 0.05 < share < 1
    for name, layer in block_linears(model.base).items():
        left, _, right = torch.linalg.svd(before[name], full_matrices=False)
        for (change, inside), high in zip(changes(layer), (left[:, :-rank], right[:-rank].T), strict=True):
            assert torch.allclose(inside, high @ (high.T @ change), atol=1e-5)


def test_osf_with_plain_gradient_steps_stays_off_the_preserved_subspace(knowledge: Knowledge) -> None:
    prepared = prepare(knowledge, "osf")
    for seed in range(4):
        batch = next(prepared.model.batches(prepared.run.examples[seed : seed + 2], 2))
        prepared.model.model(**batch).loss.backward()
        for value in prepared.model.model.parameters():
            if value.grad is not None:
                value.data -= 0.05 * value.grad
                value.grad = None
    parts = [pair for layer in block_linears(prepared.model.base).values() for pair in changes(layer)]
    total = sum(float(change.square().sum()) for change, _ in parts)
    assert total > 0
    assert sum(float(inside.square().sum()) for _, inside in parts) < 1e-4 * total


# ---- L2-SP


def test_the_l2_sp_penalty_is_the_squared_distance_of_effective_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 8), (6, 3), (3, 8), (6, 3))
    a, b, a0, b0 = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    expected = (b @ a - b0 @ a0).square().sum()
    assert torch.allclose(squared_change((a, b), [a0, b0]), expected)
    assert float(squared_change((a0, b0), [a0, b0])) == 0.0


@pytest.mark.parametrize("method", ["l2-sp", "l2-sp+full", "l2-sp+pissa", "l2-sp+osf", "l2-sp+dora"])
def test_l2_sp_is_zero_at_the_start_and_counts_everything_that_trains(method: str, knowledge: Knowledge) -> None:
    prepared = prepare(knowledge, method, **{"l2-sp__strength": "2"})
    component = prepared.component("l2-sp")
    start = component.penalty(prepared.model, {}, None, prepared.run)
    assert start is not None
    assert float(start.detach()) == 0.0
    with torch.no_grad():
        for value in prepared.model.model.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) / 50)
    penalty = component.penalty(prepared.model, {}, None, prepared.run)
    assert penalty is not None
    assert float(penalty.detach()) > 0
    torch.autograd.backward(penalty)
    silent = [
        name for name, value in prepared.model.model.named_parameters() if value.requires_grad and value.grad is None
    ]
    assert not silent


def test_a_stronger_l2_sp_ends_nearer_to_its_start(knowledge: Knowledge) -> None:
    moved = {}
    for strength in ("0", "10"):
        prepared = prepare(knowledge, "l2-sp", **{"l2-sp__strength": strength})
        prepared.train(steps=8, rate=5e-3)
        pairs = (prepared.model.factors(name) for name in prepared.model.lora_layers())
        moved[strength] = sum(float((b @ a).detach().square().sum()) for a, b in pairs)
    assert moved["10"] < 0.5 * moved["0"]


# ---- what is refused


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("pissa+kore-null", {}, "pissa and kore-null both initialise the adapter: keep one of them"),
        ("lora-fa+eva", {}, "lora-fa and eva both initialise the adapter"),
        ("milora+full", {}, "milora needs a low-rank adapter, full has none: use lora\\+milora"),
        ("osf+kore-null", {}, "kore-null starts a plain low-rank adapter, not one of OSF: use lora\\+kore-null"),
        ("dora+pissa", {}, "pissa starts a plain low-rank adapter, not one of DoRA: use lora\\+pissa"),
        ("pissa+dora", {}, "pissa and dora both initialise the adapter"),
        ("ewc+dora", {}, "ewc reads a layer's change as B A, which that of DoRA is not"),
        ("pissa", {"lora.rank": "4000"}, "lora.rank=4000 is out of range: .* allows ranks 1 to"),
        ("lora-fa", {"lora-fa.rank": "4000"}, "lora-fa.rank=4000 is out of range: .* allows ranks 1 to"),
        ("lora-null-v2", {"lora-null-v2.rank": "300"}, "lora-null-v2.rank=300 is out of range"),
        ("eva", {"eva.rho": "50"}, "eva.rho=50.0 may give a layer rank .*, and the smallest holds .*: use at most"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_loads(method: str, settings: dict[str, str], message: str) -> None:
    card = mini_card()
    with pytest.raises(UserError, match=message):
        fold(REGISTRY.compose(method, settings).components, layer_shapes(card), Defaults(rank=card.rank))


def test_lora_null_v2_needs_no_more_directions_than_a_layer_has_outputs() -> None:
    components = REGISTRY.compose("lora-null-v2", {"lora-null-v2.rank": "6"}).components
    with pytest.raises(UserError, match=r"lora-null-v2.rank=6 is out of range: .* allows ranks 1 to 4"):
        fold(components, {"layers.0.q_proj": (4, 8)}, Defaults(rank=2))


def test_osf_must_leave_something_to_preserve() -> None:
    card = mini_card()
    layers = layer_shapes(card)
    smallest = min(min(sides) for sides in layers.values())
    with pytest.raises(UserError, match=f"leaves nothing to preserve: .* allows ranks 1 to {smallest - 1}"):
        fold(REGISTRY.compose("osf", {"osf.rank": str(smallest)}).components, layers, Defaults(rank=card.rank))


@pytest.mark.parametrize(
    ("method", "setting", "message"),
    [
        ("pissa", "pissa.iterations=-1", "must not be negative"),
        ("eva", "eva.rho=0.5", "must be at least 1"),
        ("eva", "eva.samples=-1", "must not be negative"),
        ("l2-sp", "l2-sp.strength=-1", "must not be negative"),
    ],
)
def test_settings_out_of_range_are_refused(method: str, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        REGISTRY.compose(method, dict([setting.split("=")]))


def test_an_old_peft_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_peft("osf", "0.21")
    monkeypatch.setattr("kore_bench.component.version", lambda name: "0.20.0")
    with pytest.raises(UserError, match=r"osf needs PEFT 0.21 or newer, 0.20.0 is installed: pip install -U"):
        REGISTRY.compose("osf")
    REGISTRY.compose("corda")
