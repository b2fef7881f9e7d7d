"""Frontiers: the scaled change by hand, points that are kept, and retention at equal adaptation."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import torch
from rich.console import Console

from kore_bench.component import Defaults, fold
from kore_bench.conformance.prepared import mini_card
from kore_bench.errors import UserError
from kore_bench.examples import Knowledge, Question
from kore_bench.frontier import MISSING, SAMPLE, change_of, scaled, tasks_of, trace_cell
from kore_bench.frontier_session import frontier_session
from kore_bench.lmm import LMM
from kore_bench.measures import hars, hars_exchange
from kore_bench.plan import Plan, Request, make_plan
from kore_bench.registry import Registry
from kore_bench.reports.curves import Point, at_levels, curves, frontier, retention_at
from kore_bench.reports.frontier_table import rate_table
from kore_bench.reports.summary import summarise
from kore_bench.results import FRONTIER, RunFolder, whole_lines, write_lines, write_text

module: Any = importlib.import_module("kore_bench.frontier")
records: Any = importlib.import_module("report_records")
LAYER = "model.language_model.layers.2.mlp.down_proj"


@pytest.fixture
def model() -> LMM:
    torch.set_num_threads(1)
    return LMM.load(mini_card())


def trained_lora(folder: Path) -> torch.Tensor:
    """Save a LoRA adapter with factors that are not zero, and return what it adds to one layer."""
    model = LMM.load(mini_card())
    layers = {name: (linear.out_features, linear.in_features) for name, linear in model.linears().items()}
    model.insert_lora(fold(Registry().compose("lora").components, layers, Defaults(rank=4)), projector=False)
    for name in model.lora_layers():
        with torch.no_grad():
            model.factors(name)[1].normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    model.save(folder)
    a, b = model.factors(LAYER)
    product: torch.Tensor = model.lora_layers()[LAYER].scaling["default"] * b @ a
    return product.detach()


def test_half_of_an_adapter_is_half_of_its_product_and_the_base_comes_back(model: LMM, tmp_path: Path) -> None:
    product = trained_lora(tmp_path)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    change = change_of(model, tmp_path)
    assert len(change) == len(model.linears())
    weight = model.linears()[LAYER].weight
    with scaled(model, change, 0.5):
        torch.testing.assert_close(weight.detach(), before[f"{LAYER}.weight"] + 0.5 * product, atol=1e-6, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


def test_half_of_full_fine_tuning_lies_midway(model: LMM, tmp_path: Path) -> None:
    other = LMM.load(mini_card())
    other.unfreeze(projector=False)
    with torch.no_grad():
        for value in other.model.parameters():
            if value.requires_grad:
                value.add_(0.25)
    other.save(tmp_path)
    weight = model.linears()[LAYER].weight
    before = weight.detach().clone()
    with scaled(model, change_of(model, tmp_path), 0.5):
        torch.testing.assert_close(weight.detach(), before + 0.125)
    assert torch.equal(weight, before)


def test_retention_is_read_off_the_best_part_of_the_curve() -> None:
    points = [Point(0, 0, 90), Point(0.5, 20, 80), Point(1, 60, 40)]
    assert retention_at(points, 10) == 85
    assert retention_at(points, 20) == 80
    assert retention_at(points, 40) == 60
    assert retention_at(points, 61) is None
    turning = [Point(0, 0, 90), Point(0.5, 60, 80), Point(1, 40, 30)]
    assert retention_at(turning, 50) == pytest.approx(90 - 10 * 50 / 60)


def test_the_exchange_rate_of_hars_is_the_ratio_of_its_slopes() -> None:
    at, step = (35.96, 40.0, 7.12, 46.74), 1e-5
    here = hars(*at)
    more_a, more_r = hars(at[0] + step, *at[1:]), hars(at[0], at[1] + step, *at[2:])
    assert here
    assert more_a
    assert more_r
    assert hars_exchange(*at) == pytest.approx((more_r - here) / (more_a - here), rel=1e-3)
    assert hars_exchange(5, 40, 7.12, 46.74) is None


@pytest.mark.parametrize("scale", [0.0, 1.0, -0.5, 1.5])
def test_scales_lie_between_the_base_and_the_cell(scale: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--scales"):
        frontier_session(tmp_path, (), (scale,), Console())


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        frontier_session(tmp_path / "none", (), (0.5,), Console())


# --- points within a run ---


def planned(*scales: float, **options: Any) -> Plan:
    return make_plan(Request(methods=("lora",), frontier=scales, **options))


def test_a_point_is_asked_a_sample_and_no_more_than_the_run(tmp_path: Path) -> None:
    assert {task.card.name: task.limit for task in tasks_of(planned(0.5), sample=True)} == SAMPLE
    assert [task.limit for task in tasks_of(planned(0.5, limit=40), sample=True)] == [40, 40]
    assert [task.limit for task in tasks_of(planned(0.5), sample=False)] == [0, 0]
    assert tasks_of(planned(0.5, tasks=("retention",)), sample=True) == ()


def traced(plan: Plan, cell: Path, knowledge: Knowledge) -> dict[str, Any]:
    return trace_cell(plan, knowledge, cell, cell / "adapter", frozenset({"COM"}), lambda done, total: None)


def test_points_that_stand_are_not_asked_again_and_a_reason_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[float]] = []

    def trace(*given: Any) -> Iterator[dict[str, float]]:
        asked.append(list(given[6]))
        yield from ()

    monkeypatch.setattr(module, "trace", trace)
    monkeypatch.setattr(module.LMM, "load", lambda card, length: None)
    question = Question(id="q", images=(), text="?", answer="a", type="COM")
    knowledge = Knowledge(root=tmp_path, digest="", items=(), questions=(question,), old={}, retention=(question,))
    assert traced(planned(0.5, 0.75), tmp_path, knowledge) == {}
    write_lines(tmp_path / FRONTIER, [{"scale": 0.5}])
    assert traced(planned(0.5, 0.75), tmp_path, knowledge) == {}
    write_lines(tmp_path / FRONTIER, [{"scale": 0.5}, {"scale": 0.75}])
    assert traced(planned(0.5, 0.75), tmp_path, knowledge) == {}
    assert asked == [[0.5, 0.75], [0.75]]

    def broken(*given: Any) -> Iterator[dict[str, float]]:
        raise ValueError("its adapter cannot be merged\ninto the weights")
        yield

    monkeypatch.setattr(module, "trace", broken)
    assert traced(planned(0.25), tmp_path, knowledge) == {MISSING: "its adapter cannot be merged into the weights"}
    (without,) = traced(planned(0.25, tasks=("retention",)), tmp_path, knowledge).values()
    assert without == "it takes both adaptation and retention"


# --- curves ---


def sampled_run(folder: Path, *, seeds: tuple[int, ...] = (0,), full: bool = False) -> RunFolder:
    """Write a run of base and lora with a point at half of lora's change, asked 100 and 70 of the questions."""
    run: RunFolder = records.write_run(folder, seeds=seeds, methods=("lora",), tuned=False)
    for record in run.records():
        if record.method != "lora":
            continue
        cell = run.cell(run.name_of(record))
        sizes = {"K.A": 300, "K.R": 2100} if full else {"K.A": 100, "K.R": 70}
        point = {name: {"value": 50.0, "low": 40.0, "high": 60.0, "n": n} for name, n in sizes.items()}
        write_lines(cell / FRONTIER, [{"scale": 0.5, **point}])
        for task in ("adaptation", "retention"):
            rows = run.predictions(record, task)
            kept = rows[:100] if task == "adaptation" else [row for row in rows if int(row["id"].split("-")[-1]) < 10]
            write_lines(cell / "frontier" / "0.5" / "predictions" / f"{task}.jsonl", kept)
    return run


def test_a_sampled_point_is_moved_by_what_the_sample_lacks_at_the_ends(tmp_path: Path) -> None:
    run = sampled_run(tmp_path)
    (row,) = summarise(run)[0].trained
    records_ = {record.method: record for record in run.records()}

    def mean(method: str, task: str) -> float:
        """Return the score on the sample, straight from the answers."""
        rows = run.predictions(records_[method], task)
        if task == "adaptation":
            return float(sum(one["correct"] for one in rows[:100]))
        chosen = [one for one in rows if int(one["id"].split("-")[-1]) < 10]
        return float(100 * sum(one["correct"] for one in chosen) / 70)  # ten of each of seven skills

    expected = []
    for name, task in (("K.A", "adaptation"), ("K.R", "retention")):
        ends = [(records_[method].score(name), mean(method, task)) for method in ("base", "lora")]
        lacking = [score.value - sampled for score, sampled in ends if score]
        expected.append(50 + (lacking[0] + lacking[1]) / 2)
    middle = frontier(run, row)[1]
    assert (middle.ka, middle.kr) == pytest.approx(expected)
    assert middle.ka != 50


def test_a_point_on_all_questions_stands_as_it_is_and_seeds_have_curves_of_their_own(tmp_path: Path) -> None:
    run = sampled_run(tmp_path, seeds=(0, 1), full=True)
    (row,) = summarise(run)[0].trained
    assert [points[1] for points in curves(run, row).values()] == [Point(0.5, 50.0, 50.0)] * 2
    ends = [points[2] for points in curves(run, row).values()]
    assert ends[0] != ends[1]
    found = at_levels(run, row, (20, 90))
    each = [retention_at(points, 20) for points in curves(run, row).values()]
    assert list(found) == [20]
    assert found[20] == pytest.approx((retention_at(frontier(run, row), 20), stdev(filter(None, each))))


def test_the_figure_has_twin_panels_where_points_tell_seen_skills_from_others(tmp_path: Path) -> None:
    run = sampled_run(tmp_path, full=True)
    (figure,) = figure_of(run)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["K.R: all skills"]
    (record,) = [record for record in run.records() if record.method == "lora"]
    file = run.cell(run.name_of(record)) / FRONTIER
    (point,) = whole_lines(file)
    write_lines(file, [{**point, "K.R calibrated": point["K.R"], "K.R held-out": point["K.R"]}])
    (figure,) = figure_of(run)
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == ["K.R calibrated", "K.R held-out"]
    assert all(any(type(patch).__name__ == "Ellipse" for patch in axes.patches) for axes in figure.axes)
    texts = {text.get_text() for text in figure.texts}
    assert {"lora", "base"} <= texts
    assert any("in-context" in text.get_text() for axes in figure.axes for text in axes.texts)


def figure_of(run: RunFolder) -> list[Any]:
    draw = Registry().find("reports", "frontier").draw
    assert draw is not None
    return list(draw(run))


def test_the_learning_rate_curve_is_read_off_the_trials_of_tuning(tmp_path: Path) -> None:
    run: RunFolder = records.write_run(tmp_path, methods=("lora",))
    trial = {"settings": {}, "Avg": 50.0}
    points = ((0.01, 30.0, 60.0), (0.001, 10.0, 90.0), (0.1, 20.0, 20.0))
    trials = [{**trial, "learning_rate": rate, "K.A": ka, "K.R": kr} for rate, ka, kr in points]
    entry = {"method": "lora", "model": "mini-llava", "budget": "b", "trials": trials, "chosen": trials[0]}
    write_text(tmp_path / "tuning.json", json.dumps([entry]))
    table = rate_table(run, summarise(run)[0])
    assert table is not None
    assert table.header == ("Method", "K.A 10", "K.A 20", "K.A 30")
    assert [cell.text for cell in table.rows[0]] == ["lora", "90.0", "75.0", "60.0"]
    assert "validation" in table.title
    (tmp_path / "tuning.json").unlink()
    assert rate_table(run, summarise(run)[0]) is None
