"""The Python side: tables, figures and predictions are the records', and a script runs cells without any ceremony."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from matplotlib.figure import Figure

import kore_bench
from kore_bench import UserError
from kore_bench.report import BrokenReportsError, Report, build_all
from kore_bench.results import RunFolder

records: Any = importlib.import_module("report_records")

METHODS = ("full", "lora", "kore-null", "kore")
TABLES = ("adaptation-table", "comparisons", "cost-table", "dimensions-table", "main-table", "paper-table")
FIGURES = ("dimensions", "learning-rate-paths", "learning-rates", "losses", "tradeoff")
HOSTILE = '<script>alert("1")</script>'
FAILS = '''
from dataclasses import dataclass
from kore_bench.component import Component, Method

@dataclass(frozen=True, kw_only=True)
class Fails(Component):
    """Fails while it measures."""

    name = "fails"

    def measure(self, model, run):
        raise RuntimeError("it broke")

METHOD = Method(name="fails", summary="s", source="none", components=(Fails(),))
'''


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> kore_bench.Run:
    """Return a run of three seeds in which one method failed."""
    path = tmp_path_factory.mktemp("api") / "three"
    records.write_run(path, methods=METHODS, seeds=(0, 1, 2), failed="kore", reason=f"broke: {HOSTILE}")
    return kore_bench.load(path)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> kore_bench.Run:
    path = tmp_path_factory.mktemp("api") / "one"
    records.write_run(path, methods=METHODS)
    return kore_bench.load(path)


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


# --- the package ---


def test_importing_the_package_is_light() -> None:
    code = "import sys, kore_bench; assert not {'torch', 'pandas', 'matplotlib', 'rich', 'yaml'} & set(sys.modules)\n"
    code += "kore_bench.load; assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    assert python("-c", code).stderr == ""


def test_what_the_package_offers() -> None:
    for name in kore_bench.__all__:
        assert getattr(kore_bench, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'rnu'"):
        _ = kore_bench.rnu


# --- tables ---


@pytest.mark.parametrize("name", TABLES)
def test_a_full_table_is_its_csv(one: kore_bench.Run, name: str) -> None:
    [file] = [file for file in one.report(name) if file.suffix == ".csv"]
    with file.open(encoding="utf-8", newline="") as lines:
        expected = list(csv.DictReader(lines))
    frame: Any = one.table(name, full=True)
    frame = frame.reset_index() if frame.index.name else frame
    assert list(frame.columns) != []
    assert set(frame.columns) == set(expected[0])
    for found, line in zip(frame.to_dict("records"), expected, strict=True):
        for column, text in line.items():
            if text == "":
                assert found[column] is None or found[column] != found[column], column
            elif isinstance(found[column], float):
                assert found[column] == pytest.approx(float(text)), column
            else:
                assert str(found[column]) == text, column


def test_a_table_holds_the_means_over_seeds(three: kore_bench.Run) -> None:
    table: Any = three.table()
    assert list(table.index) == ["base", "in-context", *METHODS]
    own = [record.score("K.R") for record in three.records if record.method == "lora"]
    assert table.loc["lora", "K.R"] == pytest.approx(sum(score.value for score in own if score) / 3)
    assert not [name for name in table.columns if name.endswith((" low", " high", " n", " sd over seeds", " change"))]
    assert "CEM" not in table.columns
    full: Any = three.table(full=True)
    assert full.loc["lora", "K.R sd over seeds"] > 0
    assert full.loc["lora", "K.R low"] < table.loc["lora", "K.R"] < full.loc["lora", "K.R high"]


def test_the_columns_of_a_table_are_always_the_same(one: kore_bench.Run, tmp_path: Path) -> None:
    records.write_run(tmp_path, methods=("lora",), failed="lora", tuned=False)
    for name in ("main-table", "adaptation-table", "dimensions-table"):
        assert list(kore_bench.load(tmp_path).table(name).columns) == list(one.table(name).columns), name


def test_a_method_that_failed_is_a_row_without_scores(tmp_path: Path, three: kore_bench.Run) -> None:
    records.write_run(tmp_path, methods=METHODS, failed="kore", reason=HOSTILE)
    run = kore_bench.load(tmp_path)
    table: Any = run.table()
    assert table.loc["kore", ["status", "reason"]].tolist() == ["failed", HOSTILE]
    assert table.loc["kore", ["K.A", "K.R", "Avg"]].isna().all()
    assert [(record.method, record.reason) for record in run.failed] == [("kore", HOSTILE)]
    assert "kore" not in set(run.predictions()["method"])
    assert three.table().loc["kore", "status"] == "2 of 3 seeds done"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.table("main"), "'main' is no table of a run: did you mean 'main-table'"),
        (lambda run: run.table("tradeoff"), "'tradeoff' is no table of a run"),
        (lambda run: run.table("page"), "'page' is no table of a run"),
        (lambda run: run.figure("tradeof"), "'tradeof' is no figure of a run: did you mean 'tradeoff'"),
        (lambda run: run.predictions(task="retentoin"), "the run has no task 'retentoin': did you mean 'retention'"),
        (lambda run: run.predictions(method="lorra"), "the run has no method 'lorra': did you mean 'lora'"),
        (lambda run: run.report("pages"), "unknown report 'pages': did you mean 'page'"),
    ],
)
def test_wrong_names_name_the_nearest(one: kore_bench.Run, call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(one)


# --- figures ---


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_those_of_the_report(one: kore_bench.Run, name: str, tmp_path: Path) -> None:
    figure = one.figure(name)
    assert isinstance(figure, Figure)
    [_, png] = one.report(name)
    figure.savefig(tmp_path / "again.png", dpi=144, metadata={"Software": None})
    assert (tmp_path / "again.png").read_bytes() == png.read_bytes()


def test_a_figure_without_anything_to_show_says_so(tmp_path: Path) -> None:
    records.write_run(tmp_path, methods=("lora",), tuned=False)
    with pytest.raises(UserError, match="has nothing to show in the figure learning-rates"):
        kore_bench.load(tmp_path).figure("learning-rates")


# --- scores, predictions, losses ---


def test_scores_are_those_of_the_records(three: kore_bench.Run) -> None:
    scores: Any = three.scores()
    done = [record for record in three.records if record.status == "done"]
    assert len(scores) == sum(len(measures) for record in done for measures in record.scores.values())
    [found] = scores.query("method == 'lora' and seed == 2 and measure == 'K.A'").to_dict("records")
    [record] = [record for record in done if (record.method, record.seed) == ("lora", 2)]
    expected = record.scores["adaptation"]["K.A"]
    assert found["task"] == "adaptation"
    assert [found[name] for name in ("value", "low", "high", "n")] == [
        expected.value,
        expected.low,
        expected.high,
        expected.n,
    ]


def test_predictions_are_one_tidy_frame(three: kore_bench.Run) -> None:
    frame: Any = three.predictions()
    done = [record for record in three.records if record.status == "done"]
    assert len(frame) == len(done) * (300 + 2100)
    assert not frame.duplicated(["method", "seed", "task", "id"]).any()
    shares = frame[frame["task"] == "adaptation"].groupby("method")["correct"].mean()
    folder = RunFolder(three.path)
    rows = [row for record in done if record.method == "lora" for row in folder.predictions(record, "adaptation")]
    assert shares["lora"] == pytest.approx(sum(row["correct"] for row in rows) / len(rows))


def test_predictions_of_some(three: kore_bench.Run) -> None:
    some: Any = three.predictions("retention", "lora,full")
    assert set(some["task"]) == {"retention"}
    assert set(some["method"]) == {"lora", "full"}
    assert some.equals(three.predictions(task=["retention"], method=["lora", "full"]))


def test_losses_are_the_training_logs(three: kore_bench.Run) -> None:
    losses: Any = three.losses("lora")
    assert set(losses["seed"]) == {0, 1, 2}
    record = next(record for record in three.records if record.method == "lora")
    expected = [row["loss"] for row in RunFolder(three.path).training_log(record)]
    assert losses[losses["seed"] == record.seed]["loss"].tolist() == expected


# --- a run in a notebook, and one that is not there ---


def test_a_run_shows_its_state(three: kore_bench.Run) -> None:
    assert repr(three) == f"<Run {three.path}: 17 of 18 cells done, 1 failed>"
    shown, table = three._repr_html_(), cast(Any, three.table())
    assert "17 of 18 cells done, 1 failed" in shown
    assert f"<td>{table.loc['lora', 'Avg']:.1f}</td>" in shown
    assert "kore, seed 2, failed: broke: &lt;script&gt;" in shown
    assert "<script" not in shown


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    records.write_run(tmp_path / "<b>", methods=("lora",), rename={"lora": HOSTILE})
    shown = kore_bench.load(tmp_path / "<b>")._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown


def test_half_a_run_shows(tmp_path: Path) -> None:
    folder = records.write_run(tmp_path, methods=("lora", "full"))
    for record in folder.records()[1:]:
        (folder.cell(folder.name_of(record)) / "record.json").unlink()
    run = kore_bench.load(tmp_path)
    assert "1 of 4 cells done, 3 without a record" in repr(run)
    assert list(run.table().index) == ["base"]
    (folder.cell(folder.name_of(run.records[0])) / "record.json").unlink()
    assert "0 of 4 cells done" in run._repr_html_()
    assert run.predictions().empty
    with pytest.raises(UserError, match="no records yet"):
        run.table()


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run folder"):
        kore_bench.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is not a run folder: it has no plan\.yaml"):
        kore_bench.load(tmp_path)


def test_reports_of_plug_ins_are_found(one: kore_bench.Run, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import pandas\nfrom kore_bench.report import Report\n"
        "REPORT = Report(name='mine', title='Mine', kind='table', build=lambda run, folder: [],\n"
        "    frame=lambda run, full: pandas.DataFrame({'cells': [len(run.records())]}))\n"
    )
    assert kore_bench.load(one.path, plugins=[plugin]).table("mine")["cells"].tolist() == [len(one.records)]


# --- one broken report does not take the others along ---


def test_a_broken_report_is_named_and_the_others_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = records.write_run(tmp_path, methods=("lora",))
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from kore_bench.report import Report\n"
        "def build(run, folder):\n    raise ZeroDivisionError('by <b>zero</b>')\n"
        "REPORT = Report(name='broken', title='Broken', kind='table', build=build)\n"
    )
    sentence = f"report broken could not be written: ZeroDivisionError: by <b>zero</b> ({plugin}:3)"

    with pytest.raises(BrokenReportsError) as caught:
        kore_bench.load(tmp_path, plugins=[plugin]).report()
    assert str(caught.value) == sentence
    assert {file.name for file in caught.value.files} >= {"main.csv", "tradeoff.svg", "report.html"}
    assert all(file.exists() for file in caught.value.files)
    assert isinstance(caught.value.__cause__, ExceptionGroup)

    from kore_bench.cli import main

    with pytest.raises(SystemExit) as exit_:
        main(["report", str(tmp_path), "--reports", "main-table,broken", "--plugin", str(plugin)])
    assert exit_.value.code == 1
    shown = capsys.readouterr().out
    assert sentence in shown
    assert "main.csv" in shown

    def mistaken(run: RunFolder, folder: Path) -> list[Path]:
        raise UserError("the file is damaged")

    with pytest.raises(BrokenReportsError, match=r"^report mine could not be written: the file is damaged$"):
        build_all(folder, [Report(name="mine", title="Mine", kind="table", build=mistaken)])


# --- running ---


def test_mistakes_are_user_errors(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"methods": "kor"}, "unknown method 'kor': did you mean 'kore'"),
        ({"settings": {"train.stepz": 2}}, "did you mean 'steps'"),
        ({"settings": {"steps": 2}}, "must have the form name.field=value"),
        ({"settings": {"train.steps": None}}, "train.steps=None must be a whole number"),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"seeds": [1, 1]}, r"seeds \[1, 1\] must be different"),
        ({"rerun": "sometimes"}, "rerun 'sometimes' is not one of never, failed, always"),
        ({"jobs": -1}, "jobs -1 must be at least 1"),
        ({"gpus_per_cell": 0}, "gpus_per_cell 0 must be at least 1"),
        ({"data": tmp_path / "nowhere"}, "nowhere"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            kore_bench.run(**{"methods": "lora", "runs": tmp_path / "runs", "quiet": True, **arguments})
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_script_without_a_guard_runs_cells(small_world: Path, tmp_path: Path) -> None:
    """A script that does nothing for the worker processes' sake runs once; what fails shows and raises nothing."""
    (tmp_path / "fails.py").write_text(FAILS)
    (tmp_path / "script.py").write_text(
        "import kore_bench\n"
        "print('the script runs')\n"
        f"run = kore_bench.run('lora,fails', data={str(small_world)!r}, tasks=['adaptation'], seeds=[3], jobs=1,\n"
        "    settings={'train.steps': 2, 'train.batch_size': 4}, plugins=['fails.py'], name='r', quiet=True)\n"
        "print(run)\n"
        "print(run.failed[0].reason)\n"
    )
    done = python("script.py", cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "the script runs",
        f"<Run {Path('runs/r')}: 3 of 4 cells done, 1 failed>",
        "RuntimeError: it broke",
    ]
    run = kore_bench.load(tmp_path / "runs" / "r")
    assert {record.seed for record in run.records} == {3}
    assert len(run.losses("lora")) == 2
    assert set(run.predictions(method="lora").columns) >= {"id", "text", "answer", "prediction", "correct"}
    assert run.scores().query("method == 'in-context' and measure == 'K.A'")["n"].tolist() == [30]


STARTS = """
import multiprocessing
from kore_bench.engines import _without_main
import __main__
process = multiprocessing.get_context("spawn").Process(target=print, args=("the worker runs",))
with _without_main():
    process.start()
process.join()
import sys
assert sys.modules["__main__"] is __main__
print("exit code", process.exitcode, flush=True)
"""


@pytest.mark.parametrize("way", ["file", "standard input", "-c"])
def test_workers_start_without_the_program_that_runs(way: str, tmp_path: Path) -> None:
    (tmp_path / "starts.py").write_text(STARTS)
    arguments = {"file": ["starts.py"], "standard input": ["-"], "-c": ["-c", STARTS]}[way]
    done = python(*arguments, cwd=tmp_path, input=STARTS)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["the worker runs", "exit code 0"]
