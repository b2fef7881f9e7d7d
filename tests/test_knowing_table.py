"""The knowing table: who was asked in training, what is not available and why; against records made by hand."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kore_bench.measures import Score
from kore_bench.reports.knowing_table import figures, table
from kore_bench.reports.summary import Summary, summarise
from kore_bench.reports.tabular import DASH, Table
from kore_bench.results import Outcome, RunFolder, write_lines

records: Any = importlib.import_module("report_records")
SPLIT = ("K.A asked", "K.A text only")


def exact(value: float, n: int) -> Score:
    return Score(value=value, low=value - 2, high=value + 2, n=n)


def summary(
    path: Path, split: Mapping[str, tuple[float, float]], asked: Mapping[str, int], *, probes: bool = True
) -> Summary:
    """Return a run of lora and kore with ``split`` (K.A asked, K.A text only) and what their training ``asked``."""
    run: RunFolder = records.write_run(path / "run", methods=("lora", "kore"), tuned=False)
    for record in run.records():
        scores = {name: dict(values) for name, values in record.scores.items()}
        for name, value, n in zip(SPLIT, split.get(record.method, ()), (240, 60), strict=False):
            scores["adaptation"][name] = exact(value, n)
        tasks = dict(record.tasks)
        if probes:
            scores["portability"] = {"portability": exact(40, 360), "portability naming": exact(70, 60)}
        else:
            reason = "portability is not available: DIR has no probes.jsonl with such questions"
            tasks["portability"] = Outcome(status="skipped", reason=reason, metric="portability")
        more = {} if record.reference else {"train/questions asked": asked.get(record.method, 0)}
        run.write(run.name_of(record), replace(record, scores=scores, tasks=tasks, diagnostics=more))
    (found,) = summarise(run)
    return found


def cells(shown: Table, column: str) -> dict[str, tuple[str, str]]:
    place = shown.header.index(column)
    return {row[0].text: (row[place].text, row[place].note) for row in shown.rows}


def test_rows_whose_training_asks_nothing_say_so_beside_the_same_questions(tmp_path: Path) -> None:
    split = {"base": (4.0, 5.0), "in-context": (100.0, 100.0), "lora": (20.0, 21.0), "kore": (90.0, 30.0)}
    shown = table(summary(tmp_path, split, {"kore": 240}))
    assert shown.header[:4] == ("Method", "K.A", *SPLIT)
    asked = cells(shown, "K.A asked")
    assert asked["kore"] == ("90.0", "88.0 to 92.0")
    assert asked["lora"] == ("20.0", "nothing asked; 18.0 to 22.0")
    assert cells(shown, "K.A text only")["base"] == ("5.0", "nothing asked; 3.0 to 7.0")
    notes = "\n".join(shown.notes)
    assert "(K.A asked n = 240 and K.A text only n = 60)" in notes
    assert "Nothing is asked in training by base, in-context and lora" in notes
    assert "not available" not in notes.lower().replace("not available: ", "")


def test_rows_that_cannot_tell_are_shown_on_the_questions_of_the_training_that_asks(tmp_path: Path) -> None:
    found = summary(tmp_path, {"kore": (90.0, 30.0)}, {"kore": 240})
    run = RunFolder(tmp_path / "run")
    right: dict[str, dict[bool, list[float]]] = {}
    for record in run.records():
        rows = run.predictions(record, "adaptation")
        for number, row in enumerate(rows):
            asked = number % 4 > 0
            right.setdefault(record.method, {}).setdefault(asked, []).append(row["correct"])
            row |= {"asked": asked} if record.method == "kore" else {}
        write_lines(run.cell(run.name_of(record)) / "predictions" / "adaptation.jsonl", rows)
    (found,) = summarise(run)
    shown = table(found)
    for name, asked in zip(SPLIT, (True, False), strict=True):
        text, note = cells(shown, name)["lora"]
        values = right["lora"][asked]
        assert text == f"{100 * sum(values) / len(values):.1f}"
        assert note.startswith("nothing asked (kore's questions); ")
    assert cells(shown, "K.A asked")["kore"] == ("90.0", "88.0 to 92.0")
    assert any("theirs is K.A on the questions that the training of kore asks" in note for note in shown.notes)
    assert figures([found])[2]["K.A asked"] == ""  # the CSV holds what the records say, and nothing lent


def test_where_nobody_tells_the_row_has_a_dash_and_a_reason(tmp_path: Path) -> None:
    shown = table(
        summary(tmp_path, {"kore": (90.0, 30.0)}, {"kore": 240})
    )  # predictions that do not say what was asked
    assert cells(shown, "K.A asked")["lora"] == (DASH, "")
    notes = "\n".join(shown.notes)
    assert "K.A asked and K.A text only are not available for base, in-context and lora" in notes
    assert "Nothing is asked" not in notes


def test_without_any_split_the_columns_go_and_the_reason_stays(tmp_path: Path) -> None:
    shown = table(summary(tmp_path, {}, {}))
    assert not {*SPLIT} & {*shown.header}
    assert any("not available for base, in-context, lora and kore" in note for note in shown.notes)


def test_what_no_row_has_is_named_with_the_records_reason(tmp_path: Path) -> None:
    with_probes = table(summary(tmp_path / "with", {}, {}))
    assert any(note.startswith("Not available: one hop on") for note in with_probes.notes)
    assert "Not measured in this run: paraphrase, image-necessity, spill-over." in with_probes.notes
    without = table(summary(tmp_path / "without", {}, {}, probes=False))
    assert (
        "Not available: portability (portability is not available: DIR has no probes.jsonl with such questions)."
        in without.notes
    )
    assert not any("one hop on" in note for note in without.notes)


def test_the_csv_has_both_halves_with_their_sizes(tmp_path: Path) -> None:
    lines = figures([summary(tmp_path, {"kore": (90.0, 30.0)}, {"kore": 240})])
    kore = next(line for line in lines if line["method"] == "kore")
    lora = next(line for line in lines if line["method"] == "lora")
    assert (kore["K.A asked"], kore["K.A asked n"], kore["K.A text only"]) == (90.0, 240, 30.0)
    assert lora["K.A asked"] == ""


@pytest.mark.parametrize("measure", SPLIT)
def test_the_halves_are_measures_of_adaptation(tmp_path: Path, measure: str) -> None:
    found = summary(tmp_path, {"kore": (90.0, 30.0), "base": (4.0, 5.0)}, {"kore": 240})
    row = next(row for row in found.rows if row.method == "kore")
    assert row.scores[measure].value in (90.0, 30.0)
    assert row.change[measure] in (86.0, 25.0)
