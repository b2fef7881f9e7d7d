"""What becomes of tasks: skipped ones have a reason, a failed one runs again alone, limits draw whole groups."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kore_bench.bench import check_same_run, pending, prepare, write_plan
from kore_bench.benchmarks import pool
from kore_bench.errors import UserError
from kore_bench.formats import read_knowledge
from kore_bench.grid import Cell, list_cells
from kore_bench.measures import Score
from kore_bench.plan import Request, make_plan
from kore_bench.results import Outcome, Record, RunFolder
from kore_bench.session import what_is_lacking
from kore_bench.task import draw, groups

judges: Any = importlib.import_module("judge_server")
run_cells = importlib.import_module("in_process").run_cells
Answer, serving = judges.Answer, judges.serving

BENCHMARKS = '''
"""Three benchmarks that need no toolkit: one is always there, one is down until a file says so, one wants a judge."""
import os
from dataclasses import dataclass
from pathlib import Path

from kore_bench.judge import Judge, JudgeError, JudgeSettings
from kore_bench.measures import Score
from kore_bench.task import Card, Evaluation, TaskFamily, ToolkitTask

FOLDER = Path(os.environ["BENCH_FOLDER"])


@dataclass(frozen=True, kw_only=True)
class Benchmark(ToolkitTask):
    judge: str = ""
    judge_settings: JudgeSettings = JudgeSettings()
    offline: bool = False

    def skip(self, knowledge):
        return "it needs a judge (--judge NAME)" if self.card.judge and not self.judge else None

    def evaluate(self, model, answers, progress):
        with answers.open("a") as kept:
            kept.write("an answer\\n")
        with (FOLDER / "asked").open("a") as log:
            log.write(self.card.name + "\\n")
        if self.card.name == "bench:shaky" and not (FOLDER / "up").exists():
            raise JudgeError("the judge is down")
        if self.card.name == "bench:odd":
            raise KeyError("Overall")
        facts = {"answers": len(answers.read_text().splitlines()), "note": "two rows are left out"}
        if self.card.judge:
            judge = Judge(self.judge_settings)
            for number in range(6):
                judge.generate(f"Grade {number}")
            facts |= judge.counts()
        value = {"bench:steady": 40.0, "bench:shaky": 60.0, "bench:judged": 90.0}[self.card.name]
        score = Score(value=value, low=value - 3, high=value + 4, n=10)
        return Evaluation(scores={self.card.metric: score}, facts=facts)


class Family(TaskFamily):
    prefix = "bench"

    def make(self, name):
        class Named(Benchmark):
            card = Card(
                name=f"bench:{name}", title=name, source="s", metric=name, licence="l", citation="c",
                dimension={"steady": "COM", "shaky": "HAL"}.get(name, "MAT"), judge=name == "judged",
            )

        return Named()


FAMILY = Family()
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_FOLDER", str(tmp_path))
    file = tmp_path / "bench_tasks.py"
    file.write_text(BENCHMARKS)
    return file


def asked(folder: Path) -> Counter[str]:
    return Counter((folder / "asked").read_text().split())


@pytest.fixture
def run_one(plugin: Path, small_world: Path, tmp_path: Path) -> Callable[..., Record]:
    """Return what runs the cell of LoRA on the tasks of one plan."""
    tasks = ("adaptation", "bench:steady", "bench:shaky", "bench:odd", "bench:judged")
    request = Request(
        methods=("lora",), tasks=tasks, data=str(small_world), plugins=(str(plugin),), settings=("train.steps=2",)
    )

    def again(**changes: Any) -> Record:
        plan = make_plan(replace(request, **changes))
        (cell,) = (cell for cell in list_cells(plan, read_knowledge(small_world)) if cell.method == "lora")
        run_cells(plan.request, tmp_path / "r", [cell], 1, lambda event: None)
        record = RunFolder(tmp_path / "r").read(cell.name)
        assert record is not None
        return record

    return again


def test_a_failed_task_runs_again_alone(run_one: Callable[..., Record], tmp_path: Path) -> None:
    before = run_one()
    run = RunFolder(tmp_path / "r")
    cell = run.cell(run.name_of(before))
    assert before.status == "done"
    assert before.tasks["bench:steady"] == Outcome(metric="steady", dimension="COM", note="two rows are left out")
    assert before.tasks["bench:judged"].reason == "it needs a judge (--judge NAME)"
    assert before.failed_tasks == {"bench:shaky": "the judge is down", "bench:odd": "KeyError: 'Overall'"}
    assert before.scores["benchmarks"].keys() == {"K.R", "COM"}
    assert before.score("K.R") == before.scores["bench:steady"]["steady"]
    assert "KeyError: 'Overall'" in (cell / "traceback-bench:odd.txt").read_text()
    assert asked(tmp_path) == {"bench:steady": 1, "bench:shaky": 1, "bench:odd": 1}

    (tmp_path / "up").touch()
    after = run_one()
    assert asked(tmp_path) == {"bench:steady": 1, "bench:shaky": 2, "bench:odd": 2}
    assert after.failed_tasks.keys() == {"bench:odd"}
    assert after.diagnostics["bench:shaky/answers"] == 2, "the answers of the first time are lost"
    assert after.diagnostics["bench:steady/answers"] == 1
    assert after.diagnostics["train/resumed at step"] == 2, "it was trained again"
    kept = ("adaptation", "bench:steady")
    assert [after.scores[name] for name in kept] == [before.scores[name] for name in kept]
    assert [after.tasks[name] for name in kept] == [before.tasks[name] for name in kept]
    assert after.scores["benchmarks"]["K.R"].value == 50.0
    assert after.cost.seconds["evaluate"] > before.cost.seconds["evaluate"]
    assert run.predictions(after, "adaptation")
    assert not (cell / "traceback-bench:shaky.txt").exists()
    assert (cell / "checkpoints").is_dir(), "bench:odd may be asked again"


def test_a_cell_without_any_score_failed_and_goes_on_too(run_one: Callable[..., Record], tmp_path: Path) -> None:
    lost = run_one(tasks=("bench:shaky",))
    assert (lost.status, lost.reason) == ("failed", "no task could be scored")
    (tmp_path / "up").touch()
    found = run_one(tasks=("bench:shaky",))
    assert (found.status, found.failed_tasks) == ("done", {})
    assert found.diagnostics["train/resumed at step"] == 2
    assert not list((tmp_path / "r").rglob("checkpoints"))
    assert not list((tmp_path / "r").rglob("*.answers-*"))


def test_a_judge_that_dies_midway_is_asked_for_the_rest_when_it_is_back(
    run_one: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai", reason="the judge asks through the package openai")
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KORE_BENCH_JUDGE_KEY", "sk-secret-of-the-test")
    with serving(lambda number, body: Answer() if number < 4 else Answer("dead", status=503)) as server:
        options = {"judge": "grader", "judge_url": server.url, "settings": ("train.steps=2", "judge.retries=0")}
        options["tasks"] = ("bench:steady", "bench:judged")
        before = run_one(**options)
        assert before.failed_tasks["bench:judged"].startswith(f"the judge grader at {server.url} fails, after 1 try")
        assert before.scores["benchmarks"].keys() == {"K.R", "COM"}
        server.answer = lambda number, body: Answer()
        after = run_one(**options)
        assert server.texts() == [f"Grade {number}" for number in (0, 1, 2, 3, 4, 4, 5)]
    assert after.tasks["bench:judged"] == Outcome(
        metric="judged", dimension="MAT", judge="grader", note="two rows are left out"
    )
    assert (after.diagnostics["bench:judged/asked"], after.diagnostics["bench:judged/cached"]) == (2, 4)
    assert {name: after.scores["benchmarks"][name].value for name in ("K.R", "K.R without judge")} == {
        "K.R": 65.0, "K.R without judge": 40.0,
    }  # fmt: skip
    assert not [
        file for file in tmp_path.rglob("*") if file.is_file() and b"sk-secret-of-the-test" in file.read_bytes()
    ]


@pytest.mark.slow
def test_the_command_says_what_failed_and_finishes_it(plugin: Path, small_world: Path, tmp_path: Path) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable, "-m", "kore_bench", "run", "--runs", str(tmp_path), "--name", "r", "--jobs", "1",
                "--data", str(small_world), "--plugin", str(plugin), "--methods", "lora", "--set", "train.steps=2",
                "--tasks", "adaptation,bench:shaky,bench:judged", *options,
            ],
            capture_output=True, text=True, check=False,
            env=os.environ | {"COLUMNS": "200", "KORE_BENCH_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip

    first = run()
    assert first.returncode == 1, first.stdout + first.stderr
    assert "failed: bench:shaky (3 cells): the judge is down" in first.stdout
    assert "skipped: bench:judged (3 cells): it needs a judge (--judge NAME)" in first.stdout
    assert "Traceback" not in first.stdout + first.stderr
    assert run("--rerun", "never").returncode == 1
    assert asked(tmp_path) == {"bench:shaky": 3}
    (tmp_path / "up").touch()
    second = run()
    assert second.returncode == 0, second.stdout + second.stderr
    assert "failed" not in second.stdout
    assert asked(tmp_path) == {"bench:shaky": 6}
    assert not list((tmp_path / "r").rglob("checkpoints"))


def test_what_is_lacking_is_told_once_for_all_cells() -> None:
    down = Outcome(status="failed", reason="the judge is down")
    cells = [
        a_record(method="base", tasks={"mmdu": down, "mia-bench": Outcome(status="skipped", reason="no judge")}),
        a_record(tasks={"mmdu": down, "adaptation": Outcome()}),
        a_record(method="kore", status="failed", reason="loss is not finite"),
    ]
    assert what_is_lacking(cells) == [
        "failed: kore, seed 0: loss is not finite",
        "failed: mmdu (2 cells): the judge is down",
        "skipped: mia-bench (base, seed 0): no judge",
    ]


# --- what tasks are given, and what counts ---


def planned(plugin: Path, tasks: tuple[str, ...] = ("bench:judged",), **options: Any) -> Any:
    request = Request(methods=("lora",), tasks=tasks, plugins=(str(plugin),), **options)
    return make_plan(request)


def test_options_reach_the_tasks_that_have_them(plugin: Path) -> None:
    url = "http://localhost:1/v1"
    judged = {"judge": "grader", "judge_url": url, "settings": ("judge.per-minute=30",)}
    (task, own) = planned(plugin, ("bench:judged", "adaptation"), limit=7, offline=True, **judged).tasks
    assert (task.limit, task.offline, task.judge, own.limit) == (7, True, "grader", 7)
    assert (task.judge_settings.base, task.judge_settings.per_minute) == (url, 30)


def test_what_decides_a_score_is_in_the_key(plugin: Path) -> None:
    def key(**options: Any) -> dict[str, Any]:
        kept: dict[str, Any] = planned(plugin, ("bench:judged", "bench:steady"), **options).tasks[0].key()
        return kept

    local: dict[str, Any] = {"judge": "grader", "judge_url": "http://localhost:1/v1"}
    assert key(**local) == key(**local | {"judge_url": "http://localhost:2/v1"}, offline=True)
    assert key(**local) == key(**local, settings=("judge.timeout=5",))
    assert key(**local) != key(**local | {"judge": "another"})
    assert key(**local) != key(**local, limit=5)
    steady = [
        planned(plugin, ("bench:judged", "bench:steady"), **options).tasks[1].key()
        for options in (local, local | {"judge": "another"}, {})
    ]
    assert steady[0] == steady[1] == steady[2]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"limit": -1}, "--limit -1 must be at least 0"),
        ({"judge_url": "http://localhost:1/v1"}, "--judge-url needs --judge NAME"),
        ({"judge": "grader", "judge_url": "nowhere"}, "--judge-url nowhere is no address"),
        ({"judge": "grader"}, "set KORE_BENCH_JUDGE_KEY or OPENAI_API_KEY"),
        ({"settings": ("judge.timeout=5",)}, r"--set judge\.timeout needs --judge NAME"),
        ({"judge": "m", "judge_url": "http://localhost/v1", "settings": ("judge.tries=5",)}, "retries"),
        (
            {"judge": "grader", "judge_url": "http://localhost:1/v1", "tasks": ("bench:steady", "adaptation")},
            "--judge grader: none of the tasks bench:steady, adaptation is graded by a judge",
        ),
        (
            {"judge": "grader", "judge_url": "https://judge.example/v1", "offline": True},
            "--offline forbids the judge at https://judge.example/v1",
        ),
    ],
)
def test_mistakes_are_named(
    options: dict[str, Any], sentence: str, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai", reason="the judge asks through the package openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("KORE_BENCH_JUDGE_KEY", raising=False)
    with pytest.raises(UserError, match=sentence):
        planned(plugin, **options)


def test_a_run_goes_on_with_another_address_and_no_other_judge(plugin: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "r")
    local: dict[str, Any] = {"judge": "grader", "judge_url": "http://localhost:1/v1"}
    write_plan(run, planned(plugin, **local), [])
    check_same_run(run, planned(plugin, **local | {"judge_url": "http://localhost:2/v1"}, offline=True))
    check_same_run(run, planned(plugin, **local, settings=("judge.per-minute=9",)))
    with pytest.raises(UserError, match="judge 'grader', not 'another'"):
        check_same_run(run, planned(plugin, **local | {"judge": "another"}))
    with pytest.raises(UserError, match="limit 0, not 5"):
        check_same_run(run, planned(plugin, **local, limit=5))


def test_offline_forbids_hugging_face_to_download(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    request = Request(methods=("lora",), data=str(small_world))
    prepare(request, tmp_path / "r")
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    prepare(replace(request, offline=True), tmp_path / "r")
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert os.environ["HF_DATASETS_OFFLINE"] == "1"
    with pytest.raises(UserError, match="somebody/a-model"):
        prepare(replace(request, offline=True, model="somebody/a-model"), tmp_path / "r")


# --- limits ---


def test_a_limit_draws_whole_groups_spread_over_strata() -> None:
    names = [f"g{number // 3}" for number in range(30)]  # ten groups of three
    strata = ["a" if number < 24 else "b" for number in range(30)]
    drawn = draw(range(30), names, 13, strata)
    assert len(drawn) == 12
    assert drawn == tuple(sorted(drawn)) == draw(range(30), names, 13, strata)
    counts = Counter(names[index] for index in drawn)
    assert set(counts.values()) == {3}
    assert Counter(strata[index] for index in drawn) == {"a": 6, "b": 6}
    assert draw(range(30), names, 2) in [tuple(range(start, start + 3)) for start in range(0, 30, 3)]
    assert draw(range(30), names, 99) == tuple(range(30))
    assert draw(range(30), names, 13) != tuple(range(12))


def test_our_own_tasks_keep_whole_entities_and_every_dimension(world: Path) -> None:
    knowledge = read_knowledge(world)
    names = ("adaptation", "retention", "old-facts")
    adaptation, retention, old = make_plan(Request(methods=("lora",), tasks=names, limit=28)).tasks
    kept = adaptation.asked(knowledge)
    assert 20 < len(kept) <= 28
    entities = {question.group for question in kept}
    assert len(kept) == sum(question.group in entities for question in adaptation.questions(knowledge))
    assert set(Counter(question.type for question in retention.asked(knowledge)).values()) == {4}
    assert len({*groups(old.asked(knowledge))}) < len({*groups(old.questions(knowledge))})
    (whole,) = make_plan(Request(methods=("lora",), tasks=("retention",))).tasks
    assert whole.asked(knowledge) == knowledge.retention


# --- records ---


def score(value: float, down: float = 3.0, up: float = 4.0, n: int = 10) -> Score:
    return Score(value=value, low=value - down, high=value + up, n=n)


def test_kr_is_the_mean_of_the_benchmarks_that_were_scored() -> None:
    scores = {
        "mme": {"MME": score(60.0), "total": score(1680.0)},
        "pope": {"POPE": score(80.0, 4.0, 3.0)},
        "hallusionbench": {"HallusionBench": score(40.0)},
        "mmdu": {"MMDU": score(20.0)},
        "adaptation": {"K.A": score(99.0)},
    }
    tasks = {
        "mme": Outcome(metric="MME", dimension="COM"),
        "pope": Outcome(metric="POPE", dimension="HAL"),
        "hallusionbench": Outcome(metric="HallusionBench", dimension="HAL"),
        "mmdu": Outcome(metric="MMDU", dimension="M-IDU", judge="grader"),
        "mathvista": Outcome(status="failed", reason="down", metric="MathVista", dimension="MAT", judge="grader"),
        "mia-bench": Outcome(status="skipped", reason="no judge", metric="MIA-Bench", dimension="INS"),
        "adaptation": Outcome(metric="K.A"),
    }
    found = pool(scores, tasks)
    assert {name: one.value for name, one in found.items()} == {
        "K.R": 50.0, "COM": 60.0, "HAL": 60.0, "M-IDU": 20.0, "K.R without judge": 60.0,
    }  # fmt: skip
    assert found["HAL"] == Score(value=60.0, low=57.5, high=62.5, n=20)
    assert pool(scores, tasks, only=("pope",)) == dict.fromkeys(("K.R", "HAL"), scores["pope"]["POPE"])
    assert pool(scores, {"adaptation": tasks["adaptation"]}) == {}
    assert pool(scores, {"mmdu": tasks["mmdu"]}).keys() == {"K.R", "M-IDU"}


def a_record(**fields: Any) -> Record:
    identity: dict[str, Any] = {"key": "k" * 10, "model": "m", "method": "lora", "seed": 0, "status": "done"}
    return Record(**identity | fields)


def test_outcomes_survive_the_file_and_older_records_have_none(tmp_path: Path) -> None:
    tasks = {"mmdu": Outcome(status="failed", reason="down", judge="grader", limit=9, note="a note")}
    record = a_record(tasks=tasks, scores={"adaptation": {"K.A": score(1.0)}})
    assert Record.from_json(record.to_json()) == record
    assert record.shortfall == "mmdu failed: down"
    raw = json.loads(record.to_json())
    del raw["tasks"], raw["sha256"]  # an earlier version wrote neither
    assert Record.from_json(json.dumps(raw)) == replace(record, tasks={})


def test_cells_with_a_failed_task_are_pending(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    cells = [Cell(model="m", method=method, seed=0, key=method * 10) for method in ("a", "b", "c", "d")]
    outcomes = [{}, {"x": Outcome()}, {"x": Outcome(status="skipped", reason="r")}, {"x": Outcome(status="failed")}]
    for cell, tasks in zip(cells, outcomes, strict=True):
        run.write(cell.name, a_record(method=cell.method, key=cell.key, tasks=tasks))
    assert [cell.method for cell in pending(run, cells, "failed")] == ["d"]
    assert pending(run, cells, "never") == []
