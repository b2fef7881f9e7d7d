"""Recovery on models whose score is known by hand; weights come back bit for bit; a cell that is killed goes on."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kore_bench.calibration import draw_old, plan_knowledge
from kore_bench.card import TrainSettings
from kore_bench.conformance.prepared import mini_card
from kore_bench.examples import Knowledge
from kore_bench.forgetting import recovery
from kore_bench.forgetting.recovery import MISSING, norm_gains, only_gains, recover
from kore_bench.formats import read_knowledge
from kore_bench.grid import list_cells
from kore_bench.launch import ALONE
from kore_bench.lmm import LMM
from kore_bench.plan import OldSettings, Request, make_plan
from kore_bench.results import write_lines
from kore_bench.runner import run_cell

retention: Any = importlib.import_module("kore_bench.tasks.retention")
SETTINGS = TrainSettings(steps=1, batch_size=4, projector="frozen", gradient_checkpointing=False)
SEEN = {"COM", "OCR", "M-DIS", "INS"}


class Run:
    """What recovery reads of a run."""

    def __init__(self, knowledge: Knowledge, samples: int = 16) -> None:
        self.seed = 0
        self.states: dict[str, dict[str, Any]] = {}
        self.calibration = draw_old(knowledge, OldSettings(samples=samples), 0) if samples else []


@pytest.fixture(scope="module")
def knowledge(small_world: Path) -> Knowledge:
    return read_knowledge(small_world)


@pytest.fixture
def model() -> LMM:
    torch.set_num_threads(1)
    return LMM.load(mini_card())


@pytest.fixture
def measure(knowledge: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return ``measure(model, answer, seen)``: recovery of a model that says ``answer(question)`` before the steps."""
    monkeypatch.setattr(recovery, "STEPS", 3)
    task, file = retention.Retention(), tmp_path / "retention.jsonl"

    def measured(model: LMM, answer: Callable[[Any], str], seen: set[str] = SEEN, samples: int = 16) -> dict[str, Any]:
        rows = [{"id": one.id, "correct": task.correct(one, answer(one))} for one in task.asked(knowledge)]
        write_lines(file, rows)
        run: Any = Run(knowledge, samples)
        return recover(model, task, knowledge, run, seen, SETTINGS, ALONE, file, lambda done, total: None)

    return measured


def test_what_was_right_and_stays_right_recovers_nothing(measure: Any, model: LMM) -> None:
    found = measure(model, lambda question: question.answer)
    assert found["recovery/before"] == dict.fromkeys(("M-IDU", "MAT", "HAL"), 100.0)
    assert sum(found["recovery/after"].values()) / 3 > 85
    assert found["recovery/steps"] == 3
    assert found["recovery/parameters"] == sum(value.numel() for value in norm_gains(model))


def test_a_wrong_form_comes_back(
    measure: Any, model: LMM, knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base whose last norm is turned off says one thing only; steps that turn it on again bring everything back."""
    task, last = retention.Retention(), norm_gains(model)[-1]
    asked = [one for one in task.asked(knowledge) if one.type not in SEEN]
    texts = model.generate([(one.text, one.images) for one in asked])
    whole = last.detach().clone()
    with torch.no_grad():
        last.zero_()
    assert len(set(model.generate([(one.text, one.images) for one in asked], max_new_tokens=4))) == 1

    def repair(lmm: LMM, rows: Any, settings: TrainSettings, *others: Any, **launch: Any) -> None:
        assert (settings.steps, settings.learning_rate, settings.schedule) == (3, recovery.RATE, "constant")
        assert {one.source for one in rows.examples} == SEEN
        assert [value for value in lmm.model.parameters() if value.requires_grad] == norm_gains(lmm)
        with torch.no_grad():
            last.copy_(whole)

    monkeypatch.setattr(recovery, "train", repair)
    found = measure(model, lambda question: "")
    right: dict[str, list[float]] = {skill: [] for skill in ("M-IDU", "MAT", "HAL")}
    for question, text in zip(asked, texts, strict=True):
        right[question.type].append(task.correct(question, text))
    assert found["recovery/before"] == dict.fromkeys(right, 0.0)
    assert found["recovery/after"] == {skill: 100 * sum(values) / len(values) for skill, values in right.items()}
    assert found["recovery/questions"] == len(asked)
    assert not last.any()


def test_a_lost_skill_does_not_come_back(measure: Any, model: LMM) -> None:
    """A head that gives one answer whatever it reads: no gain of a norm can make others of it."""
    with torch.no_grad():
        model.base.lm_head.weight.zero_()
    gone = measure(model, lambda question: "")
    assert gone["recovery/before"] == gone["recovery/after"] == dict.fromkeys(("M-IDU", "MAT", "HAL"), 0.0)


def test_weights_and_what_is_trained_come_back_bit_for_bit(measure: Any, model: LMM) -> None:
    model.unfreeze(projector=False)
    marks = [value.requires_grad for value in model.model.parameters()]
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    first = measure(model, lambda question: question.answer)
    after = model.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [value.requires_grad for value in model.model.parameters()] == marks
    assert all(value.grad is None for value in model.model.parameters())
    assert measure(model, lambda question: question.answer) == first


def test_gains_come_back_after_an_error(model: LMM) -> None:
    before = [value.clone() for value in norm_gains(model)]

    def fail() -> None:
        with only_gains(model) as gains, torch.no_grad():
            gains[0].zero_()
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert all(map(torch.equal, before, norm_gains(model)))


def test_gains_are_those_of_the_language_model_alone(model: LMM) -> None:
    width, blocks = model.base.config.text_config.hidden_size, len(model.blocks())
    assert sum(value.numel() for value in norm_gains(model)) == (2 * blocks + 1) * width


def test_reasons_why_there_is_nothing_to_measure(
    measure: Any, model: LMM, knowledge: Knowledge, tmp_path: Path
) -> None:
    everything = {"COM", "OCR", "M-DIS", "INS", "M-IDU", "MAT", "HAL"}
    found = measure(model, lambda question: "", everything)
    assert found == {
        MISSING: "old samples cover every skill that is asked, so that steps on them would teach more than form"
    }
    assert measure(model, lambda question: "", SEEN, 0) == {MISSING: "there are no old samples to take the steps on"}
    run: Any = Run(knowledge)
    none = recover(model, None, knowledge, run, SEEN, SETTINGS, ALONE, tmp_path, lambda done, total: None)
    assert none == {MISSING: "retention was not scored"}


@pytest.mark.slow
def test_a_cell_that_is_stopped_while_it_recovers_goes_on_to_the_same_record(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(
        methods=("lora",), data=str(small_world), tasks=("retention", "likelihood"),
        settings=("train.steps=4", "train.batch_size=4", "old.samples=16", "train.learning_rate=0.01"),
    )  # fmt: skip
    plan = make_plan(request)
    known = plan_knowledge(plan)
    cell = next(one for one in list_cells(plan, known) if one.method == "lora")

    def run(folder: Path) -> Any:
        return run_cell(plan, cell, known, folder, lambda phase, done, total: None)

    whole = run(tmp_path / "whole")
    train = vars(recovery)["train"]

    def killed(*arguments: Any, **settings: Any) -> None:
        train(*arguments, **settings)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    again = run(tmp_path / "stopped")
    assert again.scores == whole.scores
    assert {name: value for name, value in again.diagnostics.items() if "resumed" not in name} == whole.diagnostics
    for name in ("adapter/adapter_model.safetensors", "predictions/retention.jsonl", "predictions/likelihood.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()
    assert json.dumps(whole.diagnostics["recovery/after"])
    assert replace(again, cost=whole.cost, diagnostics={}) == replace(whole, diagnostics={})
