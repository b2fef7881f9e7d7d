"""The command line: help, lists, errors with their exit codes, and small runs from start to report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kore_bench.cli import main
from kore_bench.results import Record, RunFolder

ROOT = Path(__file__).parents[1]
BROKEN = '''
from dataclasses import dataclass
from kore_bench.component import Component, Method

@dataclass(frozen=True, kw_only=True)
class Fails(Component):
    """Fails while it measures."""

    name = "fails"

    def measure(self, model, run):
        raise RuntimeError("it broke <here>")

METHOD = Method(name="fails", summary="s", source="none", components=(Fails(),))
'''


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return int(exit_.value.code or 0)


def example_plugin() -> str:
    """Return the method that the documentation shows."""
    text = (ROOT / "docs" / "adding-a-method.md").read_text()
    return text.split("```python\n", 1)[1].split("```", 1)[0]


@pytest.mark.parametrize("command", [[], ["run"], ["report"], ["tune"], ["list"]])
def test_help_names_every_command_and_option(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Usage" in shown
    if command == ["run"]:
        for option in ("--methods", "--model", "--seeds", "--set", "--plugin", "--dry-run", "--jobs", "--rerun"):
            assert option in shown


def test_help_is_light() -> None:
    code = "import sys; from kore_bench.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "methods") == 0
    shown = capsys.readouterr().out
    for name in (
        "full",
        "lora",
        "replay",
        "ewc",
        "kore",
        "kore-augmentation",
        "kore-null",
        "frozen-random",
        "frozen-top",
    ):
        assert re.search(rf"^{name} ", shown, re.MULTILINE), name
    assert call("list", "methods", "ewc+kore-null") == 0
    shown = capsys.readouterr().out
    assert "kore-null.rank" in shown
    assert "ewc.strength" in shown
    for kind, name in (("models", "mini-llava"), ("tasks", "retention"), ("reports", "tradeoff")):
        assert call("list", kind) == 0
        assert name in capsys.readouterr().out
        assert call("list", kind, name) == 0
        assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--methods", "kor"], "unknown method 'kor': did you mean 'kore'?"),
        (["run", "--data", "nowhere"], "nowhere"),
        (["run", "--set", "train.stepz=1"], "did you mean 'steps'?"),
        (["list", "methods", "lorra"], "did you mean 'lora'?"),
        (["list", "tasks", "retentoin"], "did you mean 'retention'?"),
        (["report", "nowhere"], "there is no run folder nowhere"),
        (["tune", "--methods", "lora+full"], "has two adapters"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith("error: ")
    assert "Traceback" not in shown.err
    assert not list(tmp_path.iterdir())


def command(folder: Path, *arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "kore_bench", "run", "--runs", str(folder), "--name", "r", "--jobs", "1",
        "--set", "train.steps=3", "--set", "train.batch_size=4", *arguments,
    ]  # fmt: skip


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(command(folder, *arguments), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def records(folder: Path) -> dict[str, Record]:
    return {record.method: record for record in RunFolder(folder / "r").records()}


def times(folder: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in (folder / "r" / "cells").glob("*/record.json")}


@pytest.mark.usefixtures("in_process")
def test_a_run_with_a_plugin_from_start_to_report(
    small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(folder: Path, *arguments: str) -> tuple[int, str]:
        code = call(*command(folder, *arguments)[3:])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    plugin = tmp_path / "norm_penalty.py"
    plugin.write_text(example_plugin())
    options = ("--data", str(small_world), "--plugin", str(plugin), "--methods", "lora,norm-penalty")

    code, shown = run(tmp_path, *options, "--dry-run")
    assert code == 0
    assert "norm-penalty, seed 0" in shown
    assert not (tmp_path / "r").exists()

    code, shown = run(tmp_path, *options)
    assert code == 0, shown
    done = records(tmp_path)
    assert set(done) == {"base", "in-context", "lora", "norm-penalty"}
    assert all(record.status == "done" for record in done.values())
    assert done["lora"].cost.steps == 3
    assert done["lora"].cost.samples == 4 + 2 + 4  # six items in batches of four
    penalised = RunFolder(tmp_path / "r").training_log(done["norm-penalty"])
    assert [row["step"] for row in penalised] == [1, 2, 3]
    assert all(row["penalty/norm-penalty"] > 0 for row in penalised)
    for name in ("report.md", "report.html", "figures/tradeoff.svg", "figures/tradeoff.png", "tables/main.csv"):
        assert (tmp_path / "r" / name).stat().st_size > 0, name
    rows = RunFolder(tmp_path / "r").predictions(done["lora"], "adaptation")
    assert len(rows) == 30
    assert {"id", "answer", "prediction", "correct"} <= rows[0].keys()

    before = times(tmp_path)
    code, shown = run(tmp_path, *options)
    assert "4 done already" in shown
    assert times(tmp_path) == before

    plugin.write_text(example_plugin().replace("strength: float = 0.1", "strength: float = 0.2"))
    code, shown = run(tmp_path, *options)
    assert "3 done already" in shown
    assert {name: when for name, when in times(tmp_path).items() if name in before} == before

    code, shown = run(tmp_path, *options, "--set", "lora.rank=4")
    assert code == 2
    assert "give this one another --name" in shown


def test_a_failed_cell_is_a_record_and_the_others_go_on(small_world: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "fails.py"
    plugin.write_text(BROKEN)
    code, shown = run(
        tmp_path,
        "--data",
        str(small_world),
        "--plugin",
        str(plugin),
        "--methods",
        "fails,lora",
        "--tasks",
        "adaptation",
    )
    assert code == 1
    assert "failed: fails, seed 0: RuntimeError: it broke <here>" in shown
    done = records(tmp_path)
    assert (done["fails"].status, done["lora"].status) == ("failed", "done")
    assert "<here>" not in (tmp_path / "r" / "report.html").read_text()


@pytest.mark.slow
def test_the_mini_run_gives_its_golden_figures(tmp_path: Path) -> None:
    """The default run's figures of two methods, within what other processors and BLAS kernels change."""
    golden = json.loads((ROOT / "tests" / "data" / "golden.json").read_text())
    code = subprocess.run(
        [sys.executable, "-m", "kore_bench", "run", "--runs", str(tmp_path), "--methods", "lora,kore"], check=False
    ).returncode
    assert code == 0
    for record in RunFolder(tmp_path / "mini-llava").records():
        for measure, expected in golden[record.method].items():
            score = record.score(measure)
            assert score is not None
            assert score.value == pytest.approx(expected, abs=golden["tolerance"]), (record.method, measure)
