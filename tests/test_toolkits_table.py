"""The table of toolkits' tasks: which figures it holds, which way is better, and what readers must know of them."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kore_bench.measures import Score
from kore_bench.reports import toolkits_table
from kore_bench.reports.summary import Summary, summarise
from kore_bench.results import Outcome, RunFolder

records: Any = importlib.import_module("report_records")

WORDS, FACTS = "lm-eval:wikitext", "lm-eval:arc_easy"
SEEN = "64 of its questions are among the old samples that the method read"


def perplexity(value: float) -> Score:
    return Score(value=value, low=value, high=value, n=62, higher_is_better=False)


def write(path: Path, *, seeds: tuple[int, ...] = (0,)) -> RunFolder:
    """Write a run whose cells have a perplexity that grows by the method's place, and an accuracy."""
    run: RunFolder = records.write_run(path, methods=("lora", "kore-null"), seeds=seeds)
    for record in run.records():
        place = ("base", "in-context", "lora", "kore-null").index(record.method)
        rising = Score(value=60.0 - place, low=55.0, high=65.0, n=500)
        scores = {
            **record.scores,
            WORDS: {WORDS: perplexity(200.0 + 10 * place + 3 * record.seed * place)},
            FACTS: {FACTS: rising},
        }
        note = SEEN if record.method == "kore-null" else ""
        tasks = {**record.tasks, WORDS: Outcome(metric=WORDS), FACTS: Outcome(metric=FACTS, limit=500, note=note)}
        run.write(run.name_of(record), replace(record, scores=scores, tasks=tasks))
    return run


def summary_of(run: RunFolder) -> Summary:
    (summary,) = summarise(run)
    return summary


def test_lower_is_better_is_said_where_it_is_so(tmp_path: Path) -> None:
    (table,) = toolkits_table.tables(summary_of(write(tmp_path)))
    assert table.header == ("Method", f"{FACTS}†", f"{WORDS} ↓")
    cells = {row[0].text: row[1:] for row in table.rows}
    assert [cell.text for cell in cells["base"]] == ["60.0", "200.0"]
    assert [cell.note for cell in cells["lora"]] == ["\N{MINUS SIGN}2.0", "+20.0"]
    assert "a change with a plus is a loss" in table.notes[0]
    assert f"{FACTS} 500, {WORDS} 62" in table.notes[0]


def test_what_a_method_has_seen_is_noted_of_that_method_alone(tmp_path: Path) -> None:
    (table,) = toolkits_table.tables(summary_of(write(tmp_path)))
    assert f"{FACTS}: {SEEN} (kore-null)." in table.notes
    assert sum("old samples that the method read" in note for note in table.notes) == 1


def test_a_perplexity_over_seeds_is_not_cut_at_a_hundred(tmp_path: Path) -> None:
    summary = summary_of(write(tmp_path, seeds=(0, 1, 2)))
    score = next(row for row in summary.rows if row.method == "lora").scores[WORDS]
    assert score.value == pytest.approx(226.0)
    assert score.high > score.value > score.low > 100
    assert not score.higher_is_better


def test_a_run_without_such_tasks_has_no_table(tmp_path: Path) -> None:
    run: RunFolder = records.write_run(tmp_path, methods=("lora",))
    assert toolkits_table.tables(summary_of(run)) == []
    assert toolkits_table.REPORT.build(run, tmp_path / "out") == []


def test_files_have_full_figures_and_the_direction(tmp_path: Path) -> None:
    files = toolkits_table.REPORT.build(write(tmp_path / "run"), tmp_path / "out")
    assert [file.name for file in files] == ["toolkits.csv", "toolkits.md"]
    header, *lines = files[0].read_text().splitlines()
    assert header.endswith("lower is better")
    assert all(line.endswith(f",{WORDS}") for line in lines)
    assert f"{WORDS} change" in header
