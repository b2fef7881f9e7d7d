"""The names of all commands and options and their help, frozen: what users have typed into scripts must go on working.

Where a change is meant, ``python tests/test_help.py`` writes the files below tests/data/help anew; read their
difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from kore_bench import options
from kore_bench.cli import app
from kore_bench.plan import DEFAULT_METHODS, DEFAULT_TASKS

FOLDER = Path(__file__).parent / "data" / "help"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def paths() -> list[tuple[str, ...]]:
    """Return every command by its words, such as ``("data", "check")``; the program itself has none."""
    return list(_below(get_command(app), ()))


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for name, child in getattr(command, "commands", {}).items():
        yield from _below(child, (*words, name))


def file_of(words: tuple[str, ...]) -> Path:
    """Return the file that holds a command's help."""
    return FOLDER / f"{'-'.join(words) or 'kore-bench'}.txt"


def render(words: tuple[str, ...]) -> str:
    """Return a command's help, 80 columns wide, without colours."""
    shown = CliRunner().invoke(app, [*words, "--help"], prog_name="kore-bench", env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    return "\n".join(line.rstrip() for line in _COLOUR.sub("", shown.output).strip().splitlines()) + "\n"


@pytest.mark.parametrize("words", paths(), ids=lambda words: " ".join(words) or "kore-bench")
def test_help_is_the_frozen_one(words: tuple[str, ...]) -> None:
    file = file_of(words)
    assert file.exists(), f"a new command: python {Path(__file__).name} writes its help"
    assert render(words) == file.read_text(encoding="utf-8")


def test_no_command_went_away() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {file_of(words).name for words in paths()}


def test_the_defaults_shown_are_those_of_a_request() -> None:
    assert tuple(options.METHODS.split(", ")) == DEFAULT_METHODS
    assert tuple(options.TASKS.split(", ")) == DEFAULT_TASKS


def regenerate() -> None:
    """Write the help of every command, and drop files of commands that are no more."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in FOLDER.iterdir():
        file.unlink()
    for words in paths():
        file_of(words).write_text(render(words), encoding="utf-8")


if __name__ == "__main__":
    regenerate()
