"""Too little memory: the batch is read in more parts, the effective batch and the figures stay, and the record says so."""

from __future__ import annotations

import gc
import io
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import kore_bench
from kore_bench.launch import ALONE, Launch
from kore_bench.memory import out_of_memory, with_less
from kore_bench.models.mini_llava import CARD
from kore_bench.training import split_evenly, train

GREEDY = '''
"""A penalty that needs more memory than there is for more than four samples at once."""
from dataclasses import dataclass

import torch

from kore_bench.component import Component, Method


@dataclass(frozen=True, kw_only=True)
class Greedy(Component):
    """Runs out of memory."""

    name = "greedy"
    by_token = False
    room: int = 4

    def penalty(self, model, batch, outputs, run):
        if len(batch["labels"]) > self.room:
            raise torch.OutOfMemoryError("out of memory: tried to allocate 80 GiB")
        return 0.0 * sum(value.sum() for value in model.model.parameters() if value.requires_grad)


METHOD = Method(name="greedy", summary="LoRA in little room", source="none", components=(Greedy(),))
'''


def room_for(rows: int, batch: int = 16) -> Callable[[Launch], int]:
    def run(launch: Launch) -> int:
        if batch / launch.parts > rows:
            raise torch.OutOfMemoryError("no room")
        return launch.parts

    return run


@pytest.mark.parametrize(("rows", "parts"), [(16, 1), (8, 2), (5, 4), (1, 16)])
def test_a_batch_is_halved_until_it_fits(rows: int, parts: int) -> None:
    assert with_less(ALONE, 16, room_for(rows)) == parts


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
def test_halving_ends(batch: int) -> None:
    tried = []

    def run(launch: Launch) -> int:
        tried.append(launch.parts)
        raise torch.OutOfMemoryError("no room at all")

    with pytest.raises(torch.OutOfMemoryError, match="no room at all"):
        with_less(ALONE, batch, run)
    assert tried == [parts for parts in (1, 2, 4, 8, 16) if parts <= batch]


def test_what_is_no_lack_of_memory_passes_at_once() -> None:
    tried = []

    def run(launch: Launch) -> int:
        tried.append(launch)
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        with_less(ALONE, 16, run)
    assert len(tried) == 1


def test_the_cpu_says_in_words_that_memory_is_short() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    assert out_of_memory(MemoryError())
    assert not out_of_memory(ValueError("can't allocate memory"))


def test_what_the_failed_attempt_held_is_freed_before_the_next() -> None:
    held: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    def run(launch: Launch) -> int:
        alive.extend(one() is not None for one in held)
        tensor = torch.zeros(8)
        held.append(weakref.ref(tensor))
        if launch.parts < 4:
            raise torch.OutOfMemoryError("no room")
        return launch.parts

    assert with_less(ALONE, 16, run) == 4
    assert alive == [False, False, False]
    gc.collect()


def test_parts_are_even_sorted_and_whole() -> None:
    rows = [{"input_ids": [0] * length} for length in (5, 1, 4, 2, 3)]
    parts = split_evenly(rows, 4)
    assert [[len(row["input_ids"]) for row in part] for part in parts] == [[1, 2], [3, 4], [5]]
    assert split_evenly(rows, 1) == [sorted(rows, key=lambda row: len(row["input_ids"]))]


def test_parts_of_a_batch_train_as_the_whole_does(prepare: Callable[..., Any]) -> None:
    logs = []
    for launch in (ALONE, replace(ALONE, parts=4)):
        prepared = prepare("l2-sp", {"l2-sp.strength": "1"})
        log = io.StringIO()
        settings = replace(CARD.train, steps=4, batch_size=4, learning_rate=1e-3)
        rows = prepared.model.rows(prepared.run.examples)
        train(prepared.model, rows, settings, prepared.components, prepared.run, log, lambda *_: None, launch=launch)
        logs.append([json.loads(line) for line in log.getvalue().splitlines()])
    assert len(logs[0]) == 4
    for one, other in zip(*logs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-9), name


@pytest.mark.slow
def test_a_cell_that_runs_out_of_memory_ends_and_says_how(small_world: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "greedy.py"
    plugin.write_text(GREEDY)
    run = kore_bench.run(
        methods="greedy,lora", data=small_world, tasks="adaptation", runs=tmp_path, plugins=(plugin,), quiet=True,
        settings={"train.steps": 3, "old.samples": 16}, jobs=1,
    )  # fmt: skip
    records = {record.method: record for record in run.records}
    assert not run.failed
    assert records["greedy"].diagnostics["train/batch in parts"] == 4
    assert "train/batch in parts" not in records["lora"].diagnostics
    assert records["greedy"].cost.samples == records["lora"].cost.samples
