"""Reports on knowing and forgetting: every figure shown equals one computed from the records by hand."""

from __future__ import annotations

import csv
import importlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from kore_bench.measures import Score
from kore_bench.registry import Registry
from kore_bench.reports.content import content
from kore_bench.reports.summary import summarise
from kore_bench.reports.tabular import Table
from kore_bench.results import FRONTIER, RunFolder, write_lines

records: Any = importlib.import_module("report_records")
DIMENSIONS: tuple[str, ...] = records.DIMENSIONS

CHANCE = 12.5
METHODS = ("lora", "kore")
DRIFT = {"lora": [0.0, 0.2, 0.4], "kore": [0.0, 0.05, 0.1]}
REPORTS = ("knowing-table", "forgetting-table", "why", "frontier", "frontier-table")


def exact(value: float, n: int = 300) -> Score:
    return Score(value=value, low=value - 2, high=value + 2, n=n)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Two seeds of two methods with all that reports on forgetting read."""
    found: RunFolder = records.write_run(tmp_path / "run", seeds=(0, 1), methods=METHODS, tuned=False)
    for record in found.records():
        scores = {name: dict(values) for name, values in record.scores.items()}
        scores["retention"] |= {f"{name} chance": exact(CHANCE) for name in DIMENSIONS}
        scores["retention"]["K.R tolerant"] = exact(scores["retention"]["K.R"].value + 3)
        scores["image-necessity"] = {"image-necessity": exact(31), "swapped image": exact(4), "blank image": exact(2)}
        scores["spill-over"] = {"spill-over": exact(27.5), "spill-over of any value": exact(60)}
        more = {}
        if not record.reference:
            more = {
                "forgetting/KL": 0.25 + record.seed,
                "forgetting/drift by depth": DRIFT[record.method],
                "forgetting/leak by depth": [0.001, 0.004],
            }
        name = found.name_of(record)
        found.write(name, replace(record, scores=scores, diagnostics=more))
        if not record.reference:
            point = {"K.A": asdict(exact(20 + record.seed)), "K.R": asdict(exact(85))}
            write_lines(found.cell(name) / FRONTIER, [{"scale": 0.5, **point}])
    return found


def build(run: RunFolder, name: str) -> list[Path]:
    return list(Registry().find("reports", name).build(run, run.path))


def lines(run: RunFolder, name: str) -> dict[str, dict[str, str]]:
    with (run.path / "tables" / f"{name}.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_what_is_left_of_a_skill_is_counted_from_chance(run: RunFolder) -> None:
    build(run, "forgetting-table")
    row = lines(run, "forgetting")["lora"]
    records = [record for record in run.records() if record.method == "lora"]
    base = next(record for record in run.records() if record.method == "base")
    left = {}
    for name in DIMENSIONS:
        mean = sum(record.scores["retention"][name].value for record in records) / len(records)
        left[name] = 100 * (mean - CHANCE) / (base.scores["retention"][name].value - CHANCE)
        assert float(row[name]) == pytest.approx(left[name])
    assert float(row["worst"]) == pytest.approx(min(left.values()))
    assert float(row["median"]) == pytest.approx(sorted(left.values())[3])
    assert float(row["KL"]) == pytest.approx(0.75)
    assert float(row["drift"]) == pytest.approx(0.4)
    assert float(row["leak"]) == pytest.approx(0.004)


def test_answers_that_flipped_are_counted_over_all_seeds(run: RunFolder) -> None:
    build(run, "forgetting-table")
    base = next(record for record in run.records() if record.method == "base")
    before = {row["id"]: row["correct"] for row in run.predictions(base, "retention")}
    lost = right = gained = wrong = 0
    for record in run.records():
        if record.method == "kore":
            for row in run.predictions(record, "retention"):
                right += before[row["id"]] == 1
                wrong += before[row["id"]] == 0
                lost += before[row["id"]] == 1 and row["correct"] == 0
                gained += before[row["id"]] == 0 and row["correct"] == 1
    row = lines(run, "forgetting")["kore"]
    assert float(row["lost"]) == pytest.approx(100 * lost / right)
    assert float(row["gained"]) == pytest.approx(100 * gained / wrong)
    assert lost > 0


def test_a_skill_that_the_base_lacks_has_nothing_to_lose(run: RunFolder) -> None:
    for record in run.records():
        scores = {name: dict(values) for name, values in record.scores.items()}
        scores["retention"]["HAL chance"] = exact(78)
        run.write(run.name_of(record), replace(record, scores=scores))
    build(run, "forgetting-table")
    assert lines(run, "forgetting")["kore"]["HAL"] == ""


def test_measures_that_nobody_has_are_named_and_not_shown_as_empty_columns(run: RunFolder) -> None:
    build(run, "knowing-table")
    text = (run.path / "tables" / "knowing.md").read_text()
    assert "Not measured in this run: paraphrase, portability." in text
    assert "| Paraphrase |" not in text
    assert "27.5" in text
    assert float(lines(run, "knowing")["lora"]["spill-over"]) == 27.5


def test_retention_at_equal_adaptation_is_read_off_the_frontier(run: RunFolder) -> None:
    build(run, "frontier-table")
    row, base = lines(run, "frontier")["kore"], summarise(run)[0].base
    assert base is not None
    start = base.scores["K.A"].value, base.scores["K.R"].value
    expected = start[1] + (10 - start[0]) / (20.5 - start[0]) * (85 - start[1])
    assert float(row["K.R at K.A 10"]) == pytest.approx(expected)
    assert row["K.R at K.A 90"]
    assert lines(run, "frontier")["lora"]["K.R at K.A 90"] == ""


def test_a_scale_that_a_seed_lacks_is_no_point(run: RunFolder) -> None:
    for record in run.records():
        if record.method == "kore" and record.seed == 1:
            (run.cell(run.name_of(record)) / FRONTIER).unlink()
    build(run, "frontier-table")
    assert set(lines(run, "frontier")) == {"lora"}


@pytest.mark.parametrize("name", ["why", "frontier"])
def test_figures_say_their_numbers(run: RunFolder, name: str) -> None:
    files = build(run, name)
    assert {file.suffix for file in files} == {".svg", ".png"}
    text = next(file for file in files if file.suffix == ".svg").read_text()
    assert "kore" in text
    assert ("0.40, 0.004, 0.75" if name == "why" else "20.5 and 85.0 at 0.5") in text


def test_the_page_shows_them(run: RunFolder) -> None:
    for name in REPORTS:
        build(run, name)
    blocks = content(run, run.path)
    titles = [block.title for block in blocks if isinstance(block, Table)]
    for title in ("What was forgotten", "Knowing or memorising", "Retention at equal adaptation"):
        assert any(found.startswith(title) for found in titles)
    shown = {block.file.stem for block in blocks if hasattr(block, "file")}
    assert {"why", "frontier"} <= shown


def test_a_run_without_diagnostics_or_frontiers_says_nothing_of_them(tmp_path: Path) -> None:
    bare: RunFolder = records.write_run(tmp_path / "bare", methods=METHODS)
    for name in ("why", "frontier", "frontier-table"):
        assert build(bare, name) == []
    assert not any(isinstance(block, Table) and "equal" in block.title for block in content(bare, bare.path))
