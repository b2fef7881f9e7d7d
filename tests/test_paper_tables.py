"""Tests of the tables for papers: places, gaps, the paper's own figures beside ours, and LaTeX that compiles."""

from __future__ import annotations

import csv
import importlib
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml

from kore_bench.cli import main
from kore_bench.measures import Score, hars
from kore_bench.report import TableStyle
from kore_bench.reports import paper, paper_table, paper_table_fine
from kore_bench.reports.latex import latex, latex_table
from kore_bench.reports.ranked import RankedTable, ranks
from kore_bench.reports.summary import BENCHMARKS, DIMENSIONS, Summary, summarise
from kore_bench.reports.tabular import DASH, Cell, Table, markdown_table, plain_table
from kore_bench.results import RunFolder

records: Any = importlib.import_module("report_records")

FEW = ("full", "lora", "ewc", "kore-null", "kore")
HOSTILE = "[1] 100%_of {a} & \\b $x$ ~^ #<c>|*"


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run: RunFolder = records.write_run(tmp_path_factory.mktemp("mini"), methods=FEW, failed="ewc")
    return run


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run of two seeds: with one nothing is ranked."""
    run: RunFolder = records.write_run(tmp_path_factory.mktemp("twice"), methods=FEW, seeds=(0, 1))
    return run


@pytest.fixture(scope="module")
def evoke(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run of three seeds on a model and data that the paper has, with every trouble that a run can have."""
    methods = (*FEW, "replay", "frozen-random")
    run: RunFolder = records.write_run(
        tmp_path_factory.mktemp("evoke"), methods=methods, seeds=(0, 1, 2), model="llava-7b", failed="ewc",
        skipped="replay", rename={"frozen-random": HOSTILE},
    )  # fmt: skip
    return on_data(run, "/data/evoke")


def on_data(run: RunFolder, data: str) -> RunFolder:
    plan = run.plan()
    plan["request"]["data"] = data
    (run.path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    return run


def only(run: RunFolder) -> Summary:
    [summary] = summarise(run)
    return summary


def cells(run: RunFolder, table: RankedTable, **style: Any) -> dict[str, list[Cell]]:
    """Return row name -> cells of a table; rows of a name that stands several times are told apart by number."""
    summary = only(run)
    shown = table.table(run, summary, table.columns([summary]), TableStyle(**style))
    rows: dict[str, list[Cell]] = {}
    for name, *rest in shown.rows:
        rows[name.text if name.text not in rows else f"{name.text} {len(rows)}"] = rest
    return rows


def lines(run: RunFolder, table: RankedTable) -> dict[str, dict[str, str]]:
    text = table.render(run, TableStyle(format="csv"))
    return {line["method"]: line for line in csv.DictReader(io.StringIO(text))}


# --- what the paper printed ---


def test_the_papers_rows_agree_with_themselves() -> None:
    """HARS and K.R computed from the printed benchmarks are the printed ones, but for what the paper has wrong."""
    rows = paper.paper_rows()
    bases = {row.model: row.figures for row in rows if row.method == "base"}
    assert len(rows) == 33
    off = []
    for row in rows:
        figures, base = row.figures, bases[row.model]
        benchmarks = [figures[name] for names in BENCHMARKS.values() for name in names]
        assert len(benchmarks) == 12
        if abs(fmean(benchmarks) - figures["K.R"]) > 0.01:
            off.append((row.model, row.name))
        if row.method != "base":
            computed = hars(figures["K.A"], figures["K.R"], base["K.A"], base["K.R"])
            assert computed == pytest.approx(figures["HARS"], abs=0.06), row.name
    assert off == [("llava-7b", "moelora"), ("qwen2.5-vl-7b", "lora")]


def test_kore_stands_as_printed() -> None:
    [row] = [row for row in paper.paper_rows() if (row.model, row.name) == ("llava-7b", "kore (rank=235)")]
    assert row.figures["K.A"] == pytest.approx((30.65 + 41.26) / 2)
    assert (row.figures["K.R"], row.figures["HARS"], row.figures["INS"]) == (40.00, 82.81, 38.54)
    assert row.figures["COM"] == pytest.approx((49.84 + 54.98) / 2)


def test_our_names_find_the_papers_rows(tmp_path: Path) -> None:
    methods = ("full", "lora", "kore", "kore-null", "kore-augmentation", "frozen-top")
    run = on_data(records.write_run(tmp_path, methods=methods, model="llava-7b"), "evoke")
    assert {method: row.name for method, row in paper.counterparts(run, only(run)).items()} == {
        "base": "base",
        "full": "full-ft",
        "lora": "lora",
        "kore": "kore (rank=235)",
        "kore-null": "kore w/o augmentation",
        "kore-augmentation": "kore w/o constraint",
    }


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"rank": "auto", "freeze_a": True}, "kore (rank=235)"),
        ({"rank": 256}, "kore (rank=256)"),
        ({"rank": 64}, "kore (rank=64)"),
        ({"rank": 100}, None),
        ({"rank": "auto", "freeze_a": False}, "kore w/o frozen A"),
        ({"rank": 64, "freeze_a": False}, None),
    ],
)
def test_a_changed_setting_finds_its_own_row_or_none(
    tmp_path: Path, settings: dict[str, Any], name: str | None
) -> None:
    run = on_data(records.write_run(tmp_path, methods=("kore",), model="llava-7b"), "evoke")
    record = only(run).trained[0].done[0]
    parts = {**record.settings["components"], "kore-null": settings}
    run.write(run.name_of(record), replace(record, settings={**record.settings, "components": parts}))
    found = paper.counterparts(run, only(run)).get("kore")
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("calibration", "name"),
    [
        ("mme:256", "kore (constraint from MME)"),
        ("hallusionbench", "kore (constraint from HallusionBench)"),
        ("pope", None),
        ("data/onevision.json:256", "kore (rank=235)"),
        ("mme,ocrvqa", "kore (rank=235)"),
    ],
)
def test_a_specific_constraint_finds_its_own_row(tmp_path: Path, calibration: str, name: str | None) -> None:
    run = on_data(records.write_run(tmp_path, methods=("kore",), model="llava-7b"), "evoke")
    record = only(run).trained[0].done[0]
    run.write(run.name_of(record), replace(record, settings={**record.settings, "old": {"calibration": calibration}}))
    found = paper.counterparts(run, only(run)).get("kore")
    assert (found.name if found else None) == name


def test_variants_find_the_rows_of_their_settings(tmp_path: Path) -> None:
    names = {"kore": "kore:rank=64", "kore-null": "augment-text-aware"}
    run = on_data(records.write_run(tmp_path, methods=tuple(names), model="llava-7b", rename=names), "evoke")
    for row in only(run).trained:
        parts: dict[str, Any] = (
            {"kore-null": {"rank": 64}} if row.method.startswith("kore") else {"augment-text-aware": {"copies": 7}}
        )
        [record] = row.done
        run.write(run.name_of(record), replace(record, settings={**record.settings, "components": parts}))
    found = {method: row.name for method, row in paper.counterparts(run, only(run)).items()}
    assert found == {
        "base": "base", "kore:rank=64": "kore (rank=64)", "augment-text-aware": "text augmentation (knowledge-aware)",
    }  # fmt: skip
    assert next(row for row in only(run).rows if row.method == "augment-text-aware").training_data == "augmented"


@pytest.mark.parametrize(("model", "data"), [("llava-7b", "mini"), ("mini-llava", "evoke")])
def test_nothing_stands_beside_what_the_paper_did_not_measure(tmp_path: Path, model: str, data: str) -> None:
    run = on_data(records.write_run(tmp_path, methods=("lora", "kore"), model=model), data)
    assert paper.counterparts(run, only(run)) == {}
    for format_ in ("latex", "markdown", "text"):
        text = paper_table.TABLE.render(run, TableStyle(format=format_))
        assert "paper" not in text
        assert "2510.19316" not in text
    assert lines(run, paper_table.TABLE)["kore"]["K.A paper"] == ""


# --- ours beside the paper's ---


def test_the_papers_figures_stand_beside_ours_and_are_never_ranked(evoke: RunFolder) -> None:
    summary = only(evoke)
    shown = paper_table.TABLE.table(evoke, summary, ("K.A", "K.R", "Avg", "HARS"), TableStyle())
    names = [row[0].text for row in shown.rows]
    place = names.index("kore")
    assert names[place : place + 3] == ["kore", "paper: kore (rank=235)", "difference"]
    ours, theirs, apart = (shown.rows[place + step] for step in range(3))
    assert [cell.text for cell in theirs[1:]] == ["35.95", "40.00", "37.98", "82.81"]
    row = next(row for row in summary.rows if row.method == "kore")
    assert ours[1].text.startswith(f"{row.scores['K.A'].value:.2f} ± ")
    assert apart[2].text == f"+{row.scores['K.R'].value - 40.00:.2f}"
    assert {cell.mark for line in (theirs, apart) for cell in line} == {"aside"}
    assert ours[1].mark == "best"
    notes = " ".join(shown.notes)
    assert "In italics the rows of arXiv 2510.19316, tables 1 and 2; 18 and 19" in notes
    assert "measured on evoke; differences (ours minus the paper's) include those of data and settings" in notes


def test_csv_keeps_the_papers_figures_in_columns_of_their_own(evoke: RunFolder) -> None:
    table = lines(evoke, paper_table.TABLE)
    assert set(table) == {row.method for row in only(evoke).rows}
    kore, base = table["kore"], table["base"]
    assert float(kore["K.R"]) == next(row for row in only(evoke).rows if row.method == "kore").scores["K.R"].value
    assert (float(kore["K.R paper"]), float(kore["HARS paper"])) == (40.00, 82.81)
    assert float(kore["K.R minus paper"]) == pytest.approx(float(kore["K.R"]) - 40.00)
    assert kore["paper row"] == "kore (rank=235), tables 1 and 2 of arXiv 2510.19316"
    assert (kore["K.A rank"], base["K.A rank"], base["HARS paper"]) == ("1", "", "")
    assert (int(kore["K.R n"]), kore["seeds"]) == (2100, "0 1 2")


def test_the_fine_form_has_dimensions_with_the_papers_means(evoke: RunFolder) -> None:
    summary = only(evoke)
    columns = paper_table_fine.columns([summary])
    assert columns == (*DIMENSIONS, "CEM", "F1")
    shown = paper_table_fine.TABLE.table(evoke, summary, columns, TableStyle())
    theirs = next(row for row in shown.rows if row[0].text == "paper: lora")
    assert theirs[1].text == f"{(44.06 + 53.87) / 2:.2f}"
    assert [cell.text for cell in theirs[-2:]] == ["15.23", "18.31"]
    assert "Its dimensions are here the means of their benchmarks." in shown.notes


def test_the_fine_form_has_the_benchmarks_that_a_task_scored(tmp_path: Path) -> None:
    run = on_data(records.write_run(tmp_path, methods=("lora", "kore"), model="llava-7b"), "evoke")
    for record in run.records():
        scored = {name: Score(value=50.0 + len(name), low=40.0, high=60.0, n=90) for name in ("POPE", "MMBench")}
        run.write(run.name_of(record), replace(record, scores={**record.scores, "twelve": scored}))
    summary = only(run)
    assert paper_table_fine.columns([summary]) == ("MMBench", "POPE", "CEM", "F1")
    shown = paper_table_fine.TABLE.table(run, summary, ("MMBench", "POPE"), TableStyle())
    apart = next(row for index, row in enumerate(shown.rows) if shown.rows[index - 1][0].text == "paper: lora")
    assert [cell.text for cell in apart[1:]] == [f"+{57 - 53.87:.2f}", "\N{MINUS SIGN}19.97"]


# --- places ---


def test_the_highest_is_bold_and_the_next_underlined(twice: RunFolder) -> None:
    rows = cells(twice, paper_table.TABLE)
    places = ranks(only(twice), "K.A")
    values = {row.method: row.scores["K.A"].value for row in only(twice).trained}
    assert sorted(places, key=lambda method: places[method]) == sorted(values, key=lambda method: -values[method])
    first, second = sorted(places, key=lambda method: places[method])[:2]
    assert [name for name, row in rows.items() if row[0].mark == "best"] == [first]
    assert [name for name, row in rows.items() if row[0].mark == "next"] == [second]
    text = markdown_table(paper_table.TABLE.table(twice, only(twice), ("K.A",), TableStyle()))
    assert f"| {first} | **{values[first]:.2f} ± " in text
    assert f"| {second} | <ins>{values[second]:.2f} ± " in text


def test_references_have_no_place(mini: RunFolder) -> None:
    assert only(mini).rows[1].scores["K.R"].value == max(row.scores["K.R"].value for row in only(mini).rows if row.done)
    for rows in (cells(mini, paper_table.TABLE), cells(mini, paper_table_fine.TABLE)):
        assert not any(cell.mark for name in ("base", "in-context") for cell in rows[name])


def give(run: RunFolder, values: dict[str, float]) -> Summary:
    """Return the summary of a run in which methods score these values of K.A."""
    for record in run.records():
        if record.method in values:
            score = Score(value=values[record.method], low=0.0, high=100.0, n=300)
            adaptation = {**record.scores["adaptation"], "K.A": score}
            run.write(run.name_of(record), replace(record, scores={**record.scores, "adaptation": adaptation}))
    return only(run)


def test_equal_figures_share_a_place(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("full", "lora", "ewc", "kore"), seeds=(0, 1))
    summary = give(run, {"full": 30.004, "lora": 30.001, "ewc": 20.0, "kore": 19.996})
    assert ranks(summary, "K.A") == {"full": 1, "lora": 1, "ewc": 2, "kore": 2}
    marks = {name: row[0].mark for name, row in cells(run, paper_table.TABLE).items()}
    assert marks == {"base": "", "in-context": "", "full": "best", "lora": "best", "ewc": "next", "kore": "next"}


def test_where_nothing_differs_nothing_is_marked(tmp_path: Path) -> None:
    run = records.write_run(tmp_path / "equal", methods=("full", "lora"), seeds=(0, 1))
    assert ranks(give(run, {"full": 30.0, "lora": 30.0}), "K.A") == {}
    alone = records.write_run(tmp_path / "alone", methods=("kore",))
    assert not any(cell.mark for row in cells(alone, paper_table.TABLE).values() for cell in row)
    assert "bold" not in paper_table.TABLE.render(alone, TableStyle(format="text"))


def test_one_seed_carries_no_ranking_and_several_a_spread(mini: RunFolder, evoke: RunFolder) -> None:
    one = paper_table.TABLE.render(mini, TableStyle(format="text"))
    assert "Percent, from one seed." in one
    assert "one seed carries no ranking (of any method)" in one
    assert ranks(only(mini), "K.A") == {}
    assert not any(cell.mark for row in cells(mini, paper_table.TABLE).values() for cell in row)
    assert "±" not in one
    three = paper_table.TABLE.render(evoke, TableStyle(format="text"))
    assert "Percent; mean ± standard deviation over 3 seeds." in three
    assert "carries no ranking" not in three


# --- gaps, counts, intervals ---


def test_what_failed_is_a_gap(mini: RunFolder, evoke: RunFolder) -> None:
    assert [cell.text for cell in cells(mini, paper_table.TABLE)["ewc"]] == [DASH] * 4
    assert [cell.text for cell in cells(evoke, paper_table_fine.TABLE)["replay"]] == [DASH] * 9
    shown = paper_table.TABLE.table(evoke, only(evoke), ("K.A",), TableStyle())
    notes = {row[0].text: row[0].note for row in shown.rows}
    assert (notes["replay"], notes["ewc"], notes["kore"]) == ("skipped", "2 of 3 seeds done", "")
    assert lines(evoke, paper_table.TABLE)["replay"]["reason"].startswith("needs an image pair")


@pytest.mark.parametrize("methods", [(), ("lora",)])
def test_a_run_of_references_alone_has_its_table(tmp_path: Path, methods: tuple[str, ...]) -> None:
    run = records.write_run(tmp_path, methods=methods, failed="lora", without=("in-context",), tuned=False)
    for table in (paper_table.TABLE, paper_table_fine.TABLE):
        text = table.render(run, TableStyle(format="text"))
        assert "bold" not in text
        assert text.count("\n---") == 1 + len(methods)
        count, widths = structure(table.render(run, TableStyle()))
        assert widths == [count] * (2 + len(methods))
    assert set(lines(run, paper_table.TABLE)) == {"base", *methods}


def test_hars_without_a_gain_is_a_gap_that_is_explained(tmp_path: Path) -> None:
    run = records.write_run(tmp_path, methods=("full", "lora"))
    give(run, {"lora": 1.0})
    shown = paper_table.TABLE.table(run, only(run), ("K.A", "HARS"), TableStyle())
    assert {row[0].text: row[2].text for row in shown.rows}["lora"] == DASH
    assert "HARS is not given where K.A did not gain on the base's." in shown.notes


def test_counts_and_intervals_stand_where_asked_for(mini: RunFolder, evoke: RunFolder) -> None:
    rows = cells(mini, paper_table.TABLE, n=True, intervals=True)
    assert [cell.text for cell in rows["Questions"]] == ["300", "2100", "2400", DASH]
    score = next(row for row in only(mini).rows if row.method == "lora").scores["K.R"]
    assert rows["lora"][1].note == f"{score.low:.2f} to {score.high:.2f}"
    assert rows["lora"][3].note == ""
    assert "Questions a seed" in cells(evoke, paper_table.TABLE, n=True)
    plain = cells(mini, paper_table.TABLE)
    assert "Questions" not in plain
    assert not any(cell.note for row in plain.values() for cell in row)
    assert "±" not in cells(evoke, paper_table.TABLE, intervals=True)["lora"][0].text


# --- LaTeX ---


def structure(text: str) -> tuple[int, list[int]]:
    """Check a float's nesting and return the columns of its tabular and the columns that each of its lines fills."""
    bare = re.sub(r"\\[\\{}$&#%_]", lambda found: "@" if found[0] != r"\\" else found[0], text.split("\n", 1)[1])
    depth = 0
    for mark in re.sub(r"(?<!\\)%\n", "", bare):
        depth += {"{": 1, "}": -1}.get(mark, 0)
        assert depth >= 0
        assert mark not in "%#~^_"
    assert depth == 0
    assert bare.count("$") % 2 == 0
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", bare):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    found = re.search(r"\\begin\{tabular\}\{(.*)\}\n", bare)
    assert found is not None
    body = bare[found.end() : bare.index(r"\end{tabular}")]
    widths = []
    for line in body.splitlines():
        if re.fullmatch(r"\\(top|mid|bottom)rule|\\addlinespace", line):
            continue
        assert line.endswith(r" \\")
        assert not re.match(r"[\[*]", line)
        widths.append(line.count("&") + 1 + len(re.findall(r"\\multicolumn\{2\}", line)))
    return len(re.sub(r"@\{.*?\}", "", found[1])), widths


STYLES: list[dict[str, Any]] = [{}, {"n": True}, {"intervals": True}, {"n": True, "intervals": True}]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("table", [paper_table.TABLE, paper_table_fine.TABLE])
def test_every_line_fills_every_column(
    mini: RunFolder, evoke: RunFolder, table: RankedTable, style: dict[str, Any]
) -> None:
    for run in (mini, evoke):
        count, widths = structure(table.render(run, TableStyle(**style)))
        assert count >= 5
        assert len(widths) > len(only(run).rows)
        assert set(widths) == {count}


def test_latex_marks_lines_up_and_labels(evoke: RunFolder) -> None:
    text = paper_table.TABLE.render(evoke, TableStyle())
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{Adaptation and retention on llava-7b. Percent"):
        assert word in text
    assert r"\label{tab:adaptation-and-retention-on-llava-7b}" in text
    assert re.search(r"^kore & \\textbf\{\d+\.\d\d\} & \\scriptsize \$\\pm\$\\,\d+\.\d\d & ", text, re.MULTILINE)
    assert re.search(r"& \\underline\{\d+\.\d\d\} ", text)
    assert r"\textit{paper: kore (rank=235)} & \textit{35.95} &" in text
    assert r"ewc {\scriptsize (2 of 3 seeds done)} & " in text
    assert text.startswith("% needs \\usepackage{booktabs,graphicx}\n\\begin{table}\n")
    wide = paper_table_fine.TABLE.render(evoke, TableStyle())
    assert r"\begin{table*}" in wide
    assert re.search(r"^kore & .*\n & \\scriptsize \$\\pm\$ \d", wide, re.MULTILINE)


def test_latex_shows_hostile_names_as_they_are(evoke: RunFolder) -> None:
    assert latex(HOSTILE) == (
        r"{[}1{]} 100\%\_of \{a\} \& \textbackslash{}b \$x\$ \textasciitilde{}\textasciicircum{} "
        r"\#\textless{}c\textgreater{}\textbar{}{*}"
    )
    assert latex("a--b---c\n\x1b[0m") == "a-{}-b-{}-{}-c {[}0m"
    assert latex("3 ± 1 \N{MINUS SIGN} 2 \N{EN DASH} …") == r"3 $\pm$ 1 $-$ 2 \textendash{} \ldots{}"
    assert f"\n{latex(HOSTILE)} & " in paper_table.TABLE.render(evoke, TableStyle())


def test_a_name_with_a_spread_in_it_is_a_name() -> None:
    table = Table(title="T", header=("Method", "x"), rows=((Cell("a ± b"), Cell("1.0")), (Cell("c"), Cell("2.0 ± 1"))))
    count, widths = structure(latex_table(table))
    assert (count, widths) == (3, [3, 3, 3])
    assert "a $\\pm$ b & 1.0 &" in latex_table(table)


def test_latex_compiles(mini: RunFolder, evoke: RunFolder, tmp_path: Path) -> None:
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("no pdflatex on this machine: the tables' structure is tested, not that they compile")
    tables = [
        table.render(run, TableStyle(**style))
        for run in (mini, evoke)
        for table in (paper_table.TABLE, paper_table_fine.TABLE)
        for style in STYLES
    ]
    head = r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}\begin{document}"
    document = "\n".join([head, *(f"{table}\\clearpage" for table in tables), r"\end{document}"])
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout[-2000:]
    assert "Overfull" not in result.stdout
    assert f"({len(tables)} pages" in result.stdout


# --- the other forms, files and the command ---


def test_plain_text_is_aligned_and_obeys_nothing() -> None:
    table = Table(
        title="T", header=("Method", "x"), notes=("N.",), parts=frozenset({1}),
        rows=((Cell("a\x1b[31m\n b"), Cell("9.00", mark="best")), (Cell("c"), Cell("10.00", "1 to 2", "next"))),
    )  # fmt: skip
    assert plain_table(table).splitlines() == [
        "T",
        "",
        "Method                  x",
        "-------------------------",
        "a[31m b            *9.00*",
        "-------------------------",
        "c        _10.00_ (1 to 2)",
        "",
        "N.",
    ]


def test_files_hold_what_the_command_prints(
    evoke: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for report, name in ((paper_table.REPORT, "paper"), (paper_table_fine.REPORT, "paper-fine")):
        files = report.build(evoke, tmp_path)
        assert [file.name for file in files] == [f"{name}.csv", f"{name}.md", f"{name}.tex"]
        for file, format_ in zip(files, ("csv", "markdown", "latex"), strict=True):
            main_exits(0, "table", str(evoke.path), report.name, "--format", format_)
            assert capsys.readouterr().out == file.read_text(encoding="utf-8")


def main_exits(code: int, *arguments: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert (exit_.value.code or 0) == code


def test_the_command_prints_the_coarse_table_in_latex(mini: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    main_exits(0, "table", str(mini.path))
    assert capsys.readouterr().out == paper_table.TABLE.render(mini, TableStyle())
    main_exits(0, "table", str(mini.path), "--n", "--intervals", "--format", "text")
    assert capsys.readouterr().out == paper_table.TABLE.render(mini, TableStyle(format="text", n=True, intervals=True))


def test_mistakes_are_said_in_a_sentence(mini: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_exits(2, "table", str(mini.path), "paper-tabel")
    assert "'paper-tabel' is no table that can be printed: did you mean 'paper-table'?" in capsys.readouterr().err
    main_exits(2, "table", str(tmp_path / "nowhere"))
    assert "there is no run folder" in capsys.readouterr().err
    (tmp_path / "plan.yaml").write_text("cells: [a]\n")
    main_exits(2, "table", str(tmp_path))
    assert "has no records yet" in capsys.readouterr().err
