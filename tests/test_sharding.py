"""A model in shards (FSDP2 over gloo, two real processes): the numbers of one process, checkpoints, refusals."""

from __future__ import annotations

import io
import json
import multiprocessing
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from kore_bench.bench import workload
from kore_bench.checkpoint import newest
from kore_bench.component import Budget, Component, Defaults, fold
from kore_bench.distributed import Place, free_port
from kore_bench.errors import UserError
from kore_bench.formats import read_knowledge
from kore_bench.launch import ALONE, Launch
from kore_bench.lmm import LMM
from kore_bench.models.mini_llava import CARD
from kore_bench.plan import Request, make_plan
from kore_bench.registry import Registry
from kore_bench.runner import CellRun, adapt
from kore_bench.training import Keeping, train

SHARDS = Launch(gpus_per_cell=2, strategy="fsdp2")
STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Shards(Component):
    """Says through the log what the processes hold while they train, and counts steps in its memory."""

    name = "shards"
    sharded = True

    def step(self, model: LMM, run: Any) -> None:
        from torch.distributed.tensor import DTensor

        held = [value for value in model.model.parameters() if isinstance(value, DTensor)]
        run.log("shards/of parameters", len(held) / len(list(model.model.parameters())))
        run.log("shards/share", sum(v.to_local().numel() for v in held) / max(1, sum(v.numel() for v in held)))
        run.state(self)["steps"] = run.state(self).get("steps", 0) + 1


def cell(
    data: Path, method: str, launch: Launch, keep: Path | None = None, stop_after: int = 0, bf16: bool = False
) -> dict[str, Any]:
    """Train a cell as the runner does; return its log, its trained weights, its diagnostics and its memory."""
    torch.set_num_threads(1)
    card = replace(CARD, dtype="bfloat16") if bf16 else CARD
    knowledge, model = read_knowledge(data), LMM.load(card)
    parts = (*Registry().compose(method).components, Shards())
    layers = {name: (linear.out_features, linear.in_features) for name, linear in model.linears().items()}
    old = [sample for samples in knowledge.old.values() for sample in samples[:2]]
    run = CellRun(
        seed=0, items=knowledge.items, calibration=old, held_out=(), base={"test": "sharding"},
        train_projector=True, budget=Budget(steps=STEPS, epochs=0, batch_size=2), embed=model.embed,
        spec=fold(parts, layers, Defaults(rank=card.rank, dropout=0.0)),
    )  # fmt: skip
    adapt(model, parts, run, _no_clock)
    settings = replace(card.train, steps=STEPS, batch_size=2, learning_rate=1e-2, gradient_checkpointing=bf16)
    log, keeping = io.StringIO(), None
    if keep:
        keeping = Keeping(folder=keep, key="key", resume=newest(keep, "key"))

    def progress(done: int, total: int) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    torch.manual_seed(0)
    with model.full_precision():
        result = train(model, model.rows(run.examples), settings, parts, run, log, progress, keeping, launch)
    probe = next(model.batches(run.examples[:2]))
    with torch.inference_mode():
        logits = model.model(**{name: value for name, value in probe.items() if name != "labels"}).logits
    return {
        "log": [json.loads(line) for line in log.getvalue().splitlines()],
        "weights": {name: value.detach() for name, value in model.model.named_parameters() if value.requires_grad},
        "frozen": {name: value.detach() for name, value in model.model.named_parameters() if not value.requires_grad},
        "logits": logits, "resumed": result.resumed_at, "diagnostics": run.diagnostics, "states": run.states,
        "classes": {type(module).__name__ for module in model.model.modules()},
    }  # fmt: skip


@contextmanager
def _no_clock(name: str) -> Iterator[Any]:
    yield lambda done, total: None


def _process(rank: int, port: int, answer: Path, cells: Sequence[dict[str, Any]]) -> None:
    Place(rank=rank, world=2, port=port).enter()
    try:
        found = [cell(**arguments) for arguments in cells]
    except KeyboardInterrupt:
        return
    if rank == 0:
        torch.save(found, answer)


def two_processes(answer: Path, *cells: dict[str, Any]) -> list[dict[str, Any]]:
    """Run cells on two processes; return what the first one has (nothing where they were stopped)."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    processes = [context.Process(target=_process, args=(rank, port, answer, cells)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    return cast(list[dict[str, Any]], torch.load(answer, weights_only=False)) if answer.exists() else []


def same(one: Mapping[str, Any], two: Mapping[str, Any], tolerance: float = 1e-4, bf16: bool = False) -> None:
    """Check that two cells have equal losses, penalties, weights and logits, and that nothing else has moved.

    In bfloat16 a batch of two rounds otherwise than two of one, and Adam's first steps make the most of it.
    """
    for row, other in zip(one["log"], two["log"], strict=True):
        assert row == pytest.approx(other, rel=tolerance, abs=1e-7)
    assert one["weights"].keys() == two["weights"].keys()
    for name, value in one["weights"].items():
        assert (value - two["weights"][name]).norm() <= (0.1 if bf16 else tolerance) * value.norm(), name
    assert all(torch.equal(value, two["frozen"][name]) for name, value in one["frozen"].items())
    assert (one["logits"] - two["logits"]).norm() <= tolerance * one["logits"].norm()


def check_shards(found: Mapping[str, Any]) -> None:
    """Check that all was in halves while it trained, and nothing is afterwards."""
    assert found["diagnostics"]["shards/of parameters"] == 1
    assert 0.45 < found["diagnostics"]["shards/share"] < 0.55
    assert not any("FSDP" in name for name in found["classes"])
    assert all(type(value) in (torch.Tensor, torch.nn.Parameter) for value in found["weights"].values())


def test_shards_train_as_one_process_does(small_world: Path, tmp_path: Path) -> None:
    cells: dict[str, Any] = {"data": small_world, "method": "kore-null+ewc"}
    one = cell(**cells, launch=ALONE)
    (two,) = two_processes(tmp_path / "answer", {**cells, "launch": SHARDS})
    check_shards(two)
    same(one, two)
    assert any(".lora_A." in name for name in one["frozen"])
    assert one["log"][-1]["penalty/ewc"] > 0


@pytest.mark.slow
def test_every_kind_of_training_in_shards(small_world: Path, tmp_path: Path) -> None:
    """Also methods that look at gradients (lora-fa) or at distances (l2-sp), bfloat16, and checkpointed activations."""
    cells: list[dict[str, Any]] = [
        {"data": small_world, "method": "full+ewc"},
        {"data": small_world, "method": "lora-fa+l2-sp"},
        {"data": small_world, "method": "lora", "bf16": True},
    ]
    two = two_processes(tmp_path / "answer", *({**arguments, "launch": SHARDS} for arguments in cells))
    for arguments, found in zip(cells, two, strict=True):
        check_shards(found)
        bf16 = "bf16" in arguments
        same(cell(**arguments, launch=ALONE), found, 3e-2 if bf16 else 1e-3, bf16)


@pytest.mark.slow
def test_shards_go_on_from_a_checkpoint_and_one_process_from_theirs(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_BENCH_CHECKPOINT_SECONDS", "0")
    cells: dict[str, Any] = {"data": small_world, "method": "kore-null+ewc"}
    whole = cell(**cells, launch=ALONE)
    kept: dict[str, Any] = {**cells, "launch": SHARDS, "keep": tmp_path / "kept" / "checkpoints"}
    assert two_processes(tmp_path / "none", {**kept, "stop_after": 2}) == []
    copied = Path(shutil.copytree(tmp_path / "kept", tmp_path / "copy")) / "checkpoints"
    (on,) = two_processes(tmp_path / "answer", kept)
    for found in (on, cell(**cells, launch=ALONE, keep=copied)):
        assert found["resumed"] == 1
        assert found["states"]["shards"]["steps"] == STEPS
        same({**whole, "log": whole["log"][1:]}, found)
    finished = newest(tmp_path / "kept" / "checkpoints", "key")
    assert finished is not None
    assert finished.progress.finished


@dataclass(frozen=True, kw_only=True)
class Whole(Component):
    """Reads whole gradients, and does not say that it can read shards."""

    name = "whole"

    def step(self, model: LMM, run: Any) -> None:
        """Would project gradients."""


def test_what_cannot_shard_is_refused_by_name(small_world: Path) -> None:
    plan = make_plan(Request(data=str(small_world), methods=("lora", "ewc", "kore")))
    SHARDS.check(plan.methods)
    broken = replace(plan.methods[0], components=(*plan.methods[0].components, Whole()))
    with pytest.raises(UserError, match=r"whole \(in lora\).* use --strategy ddp"):
        SHARDS.check([broken])
    Launch(gpus_per_cell=2).check([broken])


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        (Launch(strategy="fsdp"), "--strategy fsdp is not known: did you mean 'fsdp2'"),
        (Launch(strategy="fsdp2"), "add --gpus-per-cell 2 or more"),
    ],
)
def test_a_strategy_that_cannot_be_is_a_sentence(launch: Launch, words: str, small_world: Path) -> None:
    plan = make_plan(Request(data=str(small_world), methods=("lora",)))
    with pytest.raises(UserError, match=words):
        workload(plan, small_world / "run", [], rerun="never", jobs=1, launch=launch)
