"""Checkpoints: a training that was stopped and resumed ends with the numbers of one that was not."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kore_bench.calibration import draw_old
from kore_bench.checkpoint import Due, load_trained, newest, save_trained
from kore_bench.component import Budget, Component, Defaults, fold
from kore_bench.examples import Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM
from kore_bench.models.mini_llava import CARD
from kore_bench.plan import OldSettings
from kore_bench.registry import Registry
from kore_bench.runner import CellRun, adapt
from kore_bench.training import Keeping, Stopped, Trained, train

STEPS = 7
"""Over two epochs of twelve examples in batches of four, so that stops fall within and between epochs."""


class CrashError(Exception):
    """Stands for whatever ends a process."""


@dataclass(frozen=True, kw_only=True)
class Average(Component):
    """Holds the weights near their moving average, which it remembers: the numbers depend on its memory."""

    name = "average"

    def start(self, model: LMM, run: Any) -> None:
        run.state(self)["averages"] = [value.detach().clone() for value in _trained(model)]

    def step(self, model: LMM, run: Any) -> None:
        for average, value in zip(run.state(self)["averages"], _trained(model), strict=True):
            average.lerp_(value.detach(), 0.5)
        run.state(self)["steps"] = run.state(self).get("steps", 0) + 1

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Any) -> torch.Tensor:
        averages = run.state(self)["averages"]
        parts = [(value - then).square().sum() for value, then in zip(_trained(model), averages, strict=True)]
        total: torch.Tensor = 10.0 * torch.stack(parts).sum() * (1 + run.state(self).get("steps", 0))
        return total


def _trained(model: LMM) -> list[torch.nn.Parameter]:
    return [value for value in model.model.parameters() if value.requires_grad]


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    whole = read_knowledge(world)
    return replace(whole, items=whole.items[:12])


class Training:
    """One process's part of a training of LoRA with dropout, EWC and `Average`."""

    def __init__(self, knowledge: Knowledge, folder: Path, method: str = "ewc") -> None:
        torch.set_num_threads(1)
        self.folder = folder
        self.model = LMM.load(CARD)
        self.components = (*Registry().compose(method).components, Average())
        layers = {name: (linear.out_features, linear.in_features) for name, linear in self.model.linears().items()}
        calibration = draw_old(knowledge, OldSettings(samples=16), 0)
        spec = replace(fold(self.components, layers, Defaults(rank=4)), dropout=0.0 if method == "full" else 0.2)
        self.run = CellRun(
            seed=0, items=knowledge.items, calibration=calibration, held_out=(), base={"test": CARD.name},
            train_projector=False, budget=Budget(steps=STEPS, epochs=0, batch_size=4), spec=spec, embed=self.model.embed,
        )  # fmt: skip
        adapt(self.model, self.components, self.run, lambda name: io.StringIO())
        self.log = io.StringIO()

    def go(self, stop_at: int = 0, terminate_at: int = 0, key: str = "key") -> Trained:
        """Train to the end; raise CrashError once step ``stop_at`` is done, or receive SIGTERM during ``terminate_at``."""

        def progress(done: int, total: int) -> None:
            if done == stop_at:
                raise CrashError
            if done == terminate_at:
                os.kill(os.getpid(), signal.SIGTERM)

        torch.manual_seed(0)
        settings = replace(CARD.train, steps=STEPS, batch_size=4, learning_rate=1e-2, schedule="cosine")
        keeping = Keeping(folder=self.folder, key=key, resume=newest(self.folder, key))
        rows = self.model.rows(self.run.examples)
        return train(self.model, rows, settings, self.components, self.run, self.log, progress, keeping)

    def numbers(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORE_BENCH_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr("kore_bench.checkpoint._SHARE", 0)


@pytest.fixture(scope="module")
def whole(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Trained]:
    training = Training(knowledge, tmp_path_factory.mktemp("whole"))
    return training, training.go()


@pytest.mark.parametrize("stop_at", [2, 4, 6])
def test_a_resumed_training_ends_with_the_same_numbers(
    stop_at: int, whole: tuple[Training, Trained], knowledge: Knowledge, tmp_path: Path
) -> None:
    undisturbed, result = whole
    with pytest.raises(CrashError):
        Training(knowledge, tmp_path).go(stop_at=stop_at)
    torch.manual_seed(99)
    second = Training(knowledge, tmp_path)
    again = second.go()
    assert again.resumed_at == stop_at - 1
    assert undisturbed.numbers()[stop_at - 1 :] == second.numbers()
    for one, other in zip(_trained(undisturbed.model), _trained(second.model), strict=True):
        assert torch.equal(one, other)
    assert (again.steps, again.samples, again.tokens, again.loss) == (
        result.steps, result.samples, result.tokens, result.loss
    )  # fmt: skip
    ours, theirs = second.run.states["average"], undisturbed.run.states["average"]
    assert ours["steps"] == theirs["steps"] == STEPS
    assert all(torch.equal(one, other) for one, other in zip(ours["averages"], theirs["averages"], strict=True))


@pytest.mark.parametrize("method", ["lwf+full", "kl", "olora", "cia", "lora-fa", "dora", "pissa", "osf", "l2-sp"])
def test_what_a_method_remembers_is_resumed(method: str, knowledge: Knowledge, tmp_path: Path) -> None:
    undisturbed = Training(knowledge, tmp_path / "whole", method)
    undisturbed.go()
    with pytest.raises(CrashError):
        Training(knowledge, tmp_path / "stopped", method).go(stop_at=5)
    torch.manual_seed(99)
    second = Training(knowledge, tmp_path / "stopped", method)
    second.go()
    assert undisturbed.numbers()[4:] == second.numbers()
    for training in (undisturbed, second):
        for component in training.components:
            component.finish(training.model, training.run)
    for one, other in zip(_trained(undisturbed.model), _trained(second.model), strict=True):
        assert torch.equal(one, other)


def test_full_fine_tuning_resumes_too(knowledge: Knowledge, tmp_path: Path) -> None:
    undisturbed = Training(knowledge, tmp_path / "one", "full")
    undisturbed.go()
    with pytest.raises(CrashError):
        Training(knowledge, tmp_path / "two", "full").go(stop_at=3)
    second = Training(knowledge, tmp_path / "two", "full")
    second.go()
    for one, other in zip(_trained(undisturbed.model), _trained(second.model), strict=True):
        assert torch.equal(one, other)


def test_sigterm_ends_a_training_after_its_step_with_a_checkpoint(
    knowledge: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_BENCH_CHECKPOINT_SECONDS", "3600")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        Training(knowledge, tmp_path).go(terminate_at=4)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    left = newest(tmp_path, "key")
    assert left is not None
    assert left.progress.step == 4


def test_a_finished_training_is_not_run_again(whole: tuple[Training, Trained], knowledge: Knowledge) -> None:
    undisturbed, result = whole
    second = Training(knowledge, undisturbed.folder)
    again = second.go(stop_at=1)
    assert again == replace(result, resumed_at=STEPS)
    for one, other in zip(_trained(undisturbed.model), _trained(second.model), strict=True):
        assert torch.equal(one, other)
    assert [folder.name for folder in undisturbed.folder.iterdir()] == [f"checkpoint-{STEPS}"]
    assert not list(undisturbed.folder.glob("*/optimizer.pt"))


def test_a_checkpoint_of_another_cell_or_a_damaged_one_is_passed_over(knowledge: Knowledge, tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        Training(knowledge, tmp_path).go(stop_at=3)
    found = newest(tmp_path, "key")
    assert found is not None
    assert newest(tmp_path, "another key") is None
    for file in sorted(found.folder.iterdir()):
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        assert newest(tmp_path, "key") is None or file.name == "seal.json", f"a flipped bit in {file.name}"
        file.write_bytes(content[:middle])
        assert newest(tmp_path, "key") is None, f"a cut {file.name}"
        file.unlink()
        assert newest(tmp_path, "key") is None, f"no {file.name}"
        file.write_bytes(content)
    assert newest(tmp_path, "key") == found


def test_states_come_back_as_they_were(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    shared = torch.arange(6.0)
    states = {
        "one": {"tensors": {"a/b": shared, "c": shared[:2]}, "list": [1, 2.5, None, True, "text"], "empty": {}},
        "two": {0: torch.tensor(3, dtype=torch.int64)},
    }
    save_trained(tmp_path, model, states)
    back: dict[str, Any] = {"stale": 1}
    other = torch.nn.Linear(2, 2)
    load_trained(tmp_path, other, back)
    assert torch.equal(other.weight, model.weight)
    assert set(back) == {"one", "two"}
    assert torch.equal(back["one"]["tensors"]["a/b"], shared)
    assert torch.equal(back["one"]["tensors"]["c"], shared[:2])
    assert back["one"]["list"] == [1, 2.5, None, True, "text"]
    assert back["one"]["empty"] == {}
    assert back["two"][0].dtype is torch.int64


def test_a_memory_that_cannot_be_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a component remembers a set"):
        save_trained(tmp_path, torch.nn.Linear(1, 1), {"mine": {"seen": {1}}})


def test_saving_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kore_bench.checkpoint._SHARE", 20)
    now = [0.0]
    monkeypatch.setattr("kore_bench.checkpoint.time.monotonic", lambda: now[0])
    due = Due(60.0)
    now[0] = 61.0
    assert due()
    due.saved(30.0)  # a large model on a slow disk
    now[0] += 599.0
    assert not due()
    now[0] += 2.0
    assert due()


def test_a_folder_without_checkpoints_has_no_newest(tmp_path: Path) -> None:
    assert newest(tmp_path / "none", "key") is None
