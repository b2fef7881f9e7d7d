"""`kore-bench show`: a run's cells and what became of them, one cell in full, and how cells are named."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from kore_bench.cli import main
from kore_bench.errors import UserError
from kore_bench.lookup import find_places, list_places
from kore_bench.results import RunFolder, write_lines
from kore_bench.words import number, one_line, size, sparkline

records: Any = importlib.import_module("report_records")
METHODS = ("lora", "ewc", "kore", "kore-null")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "r"
    run: RunFolder = records.write_run(folder, seeds=(0, 1), methods=METHODS, failed="kore-null")
    return run


@pytest.fixture
def run(made: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(made.path, tmp_path / "r")
    return RunFolder(tmp_path / "r")


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return int(exit_.value.code or 0)


def show(capsys: pytest.CaptureFixture[str], run: RunFolder, *arguments: str) -> str:
    assert call("show", str(run.path), *arguments) == 0
    shown = capsys.readouterr().out
    assert max(map(len, re.sub(r"^.*/.*$", "", shown, flags=re.MULTILINE).splitlines())) <= 80
    return shown


def lines_of(shown: str, name: str) -> list[str]:
    return [" ".join(line.split()) for line in shown.splitlines() if line.split()[:1] == [name]]


def folder_of(run: RunFolder, label: str) -> Path:
    return run.cell(next(place.name for place in list_places(run) if place.label == label))


def test_the_overview_has_every_cell(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    shown = show(capsys, run)
    assert lines_of(shown, "cells") == ["cells 12: 11 done, 1 failed"]
    assert lines_of(shown, "budget") == ["budget 240 steps x 16 examples"]
    assert [line.split()[:2] for line in lines_of(shown, "lora")] == [["lora", "0"], ["lora", "1"]]
    record = next(place.record for place in list_places(run) if place.label == "lora@0")
    assert record is not None
    ka, kr = record.score("K.A"), record.score("K.R")
    assert ka is not None
    assert kr is not None
    assert f"{ka.value:.1f} ± {(ka.high - ka.low) / 2:.1f}" in lines_of(shown, "lora")[0]
    assert f" {(ka.value + kr.value) / 2:.1f} 0:30 done" in lines_of(shown, "lora")[0]
    assert "failed: RuntimeError: loss is not finite at step 17" in " ".join(shown.split())


def test_half_a_run_says_what_is_missing(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder_of(run, "lora@0"))
    (folder_of(run, "lora@1") / "record.json").unlink()
    (folder_of(run, "ewc@0") / "record.json").unlink()
    (folder_of(run, "ewc@0") / "checkpoints" / "checkpoint-120").mkdir(parents=True)
    (folder_of(run, "ewc@1") / "record.json").write_text('{"format": 1')
    shown = show(capsys, run)
    assert lines_of(shown, "cells") == ["cells 12: 7 done, 1 not run, 2 unfinished, 1 unreadable, 1 failed"]
    assert lines_of(shown, "lora") == ["lora 0 not run", "lora 1 unfinished: running, or"]
    assert lines_of(shown, "ewc")[0].startswith("ewc 0 unfinished: trained to")
    assert lines_of(shown, "ewc")[1].startswith("ewc 1 unreadable: its record")
    with (folder_of(run, "ewc@0") / "train.jsonl").open("a") as log:
        log.write('{"step": 241, "lo')  # its writer was stopped
    assert "240 steps" in show(capsys, run, "ewc@0")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("kore", ["kore@0", "kore@1"]),
        ("kore@1", ["kore@1"]),
        ("kore-null--seed0", ["kore-null@0"]),
        ("mini-llava--ewc", ["ewc@0", "ewc@1"]),
        ("mini-llava--ewc--seed1", ["ewc@1"]),
    ],
)
def test_cells_are_found_by_what_people_type(text: str, labels: list[str], made: RunFolder) -> None:
    assert [place.label for place in find_places(made, text)] == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kor", "has no cell 'kor': did you mean 'kore'? (available: base, ewc, in-context, kore, kore-null, lora)"),
        ("kore@7", "has no cell 'kore@7': did you mean 'kore@"),
        ("lorra@1", "has no cell 'lorra@1': did you mean 'lora'?"),
        ("mini-llava--kore", "begins the names of 4 cells, of kore, kore-null: give more of it"),
    ],
)
def test_unknown_cells_name_the_nearest(
    text: str, message: str, made: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("show", str(made.path), text) == 2
    assert message in capsys.readouterr().err


def test_one_cell_in_full(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    record = next(place.record for place in list_places(run) if place.label == "ewc@1")
    assert record is not None
    ka = record.score("K.A")
    assert ka is not None
    shown = show(capsys, run, "ewc@1", "--questions", "2")
    assert f"adaptation K.A {ka.value:.1f} {ka.low:.1f} to {ka.high:.1f} 300" in " ".join(shown.split())
    assert re.search(r"^  loss +\d[\d.]* [▁▂▃▄▅▆▇█]{40} \d[\d.]*, 240 steps", shown, re.MULTILINE)
    assert re.search(r"^  penalty/ewc +\d", shown, re.MULTILINE)
    assert "82,000 of 1,120,000 parameters (7.3 %)" in shown
    assert "3,840 samples of 60 examples in 240 steps, 276,000 tokens" in shown
    assert "peak memory  812 MiB" in shown
    assert "batch_size=16" in shown
    assert "Best and worst questions, beside the base" in shown
    assert re.search(r"Where ewc is ahead: 2 of \d+ questions", shown)
    assert re.search(r"Where base is ahead: 2 of \d+ questions", shown)
    assert "questions" not in show(capsys, run, "ewc@1", "--questions", "0")


def test_seeds_of_a_method_stand_side_by_side(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    values = []
    for place in find_places(run, "kore"):
        assert place.record is not None
        values.append(place.record.scores["adaptation"]["K.A"].value)
    shown = show(capsys, run, "kore")
    assert "mean ± SD  seed 0  seed 1" in shown
    mean, spread = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    assert f"K.A {mean:.1f} ± {spread:.1f} {values[0]:.1f} {values[1]:.1f} 300" in " ".join(shown.split())
    assert "loss, seed 1" in shown
    assert "0:42 on average" in shown


def test_the_base_shows_what_it_gets_wrong(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    shown = show(capsys, run, "base@0")
    assert re.search(r"Wrong on seed 0: 3 of \d+ questions", shown)
    assert "parameters" not in shown


def test_a_failed_cell_shows_reason_and_traceback(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (folder_of(run, "kore-null@1") / "traceback.txt").write_text("Traceback")
    shown = show(capsys, run, "kore-null@1")
    assert "seed 1 failed: RuntimeError: loss is not finite at step 17" in shown
    assert str(folder_of(run, "kore-null@1") / "traceback.txt") in shown
    assert "Scores" not in shown
    assert "seed 0 done" in show(capsys, run, "kore-null")  # the other seed is shown in full


def test_what_models_wrote_cannot_drive_the_terminal(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for label, correct in (("lora@0", 1.0), ("base@0", 0.0)):
        row = {"id": "1", "text": "[red]who?[/]", "answer": "\x1b[2Jgold", "prediction": "\x1b]0;x\x07[b]me[/b]"}
        write_lines(folder_of(run, label) / "predictions" / "adaptation.jsonl", [{**row, "correct": correct}])
    shown = show(capsys, run, "lora@0")
    assert "[red]who?[/]" in shown
    assert "[b]me[/b]" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_trials_of_a_tuning_are_listed_by_their_folders(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    places = find_places(run, "lora@0")
    assert places[0].record is not None
    raw = json.loads(places[0].record.to_json().replace('"learning_rate": 0.003', '"learning_rate": 0.3'))
    text = json.dumps({name: value for name, value in raw.items() if name != "sha256"})
    twin = places[0].name[:-1] + "x"
    (run.cell(twin)).mkdir()
    (run.cell(twin) / "record.json").write_text(text)
    plan = (run.path / "plan.yaml").read_text()
    (run.path / "plan.yaml").write_text(plan + f"- {twin}\n")
    shown = show(capsys, run, "lora@0")
    assert "2 cells of lora; name one by the start of its folder" in shown
    assert "0.3 " in shown
    assert "0.003 " in shown
    assert "Scores" in show(capsys, run, twin)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("format: 2\nruns: []\n", "plan.yaml has format 2, and this version of kore-bench reads format 1"),
        ("cells: 3\n", "plan.yaml is not a plan of this version: it lists no cells"),
        ("cells: [{name: x}]\n", "plan.yaml is not a plan of this version: it lists no cells"),
        ("- a\n", "plan.yaml is not a plan of this version: it lists no cells"),
        ("cells: [\n", "plan.yaml cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["show", "report", "compare"])
def test_a_folder_of_another_version_is_a_sentence(
    command: str, plan: str, message: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / "plan.yaml").write_text(plan)
    assert call(command, str(run.path)) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("error:") == 1


def test_no_run_folder_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("show", str(tmp_path / "nowhere")) == 2
    assert "there is no run folder" in capsys.readouterr().err
    assert call("show", str(tmp_path)) == 2
    assert "is not a run folder: it has no plan.yaml" in capsys.readouterr().err


def test_a_plan_with_names_of_its_own_still_lists_them(run: RunFolder) -> None:
    (run.path / "plan.yaml").write_text("cells: [odd, m--a--b--seed3--k]\n")
    assert [(place.method, place.seed, place.status) for place in list_places(run)] == [
        ("odd", 0, "not run"), ("a--b", 3, "not run"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="has no cell"):
        find_places(run, "")


def test_an_older_plan_without_a_format_is_read(run: RunFolder) -> None:
    assert "format" not in run.plan()
    text = (run.path / "plan.yaml").read_text()
    (run.path / "plan.yaml").write_text("format: 1\n" + text)
    assert len(list_places(run)) == 12
    assert json.loads((run.path / "environment.json").read_text())["python"] == "3.11.7"


def test_pieces() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 8, 8], 2) == "▁█"
    assert sparkline([3.0, 3.0], 10) == "▁▁"
    assert sparkline([1.0, float("nan"), float("inf"), 2.0], 4) == "▁xx█"
    assert sparkline([float("nan")], 4) == "x"
    assert sparkline([], 4) == ""
    assert [size(count) for count in (0, 1023, 2048, 150 * 2**20, 3.5 * 2**30, 2**42)] == [
        "0 B", "1023 B", "2.0 KiB", "150 MiB", "3.5 GiB", "4096 GiB",
    ]  # fmt: skip
    assert [number(value) for value in (1234567, 0.00123456, True, "a\nb")] == ["1,234,567", "0.001235", "True", "a b"]
    assert one_line("a\x1b[2J\n b") == "a [2J b"
