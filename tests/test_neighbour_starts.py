"""Where LoRA's neighbours start, against independent computations and against PEFT itself."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from kore_bench.conformance.prepared import Prepared, mini_card
from kore_bench.examples import Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.methods.eva import allot, directions
from kore_bench.methods.milora import minor_factors
from kore_bench.subspace import factors_within

shared: Any = importlib.import_module("neighbours")
prepare, base_weights, inputs_of = shared.prepare, shared.base_weights, shared.inputs_of


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


# ---- PiSSA and MiLoRA


def test_pissa_starts_where_peft_says_and_at_the_largest_components(knowledge: Knowledge) -> None:
    before = base_weights()
    prepared = prepare(knowledge, "pissa")
    for name, weight in before.items():
        values = torch.linalg.svdvals(weight)
        rank = prepared.run.spec.rank
        rest = torch.linalg.svdvals(prepared.model.linears()[name].weight.double())
        assert torch.allclose(rest[: len(values) - rank], values[rank:], atol=1e-5)


def test_pissas_fast_svd_is_near_the_exact_one(knowledge: Knowledge) -> None:
    exact, fast = prepare(knowledge, "pissa"), prepare(knowledge, "pissa", pissa__iterations="8")
    assert 0.98 * _norm_of_start(exact) < _norm_of_start(fast) < _norm_of_start(exact)


def test_milora_takes_the_smallest_components(knowledge: Knowledge) -> None:
    weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = minor_factors(weight, 5)
    values = torch.linalg.svdvals(weight)
    assert torch.allclose(torch.linalg.svdvals(weight - b @ a)[:7], values[:7])
    assert torch.allclose(torch.linalg.svdvals(b @ a)[:5], values[7:])
    assert torch.allclose(a @ a.T, b.T @ b)  # both have the roots of the singular values
    norms = {method: _norm_of_start(prepare(knowledge, method)) for method in ("milora", "pissa")}
    assert norms["milora"] < 0.5 * norms["pissa"]


def _norm_of_start(prepared: Prepared) -> float:
    pairs = (prepared.model.factors(name) for name in prepared.model.lora_layers())
    return sum(float((b @ a).detach().square().sum()) for a, b in pairs)


# ---- CorDA


def test_corda_is_pefts_own_start_on_the_same_samples(knowledge: Knowledge) -> None:
    """PEFT's `preprocess_corda`, which reads one sample at a time, gives the same factors and base weights."""
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import preprocess_corda

    prepared = prepare(knowledge, "corda")
    other = LMM.load(mini_card())
    config = LoraConfig(
        r=prepared.run.spec.rank, lora_alpha=prepared.run.spec.rank, target_modules=list(other.linears()),
        init_lora_weights="corda", corda_config=CordaConfig(corda_method="kpm"),
    )  # fmt: skip

    def read() -> None:
        for batch in other.batches(prepared.run.calibration, 1):
            batch.pop("labels")
            other.model(**batch)

    preprocess_corda(other.model, config, run_model=read)
    other.model = get_peft_model(other.model, config)
    apart = whole = 0.0
    for name in prepared.model.lora_layers():
        ours = [factor.detach() for factor in prepared.model.factors(name)]
        theirs = [factor.detach() for factor in other.factors(name)]
        apart += float((ours[1] @ ours[0] - theirs[1] @ theirs[0]).square().sum())
        whole += float((theirs[1] @ theirs[0]).square().sum())
        for mine, pefts in zip(ours, theirs, strict=True):
            assert float(mine.norm()) == pytest.approx(float(pefts.norm()), rel=2e-2)
    assert apart < 0.05**2 * whole  # PEFT sums in float32


def test_corda_starts_at_what_old_inputs_need_least(knowledge: Knowledge) -> None:
    """B A is P W0, P the projector on B's columns, for which no P of its rank has a smaller ||P W0 C||, C damped."""
    prepared = prepare(knowledge, "corda")
    base, before, rank = LMM.load(mini_card()), base_weights(), prepared.run.spec.rank
    sums = {name: torch.zeros(weight.shape[1], weight.shape[1]).double() for name, weight in before.items()}
    for sample in prepared.run.calibration:
        for name, rows in inputs_of(base, base.batches([sample], 1), "tokens").items():
            scaled = rows / rows.max().abs()
            sums[name] += scaled.T @ scaled / len(prepared.run.calibration)
    for name, weight in before.items():
        a, b = (factor.detach().double() for factor in prepared.model.factors(name))
        part = b @ torch.linalg.pinv(b) @ weight
        assert (b @ a - part).norm() < 0.2 * part.norm()  # PEFT's float32, at conditions up to 1e7
        damped = sums[name] + 0.01 * sums[name].diagonal().mean() * torch.eye(len(sums[name])).double()
        least = torch.linalg.svdvals(weight @ damped)[-rank:].norm()
        assert (part @ damped).norm() < 1.1 * least


# ---- LoRA-Null


def test_lora_null_starts_in_the_null_space_of_old_inputs(knowledge: Knowledge) -> None:
    prepared = prepare(knowledge, "lora-null")
    base = LMM.load(mini_card())
    before, rank = base_weights(), prepared.run.spec.rank
    for name, rows in inputs_of(base, base.batches(prepared.run.calibration), "tokens").items():
        basis = torch.linalg.svd(rows.T @ rows)[0][:, -rank:]
        a, b = (factor.detach().double() for factor in prepared.model.factors(name))
        assert torch.allclose(b @ a, before[name] @ basis @ basis.T, atol=1e-4)
    a, b = factors_within(torch.eye(4, dtype=torch.float64) * 4, torch.eye(4, dtype=torch.float64)[:, :2])
    assert torch.allclose(b @ a, torch.diag(torch.tensor([4.0, 4.0, 0.0, 0.0], dtype=torch.float64)))
    assert torch.allclose(a @ a.T, b.T @ b)


def test_lora_null_v2_is_kores_constraint_and_changes_old_inputs_least(knowledge: Knowledge) -> None:
    null, kore = prepare(knowledge, "lora-null-v2"), prepare(knowledge, "kore-null")
    lora = prepare(knowledge, "lora+replay")  # replay, so that it is given old samples
    for name in null.model.lora_layers():
        a, other = null.model.factors(name)[0].detach(), kore.model.factors(name)[0].detach()
        assert torch.allclose(a.T @ a, other.T @ other, atol=1e-4 * float(a.square().sum()))
    base = LMM.load(mini_card())
    rows = inputs_of(base, base.batches(null.run.calibration), "tokens")
    change = {}
    for prepared in (null, lora):
        prepared.train(steps=6, rate=2e-3)
        pairs = {name: prepared.model.factors(name) for name in prepared.model.lora_layers()}
        changed = (rows[name] @ (b @ a).detach().double().T for name, (a, b) in pairs.items())
        new = inputs_of(base, base.batches(prepared.run.examples[:6]), "answers")
        moved = (new[name] @ (b @ a).detach().double().T for name, (a, b) in pairs.items())
        change[prepared.components[-1].name] = sum(float(part.square().mean()) for part in changed) / sum(
            float(part.square().mean()) for part in moved
        )
    assert change["lora-null-v2"] < 0.2 * change["replay"]


# ---- EVA


def test_eva_starts_at_the_right_singular_vectors_of_the_answers_inputs(knowledge: Knowledge) -> None:
    prepared = prepare(knowledge, "eva")
    base = LMM.load(mini_card())
    for name, rows in inputs_of(base, base.batches(prepared.run.examples), "answers").items():
        a, b = (factor.detach().double() for factor in prepared.model.factors(name))
        assert not b.any()
        assert torch.allclose(a @ a.T, torch.eye(len(a), dtype=torch.float64), atol=1e-5)
        _, values, right = torch.linalg.svd(rows, full_matrices=False)
        best = float(values[: len(a)].square().sum())
        assert float((rows @ a.T).square().sum()) == pytest.approx(best, rel=1e-4)
        assert abs(float(a[0] @ right[0])) == pytest.approx(1.0, abs=1e-4)


def test_eva_finds_what_pefts_search_finds_but_for_the_mean(knowledge: Knowledge) -> None:
    """PEFT's incremental search over all examples in one batch: centred, and up to the sign of each direction."""
    from peft import EvaConfig, get_eva_state_dict

    prepared = prepare(knowledge, "eva")
    base, rank = LMM.load(mini_card()), prepared.run.spec.rank
    layers = list(base.linears())
    config = LoraConfig(r=rank, target_modules=layers, init_lora_weights="eva", eva_config=EvaConfig(rho=1.0))
    config.eva_config.tau = -1.0  # type: ignore[union-attr]  # one look at all the data is enough
    batch = next(base.batches(prepared.run.examples, len(prepared.run.examples)))
    theirs = get_eva_state_dict(base.model, [batch], config, show_progress_bar=False)
    ours = directions(LMM.load(mini_card()), prepared.run.examples, layers, rank)
    for name in layers:
        overlap = (ours[f"{name}/directions"].double() @ theirs[name].double().T).square().sum() / rank
        assert overlap > 0.9


def test_eva_gives_ranks_to_the_layers_that_they_explain_most(knowledge: Knowledge, tmp_path: Path) -> None:
    assert allot({"a": [0.9, 0.05, 0.01], "b": [0.4, 0.3, 0.2]}, 4) == {"a": 1, "b": 3}
    prepared = prepare(knowledge, "eva", eva__rho="1.5")
    layers = prepared.model.lora_layers()
    ranks = {name: layer.r["default"] for name, layer in layers.items()}
    assert sum(ranks.values()) == prepared.run.spec.rank * len(prepared.model.linears())
    assert prepared.run.diagnostics["eva/rank, largest"] > prepared.run.diagnostics["eva/rank, smallest"]
    assert {layer.scaling["default"] for layer in layers.values()} == {2.0}
    prepared.train()
    assert torch.allclose(prepared.reload(tmp_path), prepared.logits(), atol=1e-5)
