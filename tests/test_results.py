"""Records and files on disk: round trips, damage, atomic writes, shared tensors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from kore_bench.cache import cached_tensors, fetch_folder, fingerprint, keep_folder
from kore_bench.errors import UserError
from kore_bench.measures import Score
from kore_bench.results import Cost, Record, RunFolder, cell_name, write_text

RECORD = Record(
    key="k" * 64, model="mini-llava", method="ewc+kore", seed=3, status="done", tuned="tuned",
    scores={"adaptation": {"K.A": Score(value=50.0, low=40.0, high=60.0, n=300)}},
    cost=Cost(steps=240, seconds={"train": 1.5}), data={"old skills": ["COM"]},
)  # fmt: skip


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write(run.name_of(RECORD), RECORD)
    again = run.read(run.name_of(RECORD))
    assert again == RECORD
    assert again is not None
    assert again.score("K.A") == Score(value=50.0, low=40.0, high=60.0, n=300)
    assert again.score("K.R") is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"format": 99}', "\x00" * 40])
def test_a_damaged_record_counts_as_missing(tmp_path: Path, damage: str) -> None:
    name = cell_name("m", "lora", 0, "abc")
    write_text(tmp_path / "cells" / name / "record.json", damage)
    assert RunFolder(tmp_path).read(name) is None


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "record.json"
    write_text(file, "old")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("plan", "message"), [(None, "has no plan.yaml"), ("a: [", "cannot be read"), ("a: 1", "lists no cells")]
)
def test_a_folder_that_is_no_run_is_named(tmp_path: Path, plan: str | None, message: str) -> None:
    if plan is not None:
        (tmp_path / "plan.yaml").write_text(plan)
    with pytest.raises(UserError, match=message):
        RunFolder(tmp_path).plan()


def test_tensors_are_computed_once_and_again_when_damaged(cache: Path) -> None:
    calls = []

    def compute() -> dict[str, torch.Tensor]:
        calls.append(1)
        shared = torch.arange(3.0)
        return {"a": shared, "b": shared}

    key = {"test": "tensors"}
    first = cached_tensors(key, compute)
    second = cached_tensors(key, compute)
    assert len(calls) == 1
    assert torch.equal(first["a"], second["b"])
    file = max((cache / "tensors").glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    file.write_bytes(file.read_bytes()[:20])
    cached_tensors(key, compute)
    assert len(calls) == 2


def test_kept_folders_are_copies(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_text(source / "a" / "file", "text")
    keep_folder(source, "kept-test")
    assert not fetch_folder("unknown", tmp_path / "target")
    assert fetch_folder("kept-test", tmp_path / "target")
    assert (tmp_path / "target" / "a" / "file").read_text() == "text"


def test_a_fingerprint_sees_every_byte_of_a_small_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    before = fingerprint(tmp_path)
    changed = bytearray(1000)
    changed[500] = 1
    (tmp_path / "model.safetensors").write_bytes(bytes(changed))
    assert fingerprint(tmp_path) != before
