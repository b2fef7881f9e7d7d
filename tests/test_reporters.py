"""Training rows in TensorBoard and Weights & Biases: the log's own numbers, in the cell's folder, once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from kore_bench.bench import check_same_run, execute, prepare, workload
from kore_bench.errors import UserError
from kore_bench.launch import Launch
from kore_bench.plan import Request
from kore_bench.reporters import reporters
from kore_bench.results import RunFolder

STEPS = 3


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def request(data: Path) -> Request:
    return Request(
        methods=("lora", "ewc"), data=str(data), tasks=("old-facts",),
        settings=(f"train.steps={STEPS}", "train.batch_size=4", "old.samples=8"),
    )  # fmt: skip


def run(data: Path, folder: Path, *names: str) -> RunFolder:
    plan, cells = prepare(request(data), folder)
    cells = [cell for cell in cells if not cell.reference]
    return execute(
        plan, cells, folder, jobs=1, rerun="never", listen=lambda event: None, launch=Launch(report_to=names)
    )


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) by the name of a curve, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]}


@needs("tensorboard")
@pytest.mark.slow
def test_tensorboard_gets_the_rows_of_the_log(small_world: Path, tmp_path: Path) -> None:
    folder = run(small_world, tmp_path / "run", "tensorboard")
    for record in folder.records():
        assert record.status == "done", record.reason
        rows, found = folder.training_log(record), scalars(folder.cell(folder.name_of(record)) / "tensorboard")
        assert dict(found["train/loss"]) == pytest.approx({row["step"]: row["loss"] for row in rows}, rel=1e-6)
        assert ("train/penalty/ewc" in found) == (record.method == "ewc")
        assert set(found) <= {"train/loss", "train/learning_rate", "train/penalty/ewc"}
    plan, _ = prepare(request(small_world), tmp_path / "run")
    check_same_run(folder, plan)


@needs("wandb")
@pytest.mark.slow
def test_each_cell_is_a_run_of_wandb(small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = run(small_world, tmp_path / "run", "wandb")
    for record in folder.records():
        assert record.status == "done", record.reason
        assert len(list((folder.cell(folder.name_of(record)) / "wandb").glob("offline-run-*/*.wandb"))) == 1


@needs("tensorboard")
def test_rows_that_are_written_again_replace_the_earlier_ones(tmp_path: Path) -> None:
    for first, last in ((1, 5), (4, 6)):
        with reporters(["tensorboard"], tmp_path, first - 1) as (callback,):
            for step in range(first, last + 1):
                callback.tb_writer.add_scalar("train/loss", step * first, step)  # type: ignore[attr-defined]
    assert scalars(tmp_path / "tensorboard")["train/loss"] == [(1, 1), (2, 2), (3, 3), (4, 16), (5, 20), (6, 24)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tensorbord", "--report-to tensorbord is not known: did you mean 'tensorboard'"),
        ("wandb", "--report-to wandb needs a package that is not installed: pip install wandb"),
    ],
)
def test_a_reporter_that_is_not_there_is_a_sentence(
    name: str, words: str, small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kore_bench.launch.find_spec", lambda package: None)
    plan, cells = prepare(request(small_world), tmp_path / "run")
    with pytest.raises(UserError) as error:
        workload(plan, tmp_path / "run", cells, rerun="never", jobs=1, launch=Launch(report_to=(name,)))
    assert words in str(error.value)


@needs("wandb")
def test_a_missing_key_is_a_sentence(small_world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UserError, match="WANDB_API_KEY, or WANDB_MODE=offline"):
        Launch(report_to=("wandb",)).check([])
    monkeypatch.setenv("WANDB_MODE", "offline")
    Launch(report_to=("wandb",)).check([])
