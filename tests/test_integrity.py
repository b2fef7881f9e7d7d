"""Sums of a run's files: every kind of damage is found, named, and never read as if it were what was written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from kore_bench.bench import pending
from kore_bench.cache import cached_tensors
from kore_bench.errors import UserError
from kore_bench.grid import Cell
from kore_bench.integrity import damaged, sums, whole
from kore_bench.results import FORMAT, Record, RunFolder, write_lines, write_text
from kore_bench.verify import verify_session

RECORD = Record(key="k" * 64, model="mini-llava", method="lora", seed=0, status="done")
CELL = Cell(model="mini-llava", method="lora", seed=0, key="k" * 64)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of one finished cell with answers, a log and an adapter."""
    made = RunFolder(tmp_path / "run")
    cell = made.cell(CELL.name)
    write_lines(cell / "predictions" / "adaptation.jsonl", [{"id": "1", "prediction": "Paris", "correct": 1.0}])
    write_lines(cell / "train.jsonl", [{"step": 1, "loss": 2.0}])
    write_text(cell / "adapter" / "adapter_model.safetensors", "weights")
    made.write(CELL.name, replace(RECORD, files=sums(cell)))
    write_text(made.path / "plan.yaml", yaml.safe_dump({"format": FORMAT, "cells": [CELL.name]}))
    return made


def verified(run: RunFolder) -> tuple[int, str]:
    shown = io.StringIO()
    code = verify_session(run.path, Console(file=shown, width=200))
    return code, shown.getvalue()


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def test_a_sound_run_is_called_sound(run: RunFolder) -> None:
    code, shown = verified(run)
    assert code == 0
    assert "1 cells, 4 files read, 0 damaged" in shown
    assert not damaged(run, CELL.name)
    assert pending(run, [CELL], "never") == []


@pytest.mark.parametrize("name", ["predictions/adaptation.jsonl", "train.jsonl", "record.json"])
@pytest.mark.parametrize("harm", [flip, lambda file: file.write_bytes(file.read_bytes()[:-9])], ids=["bit", "cut"])
def test_damage_is_named_and_its_cell_runs_again(run: RunFolder, name: str, harm: Callable[[Path], object]) -> None:
    file = run.cell(CELL.name) / name
    harm(file)
    code, shown = verified(run)
    assert code == 1
    assert f"damaged: {file} is not" in shown
    assert "does these cells again" in shown
    assert whole(run, CELL.name) is None
    assert damaged(run, CELL.name)
    assert pending(run, [CELL], "never") == [CELL]


def test_a_missing_file_is_named(run: RunFolder) -> None:
    (run.cell(CELL.name) / "train.jsonl").unlink()
    code, shown = verified(run)
    assert code == 1
    assert "train.jsonl is missing" in shown


def test_damaged_weights_are_named_and_cost_no_score(run: RunFolder) -> None:
    file = run.cell(CELL.name) / "adapter" / "adapter_model.safetensors"
    flip(file)
    code, shown = verified(run)
    assert code == 1
    assert f"damaged: {file}" in shown
    assert "no score rests on these weights" in shown
    assert pending(run, [CELL], "never") == []


def test_every_figure_of_a_record_is_under_its_sum(run: RunFolder) -> None:
    file = run.cell(CELL.name) / "record.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    assert run.read(CELL.name) is None


def test_a_record_without_a_sum_is_read_and_verify_says_so(run: RunFolder) -> None:
    file = run.cell(CELL.name) / "record.json"
    raw = json.loads(file.read_text())
    del raw["sha256"], raw["files"]
    file.write_text(json.dumps(raw))
    assert run.read(CELL.name) == RECORD
    code, shown = verified(run)
    assert code == 0
    assert "1 cells are of an earlier version" in shown


def test_damaged_answers_are_not_compared(run: RunFolder) -> None:
    record = run.read(CELL.name)
    assert record is not None
    assert run.predictions(record, "adaptation")[0]["prediction"] == "Paris"
    flip(run.cell(CELL.name) / "predictions" / "adaptation.jsonl")
    with pytest.raises(UserError, match="missing or damaged"):
        run.predictions(record, "adaptation")


def test_a_cell_without_a_record_is_counted_and_is_no_damage(run: RunFolder) -> None:
    (run.cell(CELL.name) / "record.json").unlink()
    code, shown = verified(run)
    assert code == 0
    assert "1 cells have no record yet" in shown
    assert not damaged(run, CELL.name)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        verify_session(tmp_path / "none", Console(file=io.StringIO()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_kept_tensors_with_a_changed_bit_are_computed_again(cache: Path, dtype: torch.dtype) -> None:
    calls = []

    def compute() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"a": torch.ones(64, dtype=dtype), "b": torch.tensor(1, dtype=dtype)}

    key = {"test": f"flipped {dtype}"}
    cached_tensors(key, compute)
    assert torch.equal(cached_tensors(key, compute)["a"], torch.ones(64, dtype=dtype))
    assert len(calls) == 1
    file = max((cache / "tensors").glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(bytes(content))
    assert torch.equal(cached_tensors(key, compute)["a"], torch.ones(64, dtype=dtype))
    assert len(calls) == 2
