"""One cell on two processes (DDP over gloo): the numbers of one process, penalties and a frozen A included."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path

import pytest

from kore_bench.bench import execute, prepare, workload
from kore_bench.distributed import everyone, first, summed, visible, world
from kore_bench.engines import Event
from kore_bench.errors import UserError
from kore_bench.launch import Launch
from kore_bench.plan import Plan, Request
from kore_bench.results import Record, RunFolder


def request(data: Path, *methods: str, steps: int = 6) -> Request:
    return Request(
        methods=methods, data=str(data), tasks=("adaptation",),
        settings=(f"train.steps={steps}", "train.batch_size=6", "old.samples=16"),
    )  # fmt: skip


def run(data: Path, folder: Path, processes: int, *methods: str) -> RunFolder:
    plan, cells = prepare(request(data, *methods), folder)
    return execute(
        plan, cells, folder, jobs=1, rerun="always", listen=lambda event: None, launch=Launch(gpus_per_cell=processes)
    )  # fmt: skip


def by_method(folder: RunFolder) -> dict[str, Record]:
    return {record.method: record for record in folder.records()}


def test_two_processes_give_the_numbers_of_one(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = run(small_world, tmp_path / "2", 2, "ewc", "kore-null")
    monkeypatch.setattr("kore_bench.bench.run_cells", importlib.import_module("in_process").run_cells)
    one = run(small_world, tmp_path / "1", 1, "ewc", "kore-null")
    singles, doubles = by_method(one), by_method(two)
    for method in ("ewc", "kore-null"):
        single, double = singles[method], doubles[method]
        assert double.status == "done", double.reason
        assert double.diagnostics["train/processes"] == 2
        for row, other in zip(one.training_log(single), two.training_log(double), strict=True):
            assert row == pytest.approx(other, rel=2e-4, abs=1e-7), method
        for count in ("samples", "tokens", "steps", "trainable_parameters"):
            assert getattr(single.cost, count) == getattr(double.cost, count)
    for method in ("base", "in-context", "ewc", "kore-null"):
        answers = [[row["id"] for row in run.predictions(records[method], "adaptation")]
                   for run, records in ((one, singles), (two, doubles))]  # fmt: skip
        assert answers[0] == answers[1]
    assert one.predictions(singles["base"], "adaptation") == two.predictions(doubles["base"], "adaptation")
    assert any(row["penalty/ewc"] > 0 for row in two.training_log(doubles["ewc"]))
    assert not list((tmp_path / "2").rglob("*.answers-*"))


@pytest.mark.slow
def test_a_lost_process_fails_its_cell_alone(small_world: Path, tmp_path: Path) -> None:
    plan, cells = prepare(request(small_world, "lora", "full"), tmp_path)
    killed: list[int] = []

    def listen(event: Event) -> None:
        if event.phase == "train" and event.cell.method == "lora" and event.done and not killed:
            killed.append(second_process())
            os.kill(killed[0], signal.SIGKILL)

    folder = execute(plan, cells, tmp_path, jobs=1, rerun="always", listen=listen, launch=Launch(gpus_per_cell=2))
    found = by_method(folder)
    assert found["lora"].status == "failed"
    assert "SIGKILL" in found["lora"].reason
    assert found["full"].status == "done"


def second_process() -> int:
    """Return the second process of the cell that this process runs (Linux; processes are numbered as they start)."""
    workers = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _is_worker(entry)]
    assert len(workers) == 2
    return max(workers)


def _is_worker(entry: Path) -> bool:
    try:
        own = f"PPid:\t{os.getpid()}\n" in (entry / "status").read_text()
        return own and b"spawn_main" in (entry / "cmdline").read_bytes()
    except OSError:  # ended meanwhile
        return False


def test_one_process_alone_is_the_first_of_one() -> None:
    assert first()
    assert world() == 1
    assert everyone("x") == ["x"]
    assert summed({"loss": 2.0}) == {"loss": 2.0}


def test_gpus_are_counted_among_the_visible_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible((0, 1)) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6,GPU-1234")
    assert visible((1, 2)) == ["6", "GPU-1234"]


@pytest.mark.parametrize(
    ("gpus", "jobs", "each", "words"),
    [
        (0, 1, 2, "--gpus-per-cell 2: this machine has 0 GPUs"),
        (4, 3, 2, "--jobs 3 with --gpus-per-cell 2 needs more than the 4 GPUs here"),
        (8, 1, 3, "set train.batch_size to a multiple of 3"),
    ],
)
def test_too_few_gpus_are_a_sentence(
    gpus: int, jobs: int, each: int, words: str, small_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kore_bench.plan import make_plan

    monkeypatch.setattr("kore_bench.bench._gpus", lambda: gpus)
    plan: Plan = make_plan(Request(data=str(small_world)))
    launch = Launch(gpus_per_cell=each)
    with pytest.raises(UserError) as error:
        workload(plan, small_world / "run", [], rerun="never", jobs=jobs, launch=launch)
    assert words in str(error.value)
