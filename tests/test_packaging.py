"""The package is whole: every plug-in folder is listed, versions agree, shipped data are there."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import kore_bench

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_folder_is_listed() -> None:
    found = {"kore_bench"}
    for top in ("kore_bench", "methods", "tasks", "reports"):
        prefix = "" if top == "kore_bench" else "kore_bench."
        for init in (ROOT / top).rglob("__init__.py"):
            found.add(prefix + ".".join(init.parent.relative_to(ROOT).parts))
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_plans_and_scaffolds_are_shipped() -> None:
    """The wheel holds what is no Python: setuptools' patterns cover every such file of these folders."""
    shipped = PROJECT["tool"]["setuptools"]["package-data"]
    for package, folder, ending in (("kore_bench", "plans", ".yaml"), ("kore_bench.scaffold", "", ".txt")):
        root = ROOT / package.replace(".", "/")
        covered = {file for pattern in shipped[package] for file in root.glob(pattern)}
        found = set((root / folder).rglob(f"*{ending}"))
        assert found
        assert found <= covered


def test_versions_agree() -> None:
    assert kore_bench.__version__ == PROJECT["project"]["version"]
    assert f"version: {kore_bench.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {kore_bench.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("folder", ["kore_bench", "methods", "tasks", "reports"])
def test_every_module_says_what_belongs_in_it(folder: str) -> None:
    for file in (ROOT / folder).rglob("*.py"):
        first = file.read_text().split("\n", 1)[0]
        assert first.startswith('"""'), file
        assert len(first) > 20, file


def test_the_engine_imports_no_plugin() -> None:
    for file in (ROOT / "kore_bench").rglob("*.py"):
        text = file.read_text()
        for folder in ("methods", "tasks", "reports"):
            assert f"from kore_bench.{folder}" not in text, file
            assert f"import kore_bench.{folder}" not in text, file
