"""Tests of `kore-bench compare` and of the report of comparisons: what they show, and what they say of mistakes."""

from __future__ import annotations

import csv
import importlib
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from kore_bench.cli import main
from kore_bench.comparison import compare
from kore_bench.disagreements import plain
from kore_bench.reports import comparisons
from kore_bench.results import Record, RunFolder, cell_name, write_lines, write_text
from kore_bench.sheet import Asked, read_sheet

records: Any = importlib.import_module("report_records")


def read_csv(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run ``kore-bench compare``; return its exit code and what it printed, on lines of any length."""
    code = 0
    try:
        main(["compare", *map(str, arguments)])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    shown = capsys.readouterr()
    return code, shown.out, " ".join(shown.err.split())


def small_run(path: Path, *, seeds: int = 2, said: str = "blue", broken: bool = False) -> RunFolder:
    """Write a run of base, kore and lora with 40 questions; kore is right on most, and ``said`` is what lora says."""
    run, cells = RunFolder(path), []
    for seed in range(seeds):
        for method in ("base", "kore", "lora"):
            record = Record(
                key=f"{method}{seed}" * 5, model="mini-llava", method=method, seed=seed, status="done",
                reference=method == "base", scores={"adaptation": {}, "retention": {}},
            )  # fmt: skip
            name = cell_name(record.model, method, seed, record.key)
            cells.append(name)
            run.write(name, record)
            for task, types in (("adaptation", ("plant", "tower")), ("retention", ("COM", "OCR"))):
                rows: list[dict[str, Any]] = []
                for number in range(40):
                    right = number % 8 != seed if method == "kore" else method == "base" and task == "retention"
                    rows.append({
                        "id": str(number), "images": [f"images/{number}.png"], "text": f"Which colour has {task} {number}?",
                        "answer": "red", "prediction": "red" if right else said, "correct": float(right),
                        "type": types[number % 2], "group": f"e{number // 2}" if task == "adaptation" else "",
                    })  # fmt: skip
                write_lines(run.cell(name) / "predictions" / f"{task}.jsonl", rows)
    if broken:
        (run.cell(cells[-1]) / "predictions" / "retention.jsonl").write_text('{"id": "1"}\n')
    plan = {"request": {"methods": ["kore", "lora", "ewc"]}, "cells": [*cells, "mini-llava--ewc--seed0--0"]}
    write_text(path / "plan.yaml", yaml.safe_dump(plan))
    return run


def test_compare_says_who_by_how_much_how_sure_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path)
    code, shown, _ = cli(capsys, tmp_path, "--methods", "kore,lora", "--questions", "1")
    lines = [line.split() for line in shown.splitlines()]
    assert code == 0
    assert "kore against lora on mini-llava, seeds 0, 1" in shown
    # 35 of 40 on either seed, and nothing at all
    (ka,) = [line for line in lines if line[:1] == ["K.A"]]
    assert ka[1:6] == ["87.5", "0.0", "+87.5", "±", "0.0"]
    assert ka[-2:] == ["**", "kore"]
    assert ["adaptation", "plant", "20", "0", "0", "0"] in lines  # right on one of two seeds counts as half: right
    assert "Which colour has adaptation 2?" in shown
    assert ["kore", "✓", "red", "right", "on", "2", "of", "2", "seeds"] in lines
    assert ["lora", "✗", "blue", "right", "on", "0", "of", "2", "seeds"] in lines
    assert "no question on which lora is ahead" in shown


def test_one_seed_is_called_one_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path, seeds=1)
    _, shown, _ = cli(capsys, tmp_path, "--methods", "kore,lora", "--questions", "0")
    assert "the spread over seeds is unknown" in " ".join(shown.split())
    assert " ± " not in shown
    assert not any(line.split()[-2:] == ["**", "kore"] for line in shown.splitlines())


def test_which_pairs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path)

    def pairs(*arguments: str) -> list[str]:
        _, shown, _ = cli(capsys, tmp_path, "--questions", "0", *arguments)
        return [line.split(" on ")[0] for line in shown.splitlines() if " against " in line]

    assert pairs() == ["kore against base", "lora against base"]
    assert pairs("--methods", "lora") == ["lora against base"]
    assert pairs("--methods", "base,kore,lora") == ["base against kore", "base against lora", "kore against lora"]
    assert pairs("--methods", "base,lora", "--against", "kore") == ["base against kore", "lora against kore"]


def test_tasks_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path)
    _, shown, _ = cli(capsys, tmp_path, "--methods", "kore,lora", "--tasks", "retention")
    first = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert {"K.R", "COM", "OCR"} <= set(first)
    assert not {"K.A", "Avg"} & set(first)


def test_what_a_model_says_cannot_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path, said="\x1b[2J[bold]x[/nonsense]\x07\nline \u202e two")
    code, shown, _ = cli(capsys, tmp_path, "--methods", "kore,lora")
    assert code == 0
    assert "✗ [2J[bold]x[/nonsense] line two" in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert plain("x" * 500) == "x" * 199 + "…"


def test_failed_seeds_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records.write_run(tmp_path, seeds=(0, 1), methods=("kore", "lora"), failed="lora")
    code, shown, _ = cli(capsys, tmp_path, "--methods", "kore,lora", "--questions", "0")
    assert code == 0
    assert "kore against lora on mini-llava, seed 0" in shown
    assert "left out: lora, seed 1: failed: RuntimeError: loss is not finite at step 17" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "kroe,lora"], "--methods kroe: {run} has no such method: did you mean 'kore'?"),
        (["--methods", "kore", "--against", "bse"], "--against bse: {run} has no such method: did you mean 'base'?"),
        (["--methods", "kore,ewc"], "--methods ewc: no cell of it has run yet in {run}"),
        (["--methods", "base"], "a comparison needs two methods that finished"),
        (["--methods", "kore,lora", "--tasks", "retenton"], "--tasks retenton: {run} has no such task: did you mean 'retention'?"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    small_run(tmp_path)
    code, _, error = cli(capsys, tmp_path, *arguments)
    assert code == 2
    assert message.format(run=tmp_path) in error


def test_a_method_that_failed_everywhere_is_named_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records.write_run(tmp_path, methods=("kore", "lora"), failed="lora")
    code, _, error = cli(capsys, tmp_path, "--methods", "kore,lora")
    assert code == 2
    assert "--methods lora: no cell of it finished" in error
    assert "loss is not finite at step 17" in error


def test_missing_and_damaged_predictions_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path / "damaged", broken=True)
    code, _, error = cli(capsys, run.path, "--methods", "kore,lora")
    assert code == 2
    assert "retention.jsonl is damaged (KeyError: 'correct')" in error
    run = small_run(tmp_path / "missing")
    for file in run.path.glob("cells/*/predictions/*.jsonl"):
        file.unlink()
    code, _, error = cli(capsys, run.path, "--methods", "kore,lora")
    assert code == 2
    assert "holds no predictions of kore, lora" in error
    run = small_run(tmp_path / "apart")
    for file in run.path.glob("cells/*lora*/predictions/*.jsonl"):
        file.unlink()
    code, _, error = cli(capsys, run.path, "--methods", "kore,lora")
    assert code == 2
    assert "no seed has predictions of kore and lora on the same questions" in error


def test_the_example_of_the_documentation_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records.write_run(tmp_path, methods=("kore", "lora", "ewc"))
    text = (Path(__file__).parents[1] / "docs" / "statistics.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    script = tmp_path / "example.py"
    script.write_text(code.replace("runs/mini-llava", str(tmp_path)))
    runpy.run_path(str(script))
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in shown][:2] == [["kore", "lora", "K.A"], ["kore", "lora", "K.R"]]
    assert len(shown) == 2 * (3 + 7)


# --- the report ---


def test_the_report_holds_every_method_against_the_base_and_every_pair(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    table, text = comparisons.build(run, tmp_path)
    rows = read_csv(table)
    contrasts = {(row["family"], row["method"], row["other"]) for row in rows}
    assert contrasts == {
        ("against base", "kore", "base"),
        ("against base", "lora", "base"),
        ("every pair", "kore", "lora"),
    }
    sheet = read_sheet(run, run.records())
    ka = compare(sheet, [("kore", "lora")])[0]
    (row,) = [row for row in rows if (row["family"], row["measure"]) == ("every pair", "K.A")]
    assert float(row["difference"]) == ka.difference
    assert (float(row["low"]), float(row["high"])) == ka.overall
    assert float(row["p Holm"]) == ka.holm_overall
    assert (row["better"], row["shown for"], row["by seed"]) == ("kore", "seeds and questions", "87.5000 87.5000")
    shown = text.read_text(encoding="utf-8")
    assert "| kore \N{MINUS SIGN} lora | +87.5 \\*\\* (" in shown
    assert "Every pair, by dimension, on mini-llava" in shown
    before = table.read_bytes(), text.read_bytes()
    comparisons.build(run, tmp_path)
    assert (table.read_bytes(), text.read_bytes()) == before


def test_the_report_of_one_seed_claims_no_ranking_and_leaves_out_what_failed(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("kore", "lora", "ewc"), failed="ewc")
    table, text = comparisons.build(run, tmp_path)
    rows = read_csv(table)
    assert {row["p"] for row in rows} == {""}
    assert "ewc" not in {row["method"] for row in rows}
    assert "no ranking is claimed" in text.read_text(encoding="utf-8")


def test_there_is_no_report_where_nothing_can_be_compared(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("kore",), without=("base",))
    assert comparisons.build(run, tmp_path) == []
    assert not (tmp_path / "tables").exists()


def test_predictions_of_a_run_are_read_as_they_stand(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    found = read_sheet(run, run.records(), ("adaptation",))
    assert (found.methods, found.seeds, len(found.questions)) == (("base", "kore", "lora"), (0, 1), 40)
    assert found.questions[0] == Asked("adaptation", "0", "plant", "e0", "Which colour has adaptation 0?", "red")
    line = (next(run.path.glob("cells/*kore--seed1*")) / "predictions" / "adaptation.jsonl").read_text().splitlines()[9]
    assert found.values[1, 1, 9] == json.loads(line)["correct"] == 0
