"""`kore-bench new`: what it writes runs and passes its tests as it is; what it refuses; the guide's example, followed."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kore_bench import cli
from kore_bench.cli import main
from kore_bench.errors import UserError
from kore_bench.results import RunFolder
from kore_bench.scaffold import Written, new_method

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")


def run(command: str, folder: Path, *more: str) -> str:
    """Run a command of the guide or of the scaffold in ``folder`` and return what it printed; it must succeed."""
    program, *arguments = shlex.split(command)
    if program == "kore-bench":
        with contextlib.chdir(folder), redirected() as shown, pytest.raises(SystemExit) as exit_:
            main([*arguments, *more])
        assert not exit_.value.code, shown.getvalue()
        return shown.getvalue()
    assert program == "pytest"
    given = [*arguments, *more, "-p", "no:cacheprovider", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *given], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def redirected() -> Iterator[io.StringIO]:
    """Collect what the command line prints, in wide lines."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as shown:
        patch.setattr(cli.out, "_width", 200)
        yield shown


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return new_method("tiny-norm", tmp_path_factory.mktemp("own"))


@pytest.mark.usefixtures("in_process")
def test_a_new_method_runs_as_it_is(written: Written, small_world: Path, cache: Path) -> None:
    folder = written.method.parent
    shown = run(written.run.replace("train.steps=20", "train.steps=2"), folder, "--data", str(small_world))
    assert "tiny-norm" in shown
    records = {record.method: record for record in RunFolder(folder / "runs" / "mini-llava").records()}
    assert records["tiny-norm"].status == "done"
    assert records["tiny-norm"].settings["components"]["tiny-norm"] == {"strength": 0.01}
    assert records["tiny-norm"].scores.keys() == records["lora"].scores.keys()


def test_a_new_method_passes_its_own_tests_and_the_conformance_tests(written: Written) -> None:
    shown = run(written.check, written.method.parent)
    passed = re.search(r"(\d+) passed", shown)
    assert passed
    assert int(passed[1]) == 4 + len(
        re.findall(r"^def test_", (ROOT / "kore_bench/conformance/test_methods.py").read_text(), re.MULTILINE)
    )
    assert "warning" not in shown


def test_what_is_written_is_clean(written: Written) -> None:
    folder = written.method.parent
    if shutil.which("ruff"):
        for command in (["check", "--ignore", "D103"], ["format", "--check"]):
            done = subprocess.run(
                ["ruff", *command, "--config", str(ROOT / "pyproject.toml"), str(written.method), str(written.test)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout
    for file in folder.glob("*.*"):
        assert "$" not in file.read_text()


def test_in_a_checkout_each_file_goes_where_its_kind_lies(tmp_path: Path) -> None:
    for file in ("methods/__init__.py", "kore_bench/component.py"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    new = new_method("norm-penalty", tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in (new.method, new.test, new.page)] == [
        "methods/norm_penalty.py", "tests/test_norm_penalty.py", "docs/methods/norm-penalty.md",
    ]  # fmt: skip
    assert new.run == "kore-bench run --methods lora,norm-penalty --set train.steps=20"
    assert "return Registry()\n" in new.test.read_text()
    assert "class NormPenalty(Component)" in new.method.read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kore", "there is a method 'kore' already"),
        ("Norm", "'Norm' is no name for a method: use lower case, digits and hyphens"),
        ("my_norm", "'my_norm' is no name for a method"),
        ("../norm", "'../norm' is no name for a method"),
        ("9th", "'9th' is no name for a method"),
        ("class", "'class' is the name of a Python module already: choose another, such as my-class"),
        ("random", "'random' is the name of a Python module already"),
        ("torch", "'torch' is the name of a Python module already"),
    ],
)
def test_bad_names_are_refused(name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["new", "method", name, "--folder", str(tmp_path)])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("taken", ["fresh_idea.py", "test_fresh_idea.py", "fresh-idea.md"])
def test_nothing_is_written_over(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(UserError, match=rf"{re.escape(taken)} is there already"):
        new_method("fresh-idea", tmp_path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(taken, "mine")]
    with pytest.raises(UserError, match="there is no such folder"):
        new_method("fresh-idea", tmp_path / "nowhere")


@pytest.mark.usefixtures("in_process")
def test_the_guides_example_goes_from_paper_to_row(small_world: Path, cache: Path, tmp_path: Path) -> None:
    """Its code and its commands, as they stand there; only the data are fewer."""
    part = GUIDE.partition("## From a paper to a row")[2].partition("\n## ")[0]
    [code] = re.findall(r"```python\n(# my_l2_sp\.py.*?)```", part, re.DOTALL)
    commands = re.findall(r"^    ((?:kore-bench|pytest) .*)$", part, re.MULTILINE)
    assert [command.split()[:2] for command in commands] == [
        ["kore-bench", "new"], ["pytest", "--pyargs"], ["kore-bench", "run"], ["kore-bench", "table"],
    ]  # fmt: skip
    shown = []
    for command in commands:
        more = ["--data", str(small_world)] if command.startswith("kore-bench run") else []
        shown.append(run(command, tmp_path, *more))
        if "new method" in command:
            (tmp_path / "my_l2_sp.py").write_text(code)
    assert "passed" in shown[1]
    [row] = [line for line in shown[3].splitlines() if line.strip("*_ ").startswith("my-l2-sp")]
    assert re.search(r"\d+\.\d\d", row)
