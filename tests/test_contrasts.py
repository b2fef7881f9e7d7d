"""Tests of contrasts named beforehand, the levels of the bootstrap, and the smallest detectable difference."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from kore_bench import paired
from kore_bench.cli import main
from kore_bench.comparison import Comparison, compare
from kore_bench.contrasts import DEFAULT_CONTRASTS, check_contrasts, contrast
from kore_bench.errors import UserError
from kore_bench.examples import Question
from kore_bench.formats.evoke import by_image
from kore_bench.measures import bootstrap_mean_of_means
from kore_bench.options import CONTRASTS, SCALES
from kore_bench.paired import Floats
from kore_bench.registry import Registry
from kore_bench.report import TableStyle
from kore_bench.results import RunFolder, write_text
from kore_bench.sheet import Asked, Sheet, make_sheet

records: Any = importlib.import_module("report_records")
NAN = float("nan")


def facts(*groups: str, task: str = "adaptation") -> list[Asked]:
    return [Asked(task, str(number), "plant", group, f"q{number}?", "a") for number, group in enumerate(groups)]


def made(gaps: Floats, draws: tuple[int, ...] = ()) -> Sheet:
    """Return a sheet on which ``one`` beats ``other`` by ``gaps[S, question]`` on entities of their own."""
    questions = facts(*(f"e{number}" for number in range(gaps.shape[1])))
    values = np.stack([0.5 + gaps / 2, 0.5 - gaps / 2])
    return make_sheet(("one", "other"), tuple(range(len(gaps))), tuple(questions), values, draws)


def only(sheet: Sheet) -> Comparison:
    (row,) = compare(sheet, [("one", "other")])
    return row


# --- which contrasts ---


def test_a_contrast_is_two_methods() -> None:
    assert contrast(" kore / ewc+replay ") == ("kore", "ewc+replay")
    for text in ("kore", "kore/", "/lora", "kore/lora/ewc", "kore/kore"):
        with pytest.raises(UserError, match="such as kore/lora"):
            contrast(text)


def test_contrasts_are_of_the_run_and_named_once() -> None:
    check_contrasts(DEFAULT_CONTRASTS, ("base", "dora"))
    check_contrasts(("kore/base",), ("base", "kore"))
    with pytest.raises(UserError, match="'kroe' is no method of this run: did you mean 'kore'"):
        check_contrasts(("kroe/base",), ("base", "kore"))
    with pytest.raises(UserError, match=r"kore/lora twice"):
        check_contrasts(("kore/lora", "lora/kore"), ("kore", "lora"))


def test_the_defaults_of_the_command_are_those_of_the_engine() -> None:
    assert tuple(part.strip() for part in CONTRASTS.split(",")) == DEFAULT_CONTRASTS
    assert SCALES == "0.5,0.75"


def test_a_mistaken_contrast_or_scale_is_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, words in (
        (
            ("--methods", "lora,full", "--contrasts", "lora/fulll"),
            "'fulll' is no method of this run: did you mean 'full'?",
        ),
        (("--methods", "lora", "--frontier", "1.5"), "--frontier 1.5 is out of range"),
        (("--methods", "lora", "--frontier", "half"), "--frontier half are no numbers"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["run", "--runs", str(tmp_path), *options])
        assert ended.value.code == 2
        assert words in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


# --- Holm over what was named ---


def test_holm_is_over_the_named_contrasts_whichever_are_shown() -> None:
    random = np.random.default_rng(0)
    questions = facts(*(f"e{number // 2}" for number in range(80)))
    shares = {"a": 0.8, "b": 0.5, "c": 0.45, "d": 0.3}
    values = np.stack([random.random((1, 80)) < share for share in shares.values()]).astype(float)
    sheet = make_sheet(tuple(shares), (0,), tuple(questions), values)
    planned = [("a", "b"), ("b", "c"), ("c", "d")]
    rows = {(row.one, row.other): row for row in compare(sheet, planned, planned)}
    raw = sorted(row.p_questions for row in rows.values())
    by_hand, last = [], 0.0
    for place, p in enumerate(raw):  # 3 p1, 2 p2, 1 p3, none below the one before
        last = max(last, min(1.0, (3 - place) * p))
        by_hand.append(last)
    assert sorted(row.holm_questions for row in rows.values()) == pytest.approx(by_hand)
    assert all(row.planned for row in rows.values())
    (alone,) = compare(sheet, [("b", "a")], planned)  # the mirror image is the same question
    assert alone.planned
    assert alone.holm_questions == pytest.approx(rows["a", "b"].holm_questions)
    one, other = compare(sheet, [("a", "b"), ("a", "d")], planned)
    assert (one.planned, other.planned) == (True, False)
    assert other.holm_questions == pytest.approx(other.p_questions)  # the only exploratory one


def test_dimensions_and_other_tasks_of_a_named_contrast_are_exploratory() -> None:
    questions = [*facts("a", "b"), *facts("a", "b", task="old-facts")]
    sheet = make_sheet(("k", "l"), (0,), tuple(questions), np.array([[[1.0, 1, 0, 1]], [[1.0, 0, 1, 1]]]))
    assert {row.measure: row.planned for row in compare(sheet, [("k", "l")], [("k", "l")])} == {
        "K.A": True, "old-facts": False,
    }  # fmt: skip


# --- the smallest detectable difference ---


def test_the_detectable_difference_of_one_seed_is_that_of_a_paired_t_test() -> None:
    gaps = np.random.default_rng(1).normal(0, 0.3, (1, 50)).clip(-1, 1)
    error = gaps.std(ddof=1) / 50**0.5
    expected = 100 * error * (stats.t.ppf(0.975, 49) + stats.t.ppf(0.8, 49))
    assert only(made(gaps)).detectable == pytest.approx(expected)


def test_the_detectable_difference_is_found_four_times_of_five() -> None:
    random = np.random.default_rng(2)
    seeds, clusters, over_seeds, over_questions = 4, 60, 0.05, 0.2
    spread = (over_seeds**2 / seeds + 0.02**2 / seeds / clusters) ** 0.5, over_questions / clusters**0.5
    true = sum(np.hypot(spread[0] * stats.t.ppf(tail, 3), spread[1] * stats.t.ppf(tail, 59)) for tail in (0.975, 0.8))
    found = []
    for _ in range(400):
        gaps = true + random.normal(0, over_seeds, (seeds, 1)) + random.normal(0, over_questions, (1, clusters))
        gaps = gaps + random.normal(0, 0.02, (seeds, clusters))
        by_seed = gaps.mean(axis=1)
        spread_ = paired.spread_of(by_seed, (gaps - by_seed[:, None]) / clusters, np.zeros(clusters, dtype=np.int64))
        assert spread_
        found.append(spread_.half_width(0.025) < by_seed.mean())
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


# --- the hierarchical bootstrap ---


def test_levels_are_drawn_within_each_other() -> None:
    drawn = paired.levels_drawn((0, 0, 1, 1), np.random.default_rng(3), 4000)
    assert drawn.sum(axis=1) == pytest.approx(np.ones(4000))
    by_draw = drawn.reshape(4000, 2, 2).sum(axis=2)
    assert sorted(np.unique(by_draw).tolist()) == [0, 0.5, 1]  # a draw comes once, twice or not at all
    assert np.mean(by_draw[:, 0] == 0.5) == pytest.approx(0.5, abs=0.03)
    fixed = paired.levels_drawn((7, 7, 7), np.random.default_rng(3), 4000)
    assert fixed.var(axis=0) == pytest.approx(np.full(3, 2 / 27), rel=0.1)  # of a share of three of three draws


def coverage(seeds: int, draws: tuple[int, ...] = (), of_draws: float = 0.0) -> tuple[float, float]:
    """Return how often 0 lies in the hierarchical bootstrap's interval and in that by variances, in 120 simulations."""
    random = np.random.default_rng(4)
    clusters, inside = 30, []
    names, member = np.unique(np.asarray(draws or (0,) * seeds), return_inverse=True)
    for _ in range(120):
        if len(names) > 1:
            gaps = np.full((seeds, clusters * len(names)), NAN)
            for name in range(len(names)):
                shared = random.normal(0, of_draws) + random.normal(0, 0.15, (1, clusters))
                rows = np.flatnonzero(member == name)
                own = random.normal(0, 0.03, (len(rows), 1)) + random.normal(0, 0.05, (len(rows), clusters))
                gaps[np.ix_(rows, np.arange(clusters) + clusters * name)] = shared + own
        else:
            gaps = random.normal(0, 0.05, (seeds, 1)) + random.normal(0, 0.15, (1, clusters))
            gaps = gaps + random.normal(0, 0.05, (seeds, clusters))
        row = only(made(gaps, draws))
        assert row.bootstrap
        assert row.overall
        inside.append((row.bootstrap[0] <= 0 <= row.bootstrap[1], row.overall[0] <= 0 <= row.overall[1]))
    return float(np.mean([one for one, _ in inside])), float(np.mean([other for _, other in inside]))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "flipped", lambda share, seed: np.zeros((1, share.shape[1])))


def test_the_bootstrap_covers_with_many_seeds_and_too_little_with_three(quick: None) -> None:
    many, by_variances = coverage(12)
    assert many >= 0.89
    assert by_variances >= 0.93
    few, by_variances = coverage(3)
    assert few < by_variances
    assert by_variances >= 0.93


def test_seeds_that_share_a_draw_are_no_repetitions_of_it(quick: None) -> None:
    bootstrap, by_variances = coverage(12, (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5), of_draws=0.2)
    assert bootstrap >= 0.83
    assert by_variances >= 0.92
    taken_apart, _ = coverage(12, tuple(range(12)), of_draws=0.2)
    assert taken_apart >= 0.88


def test_entities_of_one_name_in_two_draws_are_two(quick: None) -> None:
    questions = [Asked("adaptation", f"{draw}-{n}", "", f"e{n}", "q?", "a") for draw in (0, 1) for n in range(3)]
    values = np.array(
        [[[1, 0, 1, NAN, NAN, NAN], [NAN, NAN, NAN, 1, 1, 0]], [[0] * 3 + [NAN] * 3, [NAN] * 3 + [0] * 3]]
    )
    sheet = make_sheet(("one", "other"), (0, 1), tuple(questions), values.astype(float), (0, 1))
    assert len(sheet.owner) == 6
    row = only(sheet)
    assert (row.draws, row.clusters) == (2, 6)
    shared = make_sheet(("one", "other"), (0, 1), tuple(questions), values.astype(float))
    assert len(shared.owner) == 3


def test_a_lower_figure_is_better_where_the_task_says_so() -> None:
    values = np.array([[[1.0] * 40] * 2, [[0.0] * 40] * 2])
    questions = tuple(facts(*map(str, range(40)), task="spill-over"))
    sheet = make_sheet(("one", "other"), (0, 1), questions, values, falling=frozenset({"spill-over"}))
    assert only(sheet).winner == "other"


# --- one seed ---


def bold(text: str) -> list[str]:
    """Return what is set off in Markdown, HTML or LaTeX beside titles, leads and column heads."""
    return re.findall(r"\| \*\*[^|]*\*\*|<ins>|<td[^>]*><b|class=\"next\"|\\textbf|\\underline", text)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_with_one_seed_nothing_is_set_off_and_nobody_ranked(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    run: RunFolder = records.write_run(tmp_path, seeds=seeds, methods=("kore", "lora", "ewc", "full"))
    plan = run.plan()
    plan["request"]["contrasts"] = ["kore/lora", "kore/ewc"]
    write_text(tmp_path / "plan.yaml", yaml.safe_dump(plan))
    reports = {name: found.value for name, found in Registry().all("reports").items()}
    for report in sorted(reports.values(), key=lambda report: report.kind == "page"):
        report.build(run, tmp_path)
    texts = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.[mth][dte]*") if file.is_file()}
    texts["plain"] = reports["paper-table"].render(run, TableStyle(format="text"))
    set_off = {name: bold(text) for name, text in texts.items() if bold(text)}
    page = texts["report.md"]
    assert "Contrasts named beforehand" in page
    assert page.index("Contrasts named beforehand") < page.index("## Adaptation and retention")
    if len(seeds) == 1:
        assert set_off == {}
        assert not re.search(r"highest Avg|Pareto", page)
        assert not re.search(r" \*\d", texts["plain"])
        ranks = [line.split(",") for line in (tmp_path / "tables" / "paper.csv").read_text().splitlines()]
        assert {row[ranks[0].index("K.A rank")] for row in ranks[1:]} == {""}
    else:
        assert {"paper.md", "paper.tex"} <= set(set_off)
        assert "Pareto" in page


def test_compare_names_no_winner_from_one_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run: RunFolder = records.write_run(tmp_path, methods=("kore", "lora"))
    plan = run.plan()
    plan["request"]["contrasts"] = ["kore/lora"]
    write_text(run.path / "plan.yaml", yaml.safe_dump(plan))
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path), "--questions", "0"])
    shown = capsys.readouterr().out
    (ka,) = [line for line in shown.splitlines() if line.startswith("K.A †")]
    assert "kore" not in ka
    assert "kore against lora" in shown
    assert "better" not in shown
    assert "detectable" in shown


# --- clusters of one score ---


def test_questions_about_one_image_are_resampled_together() -> None:
    values = np.random.default_rng(5).integers(2, size=60).repeat(5).astype(float).tolist()
    alone = bootstrap_mean_of_means({"HAL": values})
    images = [str(number // 5) for number in range(300)]
    together = bootstrap_mean_of_means({"HAL": values}, {"HAL": images})
    assert together.value == alone.value
    assert together.high - together.low == pytest.approx(5**0.5 * (alone.high - alone.low), rel=0.12)
    same = bootstrap_mean_of_means({"HAL": values}, {"HAL": ["one"] * 300})
    assert (same.low, same.high) == (0, 100)


def test_retention_questions_of_one_image_are_one_group(tmp_path: Path) -> None:
    asked = [
        Question(id=str(n), images=(tmp_path / f"{n // 2}.png",), text="?", answer="yes", type="HAL") for n in range(6)
    ]
    asked += [Question(id=f"text {n}", images=(), text="?", answer="yes", type="MAT") for n in range(2)]
    assert [question.group for question in by_image(asked)] == ["0", "0", "2", "2", "4", "4", "text 0", "text 1"]
