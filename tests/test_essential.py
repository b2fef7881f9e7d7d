"""Superficial and essential forgetting: parts by hand from constructed records, the figure, the main table's skills."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from kore_bench.measures import Score
from kore_bench.registry import Registry
from kore_bench.reports import essential_table, lost, main_table
from kore_bench.reports.essential import lost as parts_of
from kore_bench.reports.essential import recovered
from kore_bench.reports.forgetting import left, retained
from kore_bench.reports.summary import Row, summarise
from kore_bench.reports.tabular import DASH
from kore_bench.results import Outcome, RunFolder

records: Any = importlib.import_module("report_records")
DIMENSIONS: tuple[str, ...] = records.DIMENSIONS
OPEN = "OCR"  # the skill without options
CHANCE = 20.0
KINDS = {  # the share that the model answers exactly, with tolerance, by likelihood; of bases that know all
    "full": (100.0, 100.0, 100.0),  # always right
    "lora": (0.0, 0.0, CHANCE),  # always wrong, and the options at chance: gone
    "replay": (0.0, 100.0, 100.0),  # right in the wrong form: the right answer with words around it
    "ewc": (0.0, 0.0, 100.0),  # says something else, but the right option is the likeliest
    "kore": (CHANCE, CHANCE, CHANCE),  # a constant answer, in its own words and among options
}


def exact(value: float, n: int = 300) -> Score:
    return Score(value=value, low=value - 2, high=value + 2, n=n)


def measured(shares: tuple[float, float, float]) -> dict[str, Mapping[str, Score]]:
    own, tolerant, weighed = shares
    retention = {"K.R": exact(own), "K.R tolerant": exact(tolerant)}
    likelihood = {"K.R by likelihood": exact(weighed), "old-facts by likelihood": exact(weighed)}
    likelihood["old-facts by likelihood chance"] = exact(0)
    for name in DIMENSIONS:
        retention |= {name: exact(own), f"{name} tolerant": exact(tolerant), f"{name} chance": exact(CHANCE)}
        if name != OPEN:
            likelihood |= {f"{name} by likelihood": exact(weighed), f"{name} by likelihood chance": exact(CHANCE)}
    return {"retention": retention, "likelihood": likelihood, "old-facts": {"old-facts": exact(own)}}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    found: RunFolder = records.write_run(tmp_path / "run", methods=tuple(KINDS), tuned=False)
    for record in found.records():
        shares = (100.0, 100.0, 100.0) if record.reference else KINDS[record.method]
        diagnostics: dict[str, Any] = {}
        if record.method == "ewc":
            diagnostics = {
                "recovery/before": {"MAT": 10.0, "HAL": 30.0}, "recovery/after": {"MAT": 40.0, "HAL": 40.0},
                "recovery/steps": 10, "recovery/parameters": 1152,
            }  # fmt: skip
        elif record.method == "full":
            diagnostics = {"recovery/not available": "there are no old samples to take the steps on"}
        tasks = {**record.tasks, "likelihood": Outcome(metric="K.R by likelihood", note=f"{OPEN} is not available")}
        scores = {**record.scores, **measured(shares)}
        found.write(found.name_of(record), replace(record, scores=scores, diagnostics=diagnostics, tasks=tasks))
    return found


def rows(run: RunFolder) -> dict[str, Row]:
    (summary,) = summarise(run)
    return {row.method: row for row in summary.rows}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("full", (0, 0, 0, 0)),
        ("lora", (100, 0, 600 / 7 - 6 * 80 / 7, 6 * 80 / 7 + 100 / 7)),
        ("replay", (100, 100, 0, 0)),
        ("ewc", (100, 0, 600 / 7, 100 / 7)),
        ("kore", (80, 0, 0, 80)),
    ],
)
def test_what_was_lost_divides_as_known_by_hand(run: RunFolder, method: str, expected: tuple[float, ...]) -> None:
    """Below chance there are 20 points to get by guessing; the open skill's loss is essential where tolerance fails."""
    found = parts_of(rows(run)[method])
    assert found is not None
    assert found == pytest.approx(expected)
    assert found.total == pytest.approx(found.form + found.known + found.essential)


def test_what_format_steps_bring_back_is_known_where_it_is_more_than_likelihood_shows(run: RunFolder) -> None:
    (record,) = (record for record in run.records() if record.method == "lora")

    def essential(mat: float, hal: float) -> float:
        shares = {"recovery/before": {"MAT": 0.0, "HAL": 0.0}, "recovery/after": {"MAT": mat, "HAL": hal}}
        run.write(run.name_of(record), replace(record, diagnostics=shares))
        found = parts_of(rows(run)["lora"])
        assert found is not None
        assert found.total == pytest.approx(found.form + found.known + found.essential)
        return float(found.essential)

    likelihood = 6 * 80 / 7 + 100 / 7
    assert essential(0, 0) == essential(10, 30) == pytest.approx(likelihood)
    assert essential(100, 100) == pytest.approx(4 * 80 / 7 + 100 / 7)
    assert essential(0, 100) == pytest.approx(likelihood + (20 - 80) / 7)


def test_recovered_is_the_mean_gain_of_the_skills_asked_again(run: RunFolder) -> None:
    assert recovered(rows(run)["ewc"]) == 20
    assert recovered(rows(run)["lora"]) is None


def test_the_table_says_what_is_not_available_and_why(run: RunFolder) -> None:
    files = Registry().find("reports", "essential-table").build(run, run.path)
    assert {file.name for file in files} == {"essential.csv", "essential.md"}
    (summary,) = summarise(run)
    table = essential_table.table(summary)
    lines = {cells[0].text: [cell.text for cell in cells[1:]] for cells in table.rows}
    assert lines["ewc"] == ["100.0", "0.0", "85.7", "14.3", "0", "100", "+20.0"]
    assert lines["replay"] == ["100.0", "100.0", "0.0", "0.0", "0", "100", DASH]
    assert any("10 steps" in note and "1152 parameters" in note for note in table.notes)
    assert "Recovered is not available (full): there are no old samples to take the steps on." in table.notes
    assert "By likelihood: OCR is not available." in table.notes
    with (run.path / "tables" / "essential.csv").open() as file:
        line = next(row for row in csv.DictReader(file) if row["method"] == "ewc")
    assert float(line["essential"]) == pytest.approx(100 / 7)
    assert float(line["recovered"]) == 20


def test_without_the_task_nothing_divides_and_the_table_says_so(tmp_path: Path) -> None:
    bare: RunFolder = records.write_run(tmp_path / "bare", methods=("lora",))
    assert parts_of(rows(bare)["lora"]) is None
    (summary,) = summarise(bare)
    table = essential_table.table(summary)
    assert {cell.text for cell in table.rows[0][1:5]} == {DASH}
    assert any("not available: it takes the tasks retention and likelihood" in note for note in table.notes)
    assert "Recovered is not available: it goes with the task likelihood." in table.notes


def test_what_is_left_has_the_scores_interval(run: RunFolder) -> None:
    found = left(rows(run)["kore"], "COM", "COM chance")
    assert found == pytest.approx((0, -2.5, 2.5))


def test_the_figure_shows_skills_old_facts_and_parts(run: RunFolder) -> None:
    (summary,) = summarise(run)
    picture = lost.draw(run, summary)
    assert picture is not None
    assert "ewc COM -25, OCR -25" in picture.alt
    assert "old-facts 0, K.R lost 100.0, of it essential 14.3" in picture.alt
    texts = {text.get_text() for axes in picture.figure.axes for text in axes.texts}
    assert {"100", "98 to 102", " 100.0", " 80.0"} <= texts
    heads = {label.get_text() for label in picture.figure.axes[0].get_xticklabels()}
    assert heads == {*DIMENSIONS, "old-facts", "portability", "spill-over"}


def test_the_figure_needs_a_base(tmp_path: Path) -> None:
    bare: RunFolder = records.write_run(tmp_path / "bare", methods=("lora",), without=("base",))
    (summary,) = summarise(bare)
    assert lost.draw(bare, summary) is None


def test_the_main_table_has_the_median_and_the_worst_skill(run: RunFolder) -> None:
    for record in run.records():
        if record.method == "replay":
            scores = {**record.scores["retention"], "COM": exact(90), "OCR": exact(80), "HAL": exact(30)}
            run.write(run.name_of(record), replace(record, scores={**record.scores, "retention": scores}))
    (summary,) = summarise(run)
    table = main_table.table(summary)
    place = table.header.index("Skills left: median, worst")
    cells = {row[0].text: row[place] for row in table.rows}
    assert (cells["full"].text, cells["base"].text) == ("100, 100", DASH)
    values = retained(rows(run)["replay"])
    assert median(values.values()) == pytest.approx(-25)
    assert cells["replay"].text == "-25, -25"
    line = next(one for one in main_table.figures([summary]) if one["method"] == "kore")
    assert (line["median skill left"], line["worst skill left"], line["worst skill"]) == (0, 0, "COM")
