"""Every bad input ends in one sentence and the right exit code, without a traceback, and leaves nothing behind."""

from __future__ import annotations

import pickle
import shlex
from pathlib import Path
from typing import Any

import bad_data
import bad_files
import bad_options
import pytest
from bad_cases import Case
from bad_files import pickled

from kore_bench.cli import main

CASES = [*bad_options.CASES, *bad_data.CASES, *bad_files.CASES]
SAMPLE = 6
"""One case of so many runs with the fast tests; all run with the slow ones."""


def marked(number: int, case: Case) -> Any:
    return pytest.param(case, id=case.name, marks=() if number % SAMPLE == 0 else pytest.mark.slow)


@pytest.mark.parametrize("case", [marked(number, case) for number, case in enumerate(CASES)])
def test_a_bad_input_is_refused_in_a_sentence(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    case.build(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        main(shlex.split(case.command))
    shown = capsys.readouterr()
    said = shown.out if case.out else shown.err
    assert end.value.code == case.code, said
    assert "Traceback" not in shown.err
    assert case.says in said
    assert "\x1b" not in said
    if not case.out:
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 or "Usage" in said, said
    assert case.leaves or sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", bad_data.GOOD)
def test_an_unusual_picture_is_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bad_data.good(tmp_path, name)
    with pytest.raises(SystemExit) as end:
        main(["data", "check", "data"])
    assert end.value.code == 0, capsys.readouterr().out


def test_there_are_enough_cases_and_no_two_are_the_same() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.says for case in CASES)


def test_the_pickles_are_live(tmp_path: Path) -> None:
    """Loaded, each would make a folder, which the refused commands left unmade."""
    pickle.loads(pickled(tmp_path / "done"))
    assert (tmp_path / "done").is_dir()
