"""MoELoRA: experts and router by hand, its parameters, what it refuses, and its way to and from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kore_bench.bench import prepare as prepare_run
from kore_bench.bench import write_plan
from kore_bench.component import Defaults, fold
from kore_bench.conformance.prepared import Prepared, mini_card
from kore_bench.errors import UserError
from kore_bench.export import export_cell
from kore_bench.lmm import LMM, layer_shapes
from kore_bench.plan import Request, preflight
from kore_bench.registry import Registry
from kore_bench.results import RunFolder
from kore_bench.runner import run_cell

Prepare = Callable[..., Prepared]


def disturb(model: LMM) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.model.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))


def test_a_layer_mixes_its_experts_by_a_softmax_of_the_token(prepare: Prepare) -> None:
    prepared = prepare("moelora", {"moelora.experts": "4"})
    disturb(prepared.model)
    name, layer = next(iter(prepared.model.lora_layers().items()))
    module: Any = layer
    a, b = (factor.detach().double() for factor in prepared.model.factors(name))
    router, base = module.lora_router["default"].weight.detach().double(), module.base_layer.weight.detach().double()
    x = torch.randn(3, base.shape[1], generator=torch.Generator().manual_seed(2))
    part = len(a) // 4
    for row, found in zip(x.double(), module(x).detach(), strict=True):
        scores = [float(router[expert] @ row) for expert in range(4)]
        gates = torch.tensor(scores, dtype=torch.float64).exp()
        expected = base @ row
        for expert in range(4):
            rows = slice(expert * part, (expert + 1) * part)
            expected += gates[expert] / gates.sum() * 2 * b[:, rows] @ (a[rows] @ row)  # alpha is twice the rank
        assert torch.allclose(found.double(), expected, atol=1e-5)


def test_the_loads_are_the_mean_gates_over_real_tokens(prepare: Prepare) -> None:
    prepared = prepare("moelora")
    disturb(prepared.model)
    seen: list[torch.Tensor] = []
    layer: Any = next(iter(prepared.model.lora_layers().values()))
    hook = layer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].detach()))
    prepared.component("moelora").finish(prepared.model, prepared.run)
    hook.remove()
    from kore_bench.methods.moelora import router_loads

    batch = next(prepared.model.batches(prepared.run.examples))
    loads = router_loads(prepared.model, batch)
    assert loads.shape == (len(prepared.model.lora_layers()), 8)
    assert torch.allclose(loads.sum(dim=1), torch.ones(len(loads)), atol=1e-5)
    scores = seen[0][batch["attention_mask"].bool()] @ layer.lora_router["default"].weight.detach().T
    assert torch.allclose(loads[0], (scores.exp() / scores.exp().sum(dim=1, keepdim=True)).mean(dim=0), atol=1e-5)
    assert prepared.run.diagnostics["moelora/load, largest"] == pytest.approx(float(loads.max()))
    assert float(loads.max()) > float(loads.min())


def test_routers_are_all_that_it_trains_more_than_lora(prepare: Prepare) -> None:
    prepared, lora = prepare("moelora"), prepare("lora")
    count = {
        method.run.spec.form: sum(value.numel() for value in method.model.model.parameters() if value.requires_grad)
        for method in (prepared, lora)
    }
    widths = sum(linear.in_features for linear in prepared.model.linears().values())
    assert count["routed experts"] - count[""] == 8 * widths == prepared.run.spec.extra
    before = {name: value.detach().clone() for name, value in prepared.model.model.named_parameters()}
    prepared.train(steps=3, rate=5e-3)
    moved = {name for name, value in prepared.model.model.named_parameters() if not torch.equal(value, before[name])}
    assert all(any(part in name for name in moved) for part in ("lora_A", "lora_B", "lora_router"))
    assert all("lora_" in name for name in moved)


def test_a_saved_one_has_its_routers_again(prepare: Prepare, tmp_path: Path) -> None:
    prepared = prepare("moelora")
    disturb(prepared.model)
    logits = prepared.logits()
    assert torch.allclose(prepared.reload(tmp_path), logits, atol=1e-4)
    plain = LMM.load(prepared.model.card)
    plain.load_trained(tmp_path)
    from kore_bench.conformance.prepared import outputs_on

    assert not torch.allclose(outputs_on(plain, prepared.run), logits, atol=1e-2), "the routers make no difference"


def test_it_cannot_be_merged(prepare: Prepare) -> None:
    merging: Any = prepare("moelora").model.model
    with pytest.raises(UserError, match="depends on the input"):
        merging.merge_and_unload()


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("moelora", {"moelora.experts": "1"}, "moelora.experts=1 must be at least 2"),
        ("moelora", {"moelora.experts": "5"}, "5 experts cannot share a rank of 16 equally: use 15"),
        ("moelora", {"moelora.rank": "9"}, "cannot share a rank of 9 equally: use 8"),
        ("moelora+ewc", {}, "ewc reads a layer's change as B A, which that of routed experts is not: use lora+ewc"),
        ("moelora+kore-null", {}, "kore-null starts a plain low-rank adapter, not one of routed experts"),
        ("moelora+lora", {}, "has two adapters"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_loads(method: str, settings: dict[str, str], message: str) -> None:
    card = mini_card()
    with pytest.raises(UserError) as error:
        fold(Registry().compose(method, settings).components, layer_shapes(card), Defaults(rank=card.rank))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_it_is_not_exported(small_world: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    request = Request(
        model="mini-qwen", methods=("moelora",), data=str(small_world), tasks=("adaptation",),
        settings=("train.steps=1",),
    )  # fmt: skip
    plan, cells = prepare_run(request, tmp_path)
    run = RunFolder(tmp_path)
    write_plan(run, plan, cells)
    (cell,) = (cell for cell in cells if not cell.reference)
    run.write(cell.name, run_cell(plan, cell, preflight(plan, tmp_path), run.cell(cell.name), lambda *_: None))
    for merge in (False, True):
        with pytest.raises(UserError, match="moelora cannot be exported: its layers are none that PEFT alone"):
            export_cell(run, "moelora", tmp_path / "out", merge=merge)
    assert not (tmp_path / "out").exists()
