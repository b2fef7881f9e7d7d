"""Reports over benchmarks of retention: which make K.R, what was left out, sampled or graded, the paper's beside."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kore_bench.benchmarks import differences, leave_one_out, pool
from kore_bench.measures import Score
from kore_bench.report import TableStyle, build_all
from kore_bench.reports import benchmarks_table, dimensions_table, main_table, paper_table, paper_table_fine, retained
from kore_bench.reports.content import Bullets, content
from kore_bench.reports.paper import counterparts, paper_rows
from kore_bench.reports.summary import BENCHMARKS, Row, Summary, summarise
from kore_bench.reports.tabular import Table, signed
from kore_bench.results import POOLED, Outcome, Record, RunFolder, write_text

records: Any = importlib.import_module("report_records")

CARDS = {  # task -> headline figure, dimension, whether a judge grades it
    "mme": ("MME", "COM", False),
    "pope": ("POPE", "HAL", False),
    "hallusionbench": ("HallusionBench", "HAL", False),
    "mathvista": ("MathVista", "MAT", True),
}
BASE = {"mme": 70.0, "pope": 80.0, "hallusionbench": 30.0, "mathvista": 20.0}
LORA = {"mme": 40.0, "pope": 60.0, "hallusionbench": 20.0, "mathvista": 10.0}
KORE = {"mme": 66.0, "pope": 78.0, "hallusionbench": 28.0, "mathvista": 16.0}
SCORES: Mapping[str, Mapping[str, float]] = {"base": BASE, "in-context": BASE, "lora": LORA, "kore": KORE}
DOWN = "the judge grader at http://localhost:1/v1 cannot be reached"


def scored(task: str, value: float) -> dict[str, Score]:
    return {CARDS[task][0]: Score(value=value, low=value - 2, high=value + 2, n=50), "other": records._score(1.0, 5)}


def with_benchmarks(record: Record, *, failed: tuple[str, ...], judge: str, limit: int) -> Record:
    """Return a record with the benchmarks in the place of the mini world's retention, as a cell leaves them."""
    scores = {"adaptation": record.scores["adaptation"]}
    tasks = {"adaptation": Outcome(metric="K.A", limit=limit)}
    for task, (metric, dimension, judged) in CARDS.items():
        tasks[task] = Outcome(metric=metric, dimension=dimension, judge=judge * judged, limit=limit)
        if judged and not judge:
            tasks[task] = replace(tasks[task], status="skipped", reason="it needs a judge (--judge NAME)")
        elif task in failed:
            tasks[task] = replace(tasks[task], status="failed", reason=DOWN)
        else:
            scores[task] = scored(task, SCORES[record.method][task] + record.seed)
    return replace(record, scores=scores | {POOLED: pool(scores, tasks)}, tasks=tasks, data={"root": "EVOKE"})


def make(
    path: Path,
    *,
    failed: tuple[str, ...] = (),
    judge: str = "",
    limit: int = 0,
    note: str = "",
    model: str = "llava-7b",
    seeds: int = 1,
) -> RunFolder:
    """Write a run; in the last seed of kore the ``failed`` tasks failed."""
    run: RunFolder = records.write_run(path, methods=("lora", "kore"), seeds=range(seeds), model=model, tuned=False)
    for record in run.records():
        lost = failed if (record.method, record.seed) == ("kore", seeds - 1) else ()
        changed = with_benchmarks(record, failed=lost, judge=judge, limit=limit)
        if note:
            changed = replace(changed, tasks={**changed.tasks, "mme": replace(changed.tasks["mme"], note=note)})
        run.write(run.name_of(record), changed)
        for file in (run.cell(run.name_of(record)) / "predictions").glob("retention.jsonl"):
            file.unlink()
    plan = run.plan()
    plan["request"]["data"] = "/data/EVOKE"
    write_text(path / "plan.yaml", yaml.safe_dump(plan, sort_keys=False))
    return run


def only(run: RunFolder) -> Summary:
    (summary,) = summarise(run)
    return summary


def row(summary: Summary, method: str) -> Row:
    return next(one for one in summary.rows if one.method == method)


def value(summary: Summary, method: str, measure: str) -> float:
    return float(row(summary, method).scores[measure].value)


def test_kr_is_over_what_ran_and_the_tables_say_what_did_not(tmp_path: Path) -> None:
    summary = only(make(tmp_path / "run"))
    assert summary.benchmarks == ["mme", "pope", "hallusionbench"]
    assert value(summary, "kore", "K.R") == pytest.approx((66 + 78 + 28) / 3)
    assert value(summary, "kore", "HAL") == 53.0
    assert row(summary, "kore").change["K.R"] == pytest.approx(-8 / 3)
    assert "MAT" not in row(summary, "kore").scores
    average = (value(summary, "kore", "K.A") + value(summary, "kore", "K.R")) / 2
    assert value(summary, "kore", "Avg") == pytest.approx(average)
    assert row(summary, "kore").hars is not None
    sentences = (
        "K.R is the mean of 3 of the paper's twelve benchmarks: MME, POPE and HallusionBench.",
        "Skipped: MathVista (it needs a judge (--judge NAME)).",
    )
    for table in (main_table.table(summary), dimensions_table.table(summary), benchmarks_table.table(summary)):
        assert set(sentences) <= set(table.notes), table.title
        assert not any(mark in "".join(table.header) for mark in (retained.SAMPLE, retained.GRADED))
        assert "K.R without judge" not in table.header
    assert benchmarks_table.table(summary).header == (
        "Method",
        "MME",
        "POPE",
        "HallusionBench",
        "K.R",
        "K.R, one left out",
    )


def test_a_benchmark_that_failed_somewhere_counts_for_no_method(tmp_path: Path) -> None:
    run = make(tmp_path / "run", failed=("pope",), seeds=2)
    summary = only(run)
    assert summary.benchmarks == ["mme", "hallusionbench"]
    assert value(summary, "kore", "K.R") == pytest.approx((66 + 28) / 2 + 0.5)
    assert value(summary, "lora", "K.R") == pytest.approx((40 + 20) / 2 + 0.5)
    assert value(summary, "lora", "HAL") == 20.5
    note = f"POPE failed in kore, seed 1 ({DOWN}); K.R leaves it out for every method."
    for table in (main_table.table(summary), dimensions_table.table(summary), benchmarks_table.table(summary)):
        assert note in table.notes
        (cell,) = (cells[0] for cells in table.rows if cells[0].text == "kore")
        assert cell.note == f"pope failed: {DOWN}"
    assert "POPE" in benchmarks_table.table(summary).header, "what was scored elsewhere stays to be seen"
    for style in (TableStyle(), TableStyle(format="markdown"), TableStyle(format="text")):
        assert "K.R leaves it out for every method" in paper_table.TABLE.render(run, style)
        assert "K.R leaves it out for every method" in paper_table_fine.TABLE.render(run, style)
    words = [block for block in content(run, run.path) if isinstance(block, Bullets)]
    assert any(("POPE", f"{DOWN} (kore, seed 1)") in block.items for block in words)


def test_a_task_that_is_no_benchmark_fails_without_a_word_on_kr(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    for record in run.records():
        if record.method == "kore":
            lost = Outcome(status="failed", reason="broken", metric="lm-eval:x")
            run.write(run.name_of(record), replace(record, tasks={**record.tasks, "lm-eval:x": lost}))
    assert "lm-eval:x failed in kore, seed 0 (broken)." in main_table.table(only(run)).notes


def test_judged_figures_name_the_judge_and_kr_stands_without_them_too(tmp_path: Path) -> None:
    run = make(tmp_path / "run", judge="grader-9b")
    summary = only(run)
    assert value(summary, "kore", "K.R") == pytest.approx((66 + 78 + 28 + 16) / 4)
    assert value(summary, "kore", "K.R without judge") == pytest.approx((66 + 78 + 28) / 3)
    table = main_table.table(summary)
    assert table.header[2:7] == ("K.A", "K.R‡", "K.R without judge", "Avg‡", "HARS‡")
    assert "‡ Graded by grader-9b: MathVista." in table.notes
    (cells,) = (cells for cells in table.rows if cells[0].text == "kore")
    assert cells[4].text == "57.3"
    assert dimensions_table.table(summary).header == ("Method", *records.DIMENSIONS[:5], "MAT‡", "HAL", "K.R‡")
    assert "MathVista‡" in benchmarks_table.table(summary).header
    for record in run.records():
        counts = {"mathvista/judge unparsable": 2, "mathvista/judge failed": 1, "mathvista/judge asked": 50}
        run.write(run.name_of(record), replace(record, diagnostics=counts))
    said = "‡ Graded by grader-9b: MathVista (replies: 8 unreadable, 4 refused)."
    assert said in main_table.table(only(run)).notes
    text = paper_table_fine.TABLE.render(run, TableStyle())
    assert r"MathVista$^\ddagger$" in text
    assert "Graded by grader-9b" in text
    assert "K.R‡" in paper_table.TABLE.render(run, TableStyle(format="markdown"))


def test_samples_are_marked_wherever_they_stand(tmp_path: Path) -> None:
    run = make(tmp_path / "run", limit=50, note="12 calibration items are in it")
    summary = only(run)
    table = main_table.table(summary)
    assert table.header[2:6] == ("K.A†", "K.R†", "Avg†", "HARS†")
    said = "† From a sample of about 50 questions of each task, the same for every method: the intervals are wider."
    assert said in table.notes
    assert "MME: 12 calibration items are in it." in table.notes
    (kore,) = (record for record in run.records() if record.method == "kore")
    leaks = replace(kore.tasks["mme"], note="3 of its questions are among the old samples that the method read")
    run.write(run.name_of(kore), replace(kore, tasks={**kore.tasks, "mme": leaks}))
    assert [note for note in main_table.table(only(run)).notes if note.startswith("MME")] == [
        "MME: 12 calibration items are in it (base, in-context and lora).",
        "MME: 3 of its questions are among the old samples that the method read (kore).",
    ]
    assert "MME†" in benchmarks_table.table(summary).header
    assert said in benchmarks_table.table(summary).notes
    assert r"K.R$^\dagger$" in paper_table.TABLE.render(run, TableStyle())
    (line, *_) = benchmarks_table.figures([summary])
    assert (line["K.R over"], line["limit"], line["judge"]) == ("MME POPE HallusionBench", 50, "")
    for record in run.records():
        other = replace(record.tasks["pope"], limit=9)
        run.write(run.name_of(record), replace(record, tasks={**record.tasks, "pope": other}))
    assert any("about 50 of MME, 9 of POPE and 50 of HallusionBench," in note for note in retained.notes(
        only(run), ("K.R",)
    ))  # fmt: skip


def test_a_run_whose_benchmarks_all_failed_says_so(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    for record in run.records():
        tasks = {name: replace(one, status="failed", reason=DOWN) for name, one in record.tasks.items()}
        tasks["adaptation"] = record.tasks["adaptation"]
        scores = {"adaptation": record.scores["adaptation"]}
        run.write(run.name_of(record), replace(record, tasks=tasks, scores=scores))
    table = main_table.table(only(run))
    assert f"POPE failed in 4 cells ({DOWN})." in table.notes
    assert not any("mean of" in note for note in retained.notes(only(run), ("K.R",)))
    assert benchmarks_table.tables(only(run)) == []


def test_the_papers_figures_are_over_the_same_benchmarks(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    summary = only(run)
    paper = counterparts(run, summary)["base"].figures
    assert paper["K.R"] == pytest.approx((66.63 + 86.87 + 21.76) / 3)
    assert paper["HAL"] == pytest.approx((86.87 + 21.76) / 2)
    assert paper["COM"] == 66.63
    assert not {"HARS", "MAT"} & paper.keys()
    assert paper["Avg"] == pytest.approx((paper["K.A"] + paper["K.R"]) / 2)
    text = paper_table.TABLE.render(run, TableStyle(format="text"))
    said = "Their means are taken over the same 3 benchmarks, and their HARS is left out."
    assert said in text
    assert said not in paper_table_fine.TABLE.render(run, TableStyle(format="text")), "it has no mean"


def test_all_twelve_are_the_papers_kr(tmp_path: Path) -> None:
    run = make(tmp_path / "run", judge="grader")
    dimensions = {name: dimension for dimension, names in BENCHMARKS.items() for name in names}
    for record in run.records():
        scores: Any = {name: {name: records._score(50.0 + place, 40)} for place, name in enumerate(dimensions)}
        tasks = {name: Outcome(metric=name, dimension=dimension) for name, dimension in dimensions.items()}
        scores |= {"adaptation": record.scores["adaptation"]}
        run.write(run.name_of(record), replace(record, scores=scores | {POOLED: pool(scores, tasks)}, tasks=tasks))
    summary = only(run)
    assert "K.R is the mean of the paper's twelve benchmarks." in main_table.table(summary).notes
    assert value(summary, "kore", "K.R") == pytest.approx(55.5)
    assert counterparts(run, summary)["base"].figures["K.R"] == 46.74


def test_the_whole_report_is_written_and_hostile_reasons_stay_text(tmp_path: Path) -> None:
    run = make(tmp_path / "run", failed=("pope",), judge="<b>grader</b>", limit=50)
    reports: Any = importlib.import_module("kore_bench.registry").Registry()
    files = build_all(run, [reports.find("reports", name) for name in reports.all("reports")])
    page = (run.path / "report.html").read_text()
    assert "<b>grader</b>" not in page
    assert "&lt;b&gt;grader&lt;/b&gt;" in page
    assert "Not every task was scored" in page
    assert run.path / "tables" / "benchmarks.csv" in files
    assert "Retention by benchmark" in (run.path / "report.md").read_text()


def test_a_run_without_benchmarks_has_no_table_of_them(tmp_path: Path) -> None:
    run: RunFolder = records.write_run(tmp_path / "run", methods=("lora",))
    summary = only(run)
    assert benchmarks_table.REPORT.build(run, run.path) == []
    assert list(retained.notes(summary, ("K.A", "K.R", "Avg"))) == []
    titles = [block.title for block in content(run, run.path) if isinstance(block, Table)]
    assert not any("benchmark" in title for title in titles)


def test_a_lead_in_the_papers_table_hangs_on_two_benchmarks() -> None:
    """Rank 256 beats rank 235 by 2.10 points of K.R, and loses by 0.29 without MIA-Bench and MMDU."""
    by_rank = {row.setting: row.figures for row in paper_rows() if (row.model, row.method) == ("llava-7b", "kore")}
    ahead = {name: by_rank["rank=256"][name] - by_rank["rank=235"][name] for name in retained.PAPER}
    found = leave_one_out(ahead)
    assert found is not None
    assert found.mean == pytest.approx(2.10, abs=0.005)
    assert found.mean == pytest.approx(by_rank["rank=256"]["K.R"] - by_rank["rank=235"]["K.R"], abs=0.011)
    assert (found.low_without, found.high_without) == ("MIA-Bench", "OCRVQA")
    assert found.low == pytest.approx((sum(ahead.values()) - ahead["MIA-Bench"]) / 11)
    others = [value for name, value in ahead.items() if name not in ("MIA-Bench", "MMDU")]
    assert sum(others) / len(others) == pytest.approx(-0.287)


def test_leaving_one_benchmark_out(tmp_path: Path) -> None:
    assert leave_one_out({"MME": 3.0}) is None
    assert leave_one_out({"MME": 3.0, "POPE": 6.0, "MMMU": 0.0}) == (3.0, 1.5, 4.5, "POPE", "MMMU")
    run = make(tmp_path / "run", seeds=2)
    records = {name: [one for one in run.records() if one.method == name] for name in ("lora", "kore")}
    assert differences(records["kore"], records["lora"]) == {"MME": 26.0, "POPE": 18.0, "HallusionBench": 8.0}
    table = benchmarks_table.table(only(run))
    (cells,) = (cells for cells in table.rows if cells[0].text == "kore")
    assert cells[-1].text == "47.5 to 72.5"
    assert cells[-1].note == f"{signed(-3)} to {signed(-2)}"
    line = next(one for one in benchmarks_table.figures([only(run)]) if one["method"] == "kore")
    assert (line["low without"], line["high without"]) == ("POPE", "HallusionBench")


def test_compare_tells_what_a_difference_over_benchmarks_hangs_on(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    records = {name: [one for one in run.records() if one.method == name] for name in ("lora", "kore")}
    compare: Any = importlib.import_module("kore_bench.compare")
    assert compare._over_benchmarks(records["kore"], records["lora"]) == (
        "K.R over benchmarks: +17.33; leaving one out, from +13.00 (without MME) to +22.00 (without HallusionBench)."
    )
    assert compare._over_benchmarks(records["kore"], []) == ""
