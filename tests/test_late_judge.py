"""A judge that is named once a run is finished: its benchmarks alone are asked, of the weights that are there."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kore_bench.bench import check_same_run, execute, prepare
from kore_bench.errors import UserError
from kore_bench.integrity import damages
from kore_bench.plan import Request
from kore_bench.results import Record, RunFolder

judges: Any = importlib.import_module("judge_server")
outcomes: Any = importlib.import_module("test_outcomes")

pytest.importorskip("openai", reason="the judge asks through the package openai")
pytestmark = pytest.mark.usefixtures("in_process")
Go = Callable[[Request], dict[str, Record]]


@pytest.fixture
def request_of(tmp_path: Path, small_world: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Request]:
    monkeypatch.setenv("BENCH_FOLDER", str(tmp_path))
    monkeypatch.setenv("KORE_BENCH_JUDGE_KEY", "sk-secret-of-the-test")
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "bench_tasks.py"
    file.write_text(outcomes.BENCHMARKS)
    asked = Request(
        methods=("lora", "full"), tasks=("adaptation", "bench:steady", "bench:judged"), data=str(small_world),
        plugins=(str(file),), settings=("train.steps=2",), contrasts=(),
    )  # fmt: skip
    return lambda **changes: replace(asked, **changes)


@pytest.fixture
def go(tmp_path: Path) -> Go:
    def run(request: Request) -> dict[str, Record]:
        plan, cells = prepare(request, tmp_path / "r")
        execute(plan, cells, tmp_path / "r", jobs=1, rerun="failed", listen=lambda event: None)
        return {record.method: record for record in RunFolder(tmp_path / "r").records()}

    return run


def test_only_the_judged_tasks_are_asked(go: Go, request_of: Callable[..., Request], tmp_path: Path) -> None:
    before = go(request_of())
    assert {record.tasks["bench:judged"].status for record in before.values()} == {"skipped"}
    logs = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("train.jsonl")}
    with judges.serving(lambda number, body: judges.Answer()) as server:
        after = go(request_of(judge="grader", judge_url=server.url))
    assert outcomes.asked(tmp_path) == {"bench:steady": 4, "bench:judged": 4}
    assert before.keys() == after.keys() == {"base", "in-context", "lora", "full"}
    for method, record in after.items():
        assert record.tasks["bench:judged"].judge == "grader"
        assert record.scores["bench:judged"]["judged"].value == 90.0
        assert record.scores["benchmarks"]["K.R"].value == 65.0
        assert record.scores["adaptation"] == before[method].scores["adaptation"]
        assert record.key != before[method].key
        if not record.reference:
            assert replace(record.cost, seconds={}) == replace(before[method].cost, seconds={})
        assert record.settings == before[method].settings
    assert after["lora"].cost.seconds["train"] == before["lora"].cost.seconds["train"]
    cells = [folder.name for folder in (tmp_path / "r" / "cells").iterdir()]
    assert sorted(cells) == sorted(RunFolder(tmp_path / "r").plan()["cells"])
    moved = {file: file.stat().st_mtime_ns for file in (tmp_path / "r").rglob("train.jsonl")}
    assert sorted(moved.values()) == sorted(logs.values()), "it was trained again"


def test_a_judge_that_is_down_leaves_all_else_and_the_next_call_asks(
    go: Go, request_of: Callable[..., Request], tmp_path: Path
) -> None:
    before = go(request_of(methods=("lora",)))["lora"]
    with judges.serving(lambda number, body: judges.Answer("dead", status=503)) as server:
        options = {"judge": "grader", "judge_url": server.url, "methods": ("lora",)}
        settings = ("train.steps=2", "judge.retries=0")
        lost = go(request_of(**options, settings=settings))["lora"]
        assert lost.failed_tasks.keys() == {"bench:judged"}
        assert lost.scores["adaptation"] == before.scores["adaptation"]
        server.answer = lambda number, body: judges.Answer()
        found = go(request_of(**options, settings=settings))["lora"]
    assert found.failed_tasks == {}
    assert outcomes.asked(tmp_path)["bench:steady"] == 3
    assert found.cost.seconds["train"] == before.cost.seconds["train"]


def test_damaged_weights_are_not_asked_but_trained_again(
    go: Go, request_of: Callable[..., Request], tmp_path: Path
) -> None:
    before = go(request_of(methods=("lora",)))["lora"]
    run = RunFolder(tmp_path / "r")
    (run.cell(run.name_of(before)) / "adapter" / "adapter_model.safetensors").write_bytes(b"damaged")
    with judges.serving(lambda number, body: judges.Answer()) as server:
        after = go(request_of(judge="grader", judge_url=server.url, methods=("lora",)))["lora"]
    assert after.failed_tasks == {}
    assert after.scores["adaptation"] == before.scores["adaptation"]
    assert after.scores["bench:judged"]["judged"].value == 90.0
    assert after.cost.seconds["train"] != before.cost.seconds["train"]
    assert not list(damages(run.cell(run.name_of(after)), after))


def test_a_judge_is_named_later_and_never_changed(go: Go, request_of: Callable[..., Request], tmp_path: Path) -> None:
    url = "http://localhost:1/v1"
    go(request_of(methods=("lora",), tasks=("bench:steady", "bench:judged")))
    run = RunFolder(tmp_path / "r")
    late, _ = prepare(
        request_of(methods=("lora",), tasks=("bench:steady", "bench:judged"), judge="grader", judge_url=url), run.path
    )
    execute(late, [], run.path, jobs=1, rerun="never", listen=lambda event: None)
    for judge in ("another", ""):
        changed = replace(late, request=replace(late.request, judge=judge))
        with pytest.raises(UserError, match=f"judge 'grader', not '{judge}'"):
            check_same_run(run, changed)
