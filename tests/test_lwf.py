"""LwF: the divergence by hand, the base as teacher under every kind of adapter, and what training with it keeps."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kore_bench.bench import execute
from kore_bench.bench import prepare as prepare_run
from kore_bench.component import AdapterSpec
from kore_bench.conformance.prepared import Prepared
from kore_bench.distillation import answer_divergence, base_logits, keep_base
from kore_bench.launch import Launch
from kore_bench.lmm import IGNORED, LMM
from kore_bench.plan import Request
from kore_bench.registry import Registry
from kore_bench.training import train

Prepare = Callable[..., Prepared]
FORMS = ["lwf", "lwf+full", "lwf+kore-null", "lwf+moelora", "residual"]


def prepared_as(prepare: Prepare, form: str) -> Prepared:
    if form == "residual":
        return prepare("lwf+kore-null", {"kore-null.freeze-a": "false"})
    return prepare(form)


def batch_of(prepared: Prepared) -> dict[str, torch.Tensor]:
    return next(prepared.model.batches(prepared.run.examples[:3], 3))


def inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name != "labels"}


def move(model: LMM, size: float = 0.02) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.model.parameters():
            if value.requires_grad:
                value.add_(size * torch.randn(value.shape, generator=generator))


def test_the_divergence_is_that_of_the_textbook() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 7, generator=generator).unbind(0)
    labels = torch.tensor([[IGNORED, 3, IGNORED, 4, 5], [IGNORED, IGNORED, IGNORED, IGNORED, 1]])
    temperature, expected = 3.0, 0.0
    for row, column in ((0, 0), (0, 2), (0, 3), (1, 3)):  # the positions before the labelled ones
        p = [math.exp(float(x) / temperature) for x in teacher[row, column]]
        q = [math.exp(float(x) / temperature) for x in student[row, column]]
        expected += sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    found = answer_divergence(student, teacher, labels, temperature)
    assert float(found) == pytest.approx(temperature**2 * expected, rel=1e-5)
    assert float(answer_divergence(student, student, labels, temperature)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_the_teacher_is_the_base_whatever_has_been_trained(form: str, prepare: Prepare) -> None:
    prepared = prepared_as(prepare, form)
    model, batch = prepared.model, batch_of(prepared)
    with torch.no_grad():
        base = LMM.load(model.card).model(**inputs(batch)).logits
    move(model)
    model.model.train()
    flags = {name: value.requires_grad for name, value in model.model.named_parameters()}
    before = {name: value.detach().clone() for name, value in model.model.named_parameters()}
    teacher = base_logits(model, prepared.state("lwf")["base"], batch)
    assert torch.allclose(teacher, base, atol=1e-4)
    assert not teacher.requires_grad
    assert model.model.training
    assert {name: value.requires_grad for name, value in model.model.named_parameters()} == flags
    assert all(torch.equal(value, before[name]) for name, value in model.model.named_parameters())
    student = model.model(**inputs(batch)).logits
    assert not torch.allclose(student, teacher, atol=1e-2)
    torch.autograd.backward(student.square().mean())
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in model.model.parameters())


@pytest.mark.parametrize("form", ["lwf", "lwf+full"])
def test_the_teacher_is_the_base_under_autocast(form: str, prepare: Prepare) -> None:
    """Autocast remembers rounded weights by the parameter that they are of, not by its values."""
    prepared = prepared_as(prepare, form)
    model, batch = prepared.model, batch_of(prepared)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        base = LMM.load(model.card).model(**inputs(batch)).logits
    move(model)
    with torch.autocast("cpu", torch.bfloat16):
        model.model(**inputs(batch))
        teacher = base_logits(model, prepared.state("lwf")["base"], batch)
        student = model.model(**inputs(batch)).logits
    assert torch.equal(teacher, base)
    torch.autograd.backward(student.float().square().mean())
    assert all(value.grad is not None for value in model.model.parameters() if value.requires_grad)


def test_nothing_is_kept_where_the_adapter_can_be_switched_off(prepare: Prepare) -> None:
    assert prepare("lwf").state("lwf")["base"] == {}
    full = prepare("lwf+full")
    kept = keep_base(full.model, AdapterSpec(kind="full"))
    layers = {name: (linear.out_features, linear.in_features) for name, linear in full.model.linears().items()}
    needs = full.component("lwf").needs(full.run.spec, layers)
    assert needs.forwards == 1
    inside = sum(value.nbytes for name, value in kept.items() if name.removesuffix(".weight") in layers)
    assert needs.kept == inside > 0


def test_the_penalty_is_the_mean_over_the_steps_answer_tokens(prepare: Prepare) -> None:
    """However a step's examples are cut into batches: lengths differ, so a mean of means would too."""
    rows = {}
    for size, accumulation in ((6, 1), (2, 3)):
        prepared = prepare("lwf")
        move(prepared.model)
        settings = replace(prepared.model.card.train, steps=1, batch_size=size, accumulation=accumulation)
        log = io.StringIO()
        data: Any = prepared.model.rows(prepared.run.examples[:6])
        train(prepared.model, data, settings, prepared.components, prepared.run, log, lambda done, total: None)
        rows[size] = json.loads(log.getvalue())
    assert rows[6]["penalty/lwf"] > 0
    assert rows[6] == pytest.approx(rows[2], rel=1e-4)


def test_training_with_it_stays_nearer_to_the_base_on_the_new_data(prepare: Prepare) -> None:
    distances = {}
    for method in ("lora", "lwf"):
        prepared = prepare(method)
        prepared.train(steps=8, rate=5e-3)
        batch = batch_of(prepared)
        with torch.no_grad():
            student = prepared.model.model(**inputs(batch)).logits
        teacher = base_logits(prepared.model, {}, batch)
        distances[method] = float(answer_divergence(student, teacher, batch["labels"]))
    assert distances["lwf"] < 0.5 * distances["lora"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"lwf.strength": "-1"}, "lwf.strength=-1.0"), ({"lwf.temperature": "0"}, "lwf.temperature=0.0 must be above 0")],
)
def test_impossible_settings_are_refused(setting: dict[str, str], message: str) -> None:
    with pytest.raises(Exception, match=message):
        Registry().compose("lwf", setting)


@pytest.mark.slow
def test_two_processes_give_the_penalty_of_one(small_world: Path, tmp_path: Path) -> None:
    logs = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        request = Request(
            methods=("lwf", "cia", "moelora"), data=str(small_world), tasks=("adaptation",),
            settings=("train.steps=5", "train.batch_size=6", "old.samples=16"),
        )  # fmt: skip
        plan, cells = prepare_run(request, folder)
        run = execute(
            plan, cells, folder, jobs=1, rerun="always", listen=lambda event: None, launch=Launch(gpus_per_cell=processes)
        )  # fmt: skip
        records = [record for record in run.records() if not record.reference]
        assert {record.status for record in records} == {"done"}
        logs[processes] = {record.method: run.training_log(record) for record in records}
        logs[processes]["weights"] = [{name: value for name, value in record.diagnostics.items() if "cia/" in name}
                                      for record in records]  # fmt: skip
    for name, rows in logs[1].items():
        for row, other in zip(rows, logs[2][name], strict=True):
            assert row == pytest.approx(other, rel=1e-3, abs=1e-6), name
    assert any(row["penalty/lwf"] > 0 for row in logs[2]["lwf"])
