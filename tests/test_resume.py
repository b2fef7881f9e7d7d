"""Runs under fire: processes stopped in every phase, resumed, and compared with an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kore_bench.results import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")]
PATIENCE = 180  # seconds, on a busy machine


@dataclass
class Job:
    """A `kore-bench run` of two methods on a small world, in a folder and with a cache of its own."""

    folder: Path
    data: Path

    def start(self) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "kore_bench", "run", "--runs", str(self.folder), "--name", "r", "--jobs", "1",
            "--data", str(self.data), "--methods", "ewc,kore", "--set", "train.steps=12", "--set", "old.samples=16",
        ]  # fmt: skip
        environment = os.environ | {
            "KORE_BENCH_CACHE": str(self.folder / "cache"),
            "KORE_BENCH_CHECKPOINT_SECONDS": "0",
            "COLUMNS": "200",
        }
        return subprocess.Popen(
            command, env=environment, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self) -> str:
        shown, _ = (job := self.start()).communicate(timeout=PATIENCE)
        assert job.returncode == 0, shown
        return shown

    def stop(self, when: Callable[[Path], bool], number: signal.Signals, *, group: bool) -> tuple[int, str]:
        """Send a signal to the run (``group``: to its workers too) once ``when`` holds; return exit code and output."""
        job = self.start()
        until = time.monotonic() + PATIENCE
        while not when(self.folder / "r") and job.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        assert job.poll() is None, "the run ended before it was stopped"
        os.killpg(job.pid, number) if group else os.kill(job.pid, number)
        shown, _ = job.communicate(timeout=PATIENCE)
        return job.returncode, shown

    def figures(self) -> dict[str, Any]:
        run = RunFolder(self.folder / "r")
        return {
            record.method: {
                "scores": json.loads(record.to_json())["scores"],
                "losses": run.training_log(record),
                "counts": (record.cost.samples, record.cost.steps, record.cost.tokens, record.cost.old_samples),
                "predictions": {task: run.predictions(record, task) for task in record.scores},
            }
            for record in run.records()
        }


@pytest.fixture(scope="module")
def whole(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(tmp_path_factory.mktemp("whole"), small_world)
    job.finish()
    return job


def answering(method: str) -> Callable[[Path], bool]:
    """Return whether a method's cell has given some answers but not all."""
    return lambda run: any(file.stat().st_size for file in run.glob(f"cells/*--{method}--*/predictions/*.answers-*"))


def measuring(run: Path) -> bool:
    """Return whether a statistic is being computed for the first time (its lock is there, its file is not)."""
    tensors = run.parent / "cache" / "tensors"
    return any(not lock.with_suffix("").exists() for lock in tensors.glob("*.lock"))


def training(method: str) -> Callable[[Path], bool]:
    """Return whether a method's cell has done some steps."""
    return lambda run: any(file.read_text().count("\n") > 3 for file in run.glob(f"cells/*--{method}--*/train.jsonl"))


def reporting(run: Path) -> bool:
    """Return whether the last record stands and the report does not."""
    return len(list(run.glob("cells/*/record.json"))) == 4


def test_a_run_that_is_killed_in_every_phase_ends_with_the_same_figures(
    whole: Job, small_world: Path, tmp_path: Path
) -> None:
    job = Job(tmp_path, small_world)
    for phase in (answering("base"), measuring, training("ewc"), answering("ewc"), reporting):
        code, _ = job.stop(phase, signal.SIGKILL, group=True)
        assert code == -signal.SIGKILL
    job.finish()
    assert job.figures() == whole.figures()
    assert (tmp_path / "r" / "report.html").stat().st_size > 10_000
    assert not list((tmp_path / "r").rglob("checkpoints"))
    assert not list((tmp_path / "r").rglob("*.answers-*"))


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)],
    ids=["Ctrl-C reaches the whole group", "SIGTERM reaches the run alone"],
)
def test_a_run_that_is_told_to_stop_says_how_to_go_on(
    number: signal.Signals, group: bool, whole: Job, small_world: Path, tmp_path: Path
) -> None:
    job = Job(tmp_path, small_world)
    code, shown = job.stop(training("kore"), number, group=group)
    assert code == 128 + number
    assert "the same command goes on from here" in shown
    assert "Traceback" not in shown
    left = [json.loads(file.read_text()) for file in (tmp_path / "r").rglob("seal.json")]
    assert [mark["progress"]["step"] >= 4 for mark in left] == [True]
    job.finish()
    resumed = {record.method: record.diagnostics for record in RunFolder(tmp_path / "r").records()}
    assert resumed["kore"]["train/resumed at step"] >= 4
    assert job.figures() == whole.figures()


def test_the_workers_of_a_killed_run_end_too(small_world: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, small_world)
    before = set(_workers(tmp_path))
    code, _ = job.stop(training("ewc"), signal.SIGKILL, group=False)
    assert code == -signal.SIGKILL
    until = time.monotonic() + 30
    while set(_workers(tmp_path)) - before and time.monotonic() < until:
        time.sleep(0.1)
    assert not set(_workers(tmp_path)) - before


def _workers(folder: Path) -> Iterator[int]:
    """Yield the processes that write below ``folder`` (Linux: by their environment)."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "environ").read_bytes():
                yield int(entry.name)
        except OSError:  # ended meanwhile, or another user's
            continue
