"""Tests of the reports: figures equal the records', nothing is dropped, escaped or hidden silently, bytes are stable."""

from __future__ import annotations

import csv
import importlib
import json
import math
import pkgutil
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import kore_bench.reports
from kore_bench.errors import UserError
from kore_bench.measures import Score, hars
from kore_bench.report import Report, build_all
from kore_bench.reports import drawing, learning_rate_paths, learning_rates, losses, page, tradeoff, trials, wording
from kore_bench.reports.labels import place_labels
from kore_bench.reports.summary import (
    DIMENSIONS,
    Row,
    Summary,
    apart,
    in_order,
    paired,
    pareto,
    score_of,
    summarise,
    unfinished,
)
from kore_bench.reports.tabular import escape_markdown, signed
from kore_bench.results import Record, RunFolder

records: Any = importlib.import_module("report_records")

FEW = ("full", "lora", "ewc", "kore-null", "kore", "frozen-random")
MODULES = [
    importlib.import_module(f"kore_bench.reports.{module.name}")
    for module in pkgutil.iter_modules(kore_bench.reports.__path__)
]
REPORTS: list[Report] = [module.REPORT for module in MODULES if isinstance(getattr(module, "REPORT", None), Report)]
HOSTILE = '<script>alert("1")<script>'
REASON = "<img src=x onerror=alert(1)> | broke at $\\frac{ `code` *and* <b>"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run: RunFolder = records.write_run(tmp_path_factory.mktemp("one"), methods=FEW)
    build_all(run, REPORTS)
    return run


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run: RunFolder = records.write_run(tmp_path_factory.mktemp("three"), methods=FEW, seeds=(0, 1, 2), failed="ewc")
    build_all(run, [report for report in REPORTS if report.kind != "figure" or report.name == "tradeoff"])
    return run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    names = {"lora": HOSTILE, "full": "$x$ & <b>"}
    path = tmp_path_factory.mktemp("hostile")
    run: RunFolder = records.write_run(
        path, methods=("full", "lora", "kore", "replay"), failed="kore", skipped="replay", reason=REASON, rename=names
    )
    build_all(run, REPORTS)
    return run


def row_of(run: RunFolder, method: str) -> Row:
    return next(row for row in summarise(run)[0].rows if row.method == method)


def value_of(record: Record, measure: str) -> float:
    score: Score | None = score_of(record, measure)
    assert score is not None
    return score.value


def read_csv(run: RunFolder, name: str) -> dict[str, dict[str, str]]:
    with (run.path / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        return {row["method"]: row for row in csv.DictReader(lines)}


# --- the contract ---


def test_a_report_is_called_as_its_file() -> None:
    names = {module.__name__.rpartition(".")[2].replace("_", "-"): module for module in MODULES}
    assert [report.name for report in REPORTS] == [
        name for name, module in names.items() if isinstance(getattr(module, "REPORT", None), Report)
    ]
    assert {"main-table", "cost-table", "dimensions-table", "tradeoff", "dimensions", "losses", "learning-rates"} <= {
        report.name for report in REPORTS
    }


def test_pages_are_built_last_and_files_are_returned(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("lora",))
    built: list[str] = []

    def report(name: str, kind: Any) -> Report:
        def build(run: RunFolder, folder: Path) -> list[Path]:
            built.append(name)
            return [folder / name]

        return Report(name=name, title=name, kind=kind, build=build)

    files = build_all(run, [report("page", "page"), report("table", "table"), report("figure", "figure")])
    assert built == ["table", "figure", "page"]
    assert files == [tmp_path / name for name in built]


def test_a_run_without_records_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("cells: [a]\n")
    with pytest.raises(UserError, match="no records yet"):
        build_all(RunFolder(tmp_path), REPORTS)


def test_everything_is_written(one: RunFolder) -> None:
    names = ("tradeoff", "dimensions", "losses", "learning-rates", "learning-rate-paths")
    for name in names:
        assert (one.path / "figures" / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
        with Image.open(one.path / "figures" / f"{name}.png") as image:
            assert image.width > 800
    for name in ("main", "cost", "dimensions", "adaptation"):
        assert (one.path / "tables" / f"{name}.csv").exists()
        assert (one.path / "tables" / f"{name}.md").exists()
    text = (one.path / "report.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (one.path / link).exists()


def test_a_second_build_gives_the_same_bytes(one: RunFolder, tmp_path: Path) -> None:
    for report in sorted(REPORTS, key=lambda report: report.kind == "page"):
        for file in report.build(one, tmp_path):
            assert file.read_bytes() == (one.path / file.relative_to(tmp_path)).read_bytes(), file


# --- figures equal the records' ---


def test_main_csv_holds_the_records_figures(one: RunFolder) -> None:
    table = read_csv(one, "main")
    base = next(record for record in one.records() if record.method == "base")
    for record in one.records():
        line = table[record.method]
        for name in ("K.A", "CEM", "CEM repaired", "K.R", "K.R held-out", "old-facts", "HAL"):
            score = score_of(record, name)
            assert score is not None
            assert float(line[name]) == score.value
            assert (float(line[f"{name} low"]), float(line[f"{name} high"])) == (score.low, score.high)
            assert int(line[f"{name} n"]) == score.n
        ka, kr, ka0, kr0 = (value_of(cell, name) for cell in (record, base) for name in ("K.A", "K.R"))
        assert float(line["Avg"]) == pytest.approx((ka + kr) / 2)
        if not record.reference:
            assert float(line["HARS"]) == pytest.approx(hars(ka, kr, ka0, kr0))
            assert float(line["K.R change"]) == pytest.approx(kr - kr0)
            assert line["training data"] == ("augmented" if record.method == "kore" else "plain")
            assert (line["tuned"], float(line["learning rate"])) == ("tuned", 0.003)
    assert table["base"]["HARS"] == table["in-context"]["HARS"] == ""
    assert "| lora | plain | 28.7 (20.6 to 36.8) |" in (one.path / "tables" / "main.md").read_text(encoding="utf-8")


def test_a_measure_comes_from_its_own_task(one: RunFolder) -> None:
    record = next(record for record in one.records() if record.method == "lora")
    alone = record.scores["old-facts"]
    assert score_of(record, "CEM") != alone["CEM"]
    bare = type(record)(**{**vars(record), "scores": {"old-facts": alone}})
    assert score_of(bare, "CEM") is None
    assert score_of(bare, "old-facts") == alone["old-facts"]


def test_seeds_are_averaged_with_spread_and_interval(three: RunFolder) -> None:
    values = [value_of(record, "K.A") for record in three.records() if record.method == "lora"]
    line = read_csv(three, "main")["lora"]
    half = 4.302652729749464 * statistics.stdev(values) / math.sqrt(3)  # Student's t, two degrees of freedom
    assert float(line["K.A"]) == pytest.approx(statistics.fmean(values))
    assert float(line["K.A sd over seeds"]) == pytest.approx(statistics.stdev(values))
    assert float(line["K.A high"]) - float(line["K.A"]) == pytest.approx(half)
    assert line["seeds"] == "0 1 2"


def test_the_base_repeats_nothing_and_keeps_its_bootstrap_interval(three: RunFolder) -> None:
    row = row_of(three, "base")
    assert row.scores["K.R"] == score_of(row.done[0], "K.R")
    assert "K.R" not in row.spread


def test_rotating_skills_are_compared_on_the_same_skills(three: RunFolder) -> None:
    row, base = row_of(three, "lora"), row_of(three, "base")
    expected = []
    for record in row.done:
        skills = record.data["old skills"]
        start = statistics.fmean(base.scores[name].value for name in skills)
        expected.append(record.scores["retention"]["K.R calibrated"].value - start)
    assert len({tuple(record.data["old skills"]) for record in row.done}) > 1
    assert row.change["K.R calibrated"] == pytest.approx(statistics.fmean(expected))


def test_costs_equal_the_records(three: RunFolder) -> None:
    line = read_csv(three, "cost")["kore"]
    cost = row_of(three, "kore").done[0].cost
    assert int(line["trainable_parameters"]) == cost.trainable_parameters
    assert int(line["old_samples"]) == 256
    assert float(line["seconds train"]) == cost.seconds["train"]
    assert float(line["seconds"]) == pytest.approx(sum(cost.seconds.values()))
    text = (three.path / "tables" / "cost.md").read_text(encoding="utf-8")
    assert "| Method | load | data | measure | train | evaluate |" in text


def test_phases_stand_in_the_order_in_which_they_happen() -> None:
    assert in_order(["evaluate", "train", "zeal", "load", "train"]) == ["load", "train", "evaluate", "zeal"]


def test_dimensions_equal_the_records(one: RunFolder) -> None:
    line = read_csv(one, "dimensions")["ewc"]
    for name in DIMENSIONS:
        score = row_of(one, "ewc").done[0].scores["retention"][name]
        assert float(line[name]) == score.value


def test_paired_differences_know_that_questions_are_the_same(one: RunFolder) -> None:
    lora, base = row_of(one, "lora"), row_of(one, "base")
    found = paired(lora, base)
    assert found["K.R"].value == pytest.approx(lora.change["K.R"], abs=0.3)  # predictions are whole questions
    wide = lora.scores["K.R"].high - lora.scores["K.R"].low
    assert found["K.R"].high - found["K.R"].low < wide + base.scores["K.R"].high - base.scores["K.R"].low
    assert paired(base, base)["K.R"] == Score(value=0.0, low=0.0, high=0.0, n=2100)
    assert "K.R" in lora.clear
    assert paired(base, base).keys() == {"K.A", "K.R", *DIMENSIONS}


# --- what is missing is said ---


def test_a_failed_seed_is_shown_with_its_reason(three: RunFolder) -> None:
    line = read_csv(three, "main")["ewc"]
    assert (line["status"], line["reason"]) == ("2 of 3 seeds done", "RuntimeError: loss is not finite at step 17")
    for file in ("tables/main.md", "report.md", "report.html"):
        assert "2 of 3 seeds done: RuntimeError: loss is not finite at step 17" in (three.path / file).read_text(
            "utf-8"
        )


def test_lost_methods_stand_in_every_table_and_figure(hostile: RunFolder) -> None:
    for name in ("main", "cost", "dimensions", "adaptation"):
        table = read_csv(hostile, name)
        assert (table["kore"]["status"], table["replay"]["status"]) == ("failed", "skipped")
        assert table["kore"]["reason"] == REASON
    picture = tradeoff.draw(hostile, summarise(hostile)[0])
    assert picture is not None
    assert "kore (failed)" in picture.caption
    assert "replay (skipped)" in picture.caption


def test_a_cell_without_a_record_is_named(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("lora", "ewc"))
    name = run.name_of(row_of(run, "ewc").done[0])
    shutil.rmtree(run.cell(name))
    assert unfinished(run) == [name]
    build_all(run, [report for report in REPORTS if report.kind == "page"])
    assert name.replace("_", r"\_") in (run.path / "report.md").read_text(encoding="utf-8")
    assert name in (run.path / "report.html").read_text(encoding="utf-8")


def test_without_a_base_hars_says_so(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("lora", "kore"), without=("base",))
    build_all(run, REPORTS)
    line = read_csv(run, "main")["kore"]
    assert (line["HARS"], line["HARS note"], line["K.R change"]) == ("", "n/a: no base", "")
    assert "n/a: no base" in (run.path / "tables" / "main.md").read_text(encoding="utf-8")
    assert not (run.path / "figures" / "dimensions.svg").exists()


def test_without_a_gain_hars_says_so(one: RunFolder) -> None:
    lora, base = row_of(one, "lora"), row_of(one, "base")
    record = type(base.done[0])(**{**vars(base.done[0]), "reference": False})
    worse = Row(one, lora.model, "worse", (record,), (), base)
    assert (worse.hars, worse.hars_note) == (None, "n/a: no gain")
    assert lora.hars is not None


def test_without_tuning_there_is_no_curve_and_no_stale_one(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("lora", "ewc"))
    for report in (learning_rates.REPORT, learning_rate_paths.REPORT):
        files = report.build(run, run.path)
        assert [file.name for file in files] == [f"{report.name}.svg", f"{report.name}.png"]
        tuning = (run.path / "tuning.json").rename(run.path / "tuning.kept")
        assert report.build(run, run.path) == []
        assert not any(file.exists() for file in files)
        tuning.rename(run.path / "tuning.json")


def test_the_whole_tuning_curve_is_drawn(one: RunFolder) -> None:
    summary = summarise(one)[0]
    ewc = next(found for found in trials.tuned(one, summary) if found.method == "ewc")
    assert [trial["learning_rate"] for trial in ewc.chosen] == list(records.RATES)
    assert len(ewc.others) == 1
    assert ewc.best is not None
    assert ewc.best["Avg"] == max(trial["Avg"] for trial in ewc.chosen + ewc.others[0])
    assert ewc.setting == "strength = 1.0"
    picture = learning_rates.draw(one, summary)
    assert picture is not None
    for trial in ewc.chosen:
        assert f"{trial['Avg']:.1f} at {trial['learning_rate']:g}" in picture.alt


def test_losses_of_unlike_data_are_not_drawn_together(one: RunFolder) -> None:
    picture = losses.draw(one, summarise(one)[0])
    assert picture is not None
    lines = {axes.get_title(loc="left"): len(axes.lines) for axes in picture.figure.axes}
    assert lines["kore"] == 2  # its own curve twice: it is alone in its group
    assert lines["lora"] == len(FEW)
    assert "compare losses within a group only" in picture.caption


def test_several_models_get_figures_of_their_own(tmp_path: Path) -> None:
    run = records.write_run(tmp_path / "a", methods=("lora",), tuned=False)
    other = records.write_run(tmp_path / "b", methods=("ewc",), tuned=False, model="mini/qwen".replace("/", " "))
    shutil.copytree(other.path / "cells", run.path / "cells", dirs_exist_ok=True)
    assert tradeoff.REPORT.build(run, run.path)[0].name == "tradeoff.svg"
    cells = [*run.plan()["cells"], *other.plan()["cells"]]
    (run.path / "plan.yaml").write_text("cells: " + str(cells))
    build_all(run, [report for report in REPORTS if report.name in ("tradeoff", "page")])
    names = {file.name for file in (run.path / "figures").glob("tradeoff*.svg")}
    assert names == {"tradeoff--mini-llava.svg", "tradeoff--mini-qwen.svg"}
    assert (run.path / "report.html").read_text(encoding="utf-8").count("Scatter plot of K.A") == 2


# --- the words claim no more than the figures ---


def test_one_seed_claims_no_ranking(one: RunFolder) -> None:
    summary = summarise(one)[0]
    text = " ".join([wording.caution(summary), *wording.reading(summary)])
    assert "no ranking is claimed" in text
    assert not re.search("highest Avg|Pareto front", text)
    picture = tradeoff.draw(one, summary)
    assert picture is not None
    assert "Pareto" not in picture.caption
    assert "best" not in text


def test_overlap_decides_what_is_said(three: RunFolder) -> None:
    summary = summarise(three)[0]
    text = " ".join(wording.reading(summary))
    plain = [row for row in summary.trained if row.training_data == "plain"]
    best = max(plain, key=lambda row: row.scores["Avg"].value)
    for row in plain:
        if row is not best:
            level = text.split("its interval overlaps those of ")[1].split(".")[0]
            assert (row.method in level) != apart(row.scores["Avg"], best.scores["Avg"])
    assert "kore-null minus its control frozen-random" in text
    assert "Seen and unseen skills" in text
    assert f"lora {signed(row_of(three, 'lora').change['old-facts'])}" in text


def test_pareto_front_holds_the_unbeaten(one: RunFolder) -> None:
    front = {row.method for row in pareto(summarise(one)[0].trained)}
    assert front == {"kore-null", "kore"}


@pytest.mark.parametrize("task", ["adaptation", "retention"])
def test_one_task_alone_is_reported(tmp_path: Path, task: str) -> None:
    run = records.write_run(tmp_path, methods=("lora", "kore"))
    for record in run.records():
        run.write(run.name_of(record), replace(record, scores={task: record.scores[task]}))
    build_all(run, [report for report in REPORTS if report.name not in ("losses", "learning-rates")])
    line = read_csv(run, "main")["lora"]
    measured, absent = ("K.A", "K.R") if task == "adaptation" else ("K.R", "K.A")
    assert float(line[measured]) == value_of(row_of(run, "lora").done[0], measured)
    assert (line[absent], line["HARS note"]) == ("", "n/a: not measured")
    assert (run.path / "figures" / "dimensions.svg").exists() == (task == "retention")
    assert "there is nothing to compare" in (run.path / "report.md").read_text(encoding="utf-8")


def test_trials_without_figures_are_left_out(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("lora", "ewc"))
    entries = run.tuning()
    for trial in entries[0]["trials"]:
        trial["K.A"] = None
    entries[1]["trials"][0]["Avg"] = math.nan
    (run.path / "tuning.json").write_text(json.dumps(entries))
    [found] = trials.tuned(run, summarise(run)[0])
    assert found.method == "ewc"
    assert [trial["learning_rate"] for trial in found.chosen] == list(records.RATES[1:])


def test_figures_of_plug_ins_stand_in_the_page(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("lora",), tuned=False)

    def draw(run: RunFolder, summary: Summary) -> drawing.Picture:
        figure = drawing.new_figure(2.0, 2.0)
        return drawing.Picture(title="Mine", caption="My own <caption>.", alt="A & B", figure=figure)

    mine = Report(
        name="mine",
        title="Mine",
        kind="figure",
        build=lambda run, folder: drawing.build_pictures(run, folder, "mine", draw),
    )
    build_all(run, [page.REPORT, mine])
    text = (run.path / "report.html").read_text(encoding="utf-8")
    assert "<figcaption>My own &lt;caption&gt;.</figcaption>" in text
    assert '<img alt="A &amp; B"' in text


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("lora",), failed="lora", tuned=False)
    build_all(run, REPORTS)
    assert "there is nothing to compare" in (run.path / "report.md").read_text(encoding="utf-8")
    assert not list((run.path / "figures").glob("*"))


def test_changes_are_signed() -> None:
    assert [signed(value) for value in (2.34, -2.34, 0.04, -0.04)] == ["+2.3", "\N{MINUS SIGN}2.3", "0.0", "0.0"]


# --- looks ---


def test_methods_look_the_same_everywhere_and_differ() -> None:
    names = ("base", *records.METHODS)
    looks = [drawing.look(name) for name in names]
    assert len({look.colour for look in looks}) == len(names)
    assert drawing.look("ewc+kore-augmentation")[:2] == (
        drawing.look("ewc").colour,
        drawing.look("kore-augmentation").marker,
    )
    assert drawing.look("moelora") == drawing.look("moelora")


@pytest.mark.parametrize("count", [9, 14])
def test_labels_do_not_collide(count: int) -> None:
    figure = drawing.new_figure(8.0, 6.2)
    axes = figure.add_axes((0.1, 0.1, 0.85, 0.85))
    axes.set_xlim(0, 100)
    axes.set_ylim(50, 95)
    random = np.random.default_rng(3)
    points = [
        (float(x), float(y)) for x, y in np.column_stack([random.normal(50, 12, count), random.normal(75, 5, count)])
    ]
    strokes = [(x - 6, y, x + 6, y) for x, y in points] + [(x, y - 2, x, y + 2) for x, y in points]
    place_labels(axes, points, ["replay+kore-augmentation"] * count, strokes=strokes)
    canvas: Any = figure.canvas
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts]
    assert len(boxes) == count
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        assert axes.get_window_extent().contains(*box.min)
        assert axes.get_window_extent().contains(*box.max)
        assert not any(box.contains(*axes.transData.transform(point)) for point in points)


# --- hostile texts ---


def test_figures_carry_hostile_names_as_text(hostile: RunFolder) -> None:
    for file in (hostile.path / "figures").glob("*.svg"):
        text = file.read_text(encoding="utf-8")
        assert "<script" not in text
    figure = (hostile.path / "figures" / "tradeoff.svg").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in figure


def test_markdown_shows_hostile_texts_as_they_are(hostile: RunFolder) -> None:
    text = (hostile.path / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"<\w", text)
    assert escape_markdown("a|b\n<i> *c* _d_ `e` [f] $g$") == r"a\|b &lt;i&gt; \*c\* \_d\_ \`e\` \[f\] \$g\$"
