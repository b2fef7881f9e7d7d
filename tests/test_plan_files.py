"""Plans in files: the paper's tables on the real models' configurations and on the mini model, what wins, mistakes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from kore_bench import session
from kore_bench.cli import main
from kore_bench.plan import Request, make_plan, preflight
from kore_bench.plan_files import list_plans, read_plan
from kore_bench.reports.paper import PaperRow, paper_rows

real: Any = importlib.import_module("real_configs")
TABLES = {
    "paper/table1": {"1 and 2"},
    "paper/table3": {"9 and 10"},
    "paper/table4": {"18 and 19"},
    "paper/table5": {"21 and 22"},
    "paper/table15": {"15 and 16"},
}
SAME = {"paper/table2": "table1", "paper/table18": "table4", "paper/table21": "table5"}


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("configs")
    return {
        "llava-7b": real.write_llava(folder / "7b"),
        "llava-13b": real.write_llava(folder / "13b", "13b"),
        "qwen2.5-vl-7b": real.write_qwen(folder / "qwen"),
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Request, str]]:
    """Return what `run` was asked for, and the runs' names, in place of running it; the working folder is a new one."""
    seen: list[tuple[Request, str]] = []

    def run(request: Request, runs: Path, name: str, *, checked: Any, **options: Any) -> int:
        checked()
        seen.append((request, name))
        return 0

    monkeypatch.setattr(session, "run_session", run)
    monkeypatch.chdir(tmp_path)
    return seen


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["run", *arguments])
    return int(exit_.value.code or 0)


def test_the_papers_tables_are_there() -> None:
    names = {f"paper/table{number}" for number in (1, 2, 3, 4, 5, 12, 15, 18, 21)}
    assert names <= set(list_plans())
    assert all(plan.summary for plan in list_plans().values())


@pytest.mark.parametrize(
    "name", [name for name in list_plans() if name.startswith("paper/") and name not in SAME and "-" not in name]
)
@pytest.mark.parametrize("model", ["llava-7b", "mini-llava"])
def test_every_plan_passes_every_check_before_a_weight_loads(
    name: str, model: str, configs: dict[str, Path], small_world: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = ["--set", f"model.path={configs[model]}"] if model in configs else []
    data = ["--data", str(small_world), "--runs", str(tmp_path)]
    arguments = ["--plan", name, "--model", model, *data, "--dry-run", *path]
    assert call(*arguments) == 0
    shown = capsys.readouterr().out
    assert f"{model} on {small_world}" in shown
    assert "to run" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in list_plans() if "table12-" in name])
def test_a_specific_constraint_is_that_benchmarks_and_on_a_mini_model_one_skills(
    name: str, asked: list[tuple[Request, str]], small_world: Path, tmp_path: Path
) -> None:
    for model in ("llava-7b", "mini-llava"):
        assert call("--plan", name, "--model", model, "--data", str(small_world)) == 0
    (large, large_name), (mini, _) = asked
    assert large.settings == (f"old.calibration={name.partition('-')[2]}:256",)
    assert mini.settings == ("old.skills=1",)
    assert large_name == f"llava-7b-{name.partition('/')[2]}"
    plan = make_plan(mini)
    preflight(plan, tmp_path)
    assert (plan.old.skills, plan.old.calibration) == (1, "")


def planned(name: str, model: str, configs: dict[str, Path], asked: list[tuple[Request, str]]) -> set[str]:
    """Return the names of the paper's rows that a plan's methods are measured against."""
    assert call("--plan", name, "--model", model, "--set", f"model.path={configs[model]}") == 0
    found = set()
    for method in make_plan(asked[-1][0]).methods:
        settings = {
            f"rank={part['rank']}" for part in method.settings().values() if part.get("rank", "auto") != "auto"
        } | {"freeze_a=false" for part in method.settings().values() if not part.get("freeze_a", True)}
        base = method.name.partition(":")[0]
        rows: list[PaperRow] = [row for row in paper_rows() if (row.model, row.method) == (model, base)]
        found |= {row.name for row in (rows[:1] if not settings else rows) if not settings or {row.setting} == settings}
    return found


@pytest.mark.parametrize(("name", "tables"), TABLES.items())
def test_a_plan_has_every_row_of_its_table(
    name: str, tables: set[str], configs: dict[str, Path], asked: list[tuple[Request, str]]
) -> None:
    models = ["llava-13b", "qwen2.5-vl-7b"] if name == "paper/table3" else ["llava-7b"]
    for model in models:
        rows = {row.name for row in paper_rows() if row.tables in tables and row.model == model} - {"base"}
        assert rows
        assert rows <= planned(name, model, configs, asked)


def test_a_plan_adapts_to_the_model_wherever_it_is_named(asked: list[tuple[Request, str]]) -> None:
    for order in (
        ["--plan", "paper/table15", "--model", "mini-llava"],
        ["--model", "mini-llava", "--plan", "paper/table15"],
    ):
        assert call(*order) == 0
    assert call("--plan", "paper/table15") == 0  # the default model
    assert asked[0] == asked[1] == asked[2]
    assert asked[0][0].methods[0] == "kore:kore-null.rank=match:lora@4"
    assert asked[0][1] == "mini-llava-table15"
    assert call("--plan", "paper/table15", "--model", "llava-hf/llava-1.5-7b-hf") == 0
    assert asked[-1][0].methods[0] == "kore:kore-null.rank=64"
    assert asked[-1][1] == "llava-1.5-7b-hf-table15"


def test_options_and_configs_have_the_last_word(asked: list[tuple[Request, str]]) -> None:
    Path("c.yaml").write_text("tasks: [adaptation]\nset: {train.steps: 3, old.skills: 2}\nseeds: 2\n")
    for order in (
        ["--config", "c.yaml", "--plan", "paper/table12-mme"],
        ["--plan", "paper/table12-mme", "--config", "c.yaml"],
    ):
        assert call(*order, "--methods", "kore-null", "--set", "train.steps=4", "--name", "mine") == 0
    assert asked[0] == asked[1]
    request, name = asked[0]
    assert (request.methods, request.tasks, request.seeds, name) == (("kore-null",), ("adaptation",), (0, 1), "mine")
    assert sorted(request.settings) == ["old.skills=2", "train.steps=4"]


def test_a_config_may_name_the_model(asked: list[tuple[Request, str]]) -> None:
    Path("c.yaml").write_text("model: llava-7b\n")
    assert call("--plan", "paper/table15", "--config", "c.yaml") == 0
    assert asked[0][0].model == "llava-7b"
    assert "kore:kore-null.rank=64" in asked[0][0].methods
    assert asked[0][1] == "llava-7b-table15"


def test_a_plan_of_ones_own_extends_another(asked: list[tuple[Request, str]]) -> None:
    Path("my.yaml").write_text("extends: paper/table4\nmodel: llava-7b\nseeds: 3\nmodels:\n  llava-*: {seeds: 2}\n")
    assert call("--plan", "my.yaml") == 0
    request, name = asked[0]
    assert (request.model, request.seeds, name) == ("llava-7b", (0, 1), "llava-7b-my")
    assert request.methods == ("kore", "kore-null", "kore-augmentation", "kore:freeze_a=false")
    assert call("--plan", "my.yaml", "--model", "mini-llava") == 0
    assert asked[1][0].seeds == (0, 1, 2)


def test_a_plan_that_changes_nothing_is_the_same_run() -> None:
    for name, run in SAME.items():
        assert read_plan(name).run == run
        for model in ("llava-7b", "mini-llava"):
            assert read_plan(name).for_model(model) == read_plan(f"paper/{run}").for_model(model)
    assert read_plan("paper/table12-mme").run == "table12-mme"


def test_a_saved_config_says_what_a_plan_came_to(asked: list[tuple[Request, str]]) -> None:
    assert call("--plan", "paper/table15", "--save-config", "saved.yaml") == 0
    assert call("--config", "saved.yaml") == 0
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methds: lora\n", "my.yaml, line 1: run has no option 'methds': did you mean 'methods'?"),
        ("methods: lora\nmodels:\n  mini-*:\n    sed: 3\n", "my.yaml, line 4: run has no option 'sed'"),
        ("models: mini\n", "my.yaml, line 1: models has a name of models, such as mini-*"),
        ("models:\n  mini-*: lora\n", "my.yaml, line 2: models: mini-* has options below it"),
        ("extends: paper/tabl1\n", "unknown plan 'paper/tabl1': did you mean 'paper/table1'?"),
        ("extends: my.yaml\n", "plan my.yaml extends itself, by way of my.yaml"),
        ("extends: a\nextends: b\n", "my.yaml, line 2: 'extends' is given twice: keep one"),
        ("summary: [a]\n", "my.yaml, line 1: summary takes one text"),
        ("plan: other\n", "my.yaml, line 1: --plan is for the command line alone"),
        ("- lora\n", "my.yaml, line 1: a plan has an option on each line"),
        ("methods: [lora\n", "my.yaml, line 2: this is no YAML"),
    ],
)  # fmt: skip
def test_mistakes_name_file_and_line(
    text: str, message: str, asked: list[tuple[Request, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my.yaml").write_text(text)
    assert call("--plan", "my.yaml", "--model", "mini-llava") == 2
    assert message in capsys.readouterr().err
    assert not asked


def test_unknown_plans_are_refused_with_the_nearest(
    asked: list[tuple[Request, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--plan", "paper/tabel1") == 2
    assert "unknown plan 'paper/tabel1': did you mean 'paper/table1'?" in capsys.readouterr().err
    assert call("--plan", "no.yaml") == 2
    assert "error: --plan no.yaml cannot be read: No such file" in capsys.readouterr().err


def test_plans_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["list", "plans"], ["list", "plans", "paper/table4"]):
        with pytest.raises(SystemExit):
            main(arguments)
    shown = capsys.readouterr().out
    assert "paper/table12-mme" in shown
    assert "kore:freeze_a=false" in shown
