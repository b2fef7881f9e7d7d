"""What every report must hold: it reads a run and writes below its folder, equal bytes for equal records, gaps as gaps."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from kore_bench.conformance.made_up import HOSTILE, write_run
from kore_bench.registry import Registry, digest_files
from kore_bench.report import Report, TableStyle
from kore_bench.results import RunFolder

FORMATS: tuple[Literal["latex", "markdown", "csv", "text"], ...] = ("latex", "markdown", "csv", "text")


@pytest.fixture
def the_report(report: str, registry: Registry) -> Report:
    """Return the report that is tested."""
    found: Report = registry.find("reports", report)
    return found


def test_report_describes_itself(the_report: Report) -> None:
    """It has a name for --reports, a title, and a kind that says when it is built."""
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", the_report.name), f"{the_report.name!r} is no name for --reports"
    assert the_report.title
    assert the_report.kind in ("table", "figure", "page")


def test_report_writes_equal_bytes_below_its_folder(the_report: Report, run_folder: RunFolder, tmp_path: Path) -> None:
    """It returns what it writes, touches nothing of the run, and writes the same again."""
    before = _contents(run_folder.path)
    built = [_built(the_report, run_folder, tmp_path / name) for name in ("one", "two")]
    assert _contents(run_folder.path) == before, "the run was changed"
    assert built[0], "it has nothing to show: name a run that it can show by --run"
    assert built[0] == built[1], "equal records gave other bytes"


@pytest.mark.parametrize("left", [(), ("base",), ("base", "lora")])
def test_report_bears_gaps(the_report: Report, left: tuple[str, ...], registry: Registry, tmp_path: Path) -> None:
    """A run of which only the cells in ``left`` are done, the others failed and without files, is shown as it is."""
    run = write_run(tmp_path / "run", registry)
    for record in run.records():
        if record.method not in left:
            empty: dict[str, Any] = {"scores": {}, "tasks": {}, "settings": {}, "diagnostics": {}}
            run.write(run.name_of(record), replace(record, status="failed", reason="it broke", **empty))
            for file in run.cell(run.name_of(record)).rglob("*.jsonl"):
                file.unlink()
    _built(the_report, run, tmp_path / "out")


def test_report_escapes_what_models_say(the_report: Report, registry: Registry, tmp_path: Path) -> None:
    """A model's answer is no markup of a page."""
    for name, content in _built(the_report, write_run(tmp_path / "run", registry), tmp_path / "out").items():
        if name.endswith((".html", ".svg")):
            assert HOSTILE.encode() not in content, f"{name} holds {HOSTILE} as it is"


def test_report_gives_its_table_in_every_format(the_report: Report, run_folder: RunFolder) -> None:
    """A table that `kore-bench table` can print has all formats, with and without counts and intervals."""
    if the_report.render is None:
        pytest.skip("it is no table for `kore-bench table`")
    for format_ in FORMATS:
        plain, full = (
            the_report.render(run_folder, TableStyle(format=format_, n=on, intervals=on)) for on in (False, True)
        )
        assert plain.strip()
        assert full.strip()
        assert plain == the_report.render(run_folder, TableStyle(format=format_))


def _built(report: Report, run: RunFolder, folder: Path) -> dict[str, bytes]:
    """Return the content of the files that a report writes below ``folder``, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = report.build(run, folder)
    assert sorted(files) == sorted(path for path in folder.rglob("*") if path.is_file()), "it must name what it writes"
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _contents(folder: Path) -> str:
    return digest_files(sorted(path for path in folder.rglob("*") if path.is_file()))
