"""Calibration on VLMEvalKit's data sets: rows with their pictures and answers, seen again under either name."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kore_bench.calibration import draw_old, seen_questions
from kore_bench.errors import UserError
from kore_bench.plan import Plan, Request, make_plan, preflight
from kore_bench.vlmevalkit import toolkit

files: Any = importlib.import_module("vlmevalkit_files")

if importlib.util.find_spec("vlmeval") is None:
    pytest.skip("VLMEvalKit is not installed (docs/toolkits.md says how)", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("LMUData")
    files.write_all(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMUData", str(folder))
        toolkit("", "tests").close()
        yield folder
    toolkit("", "tests").close()


def planned(small_world: Path, calibration: str, *, methods: tuple[str, ...] = ("kore-null",), **more: Any) -> Plan:
    return make_plan(
        Request(methods=methods, data=str(small_world), settings=(f"old.calibration={calibration}",), **more)
    )


@pytest.mark.parametrize("source", ["vlmeval:MME", "mme"])
@pytest.mark.parametrize("task", ["vlmeval:MME", "mme"])
def test_rows_are_samples_and_counted_where_they_are_asked_again(
    small_world: Path, tmp_path: Path, source: str, task: str
) -> None:
    plan = planned(small_world, f"{source}:6,vlmeval:POPE:3", tasks=(task, "adaptation"))
    knowledge = preflight(plan, tmp_path / "run")
    drawn = draw_old(knowledge, plan.old, 0)
    assert [sample.source for sample in drawn].count("MME") == 6
    assert all(sample.images and sample.turns[0].answer in {"Yes", "No", "yes", "no"} for sample in drawn)
    assert seen_questions(plan, knowledge, drawn) == {task: 6}


def test_what_cannot_calibrate_is_said(small_world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="replay trains on the old samples, and --calibration mme would let it train"):
        preflight(planned(small_world, "vlmeval:MME:6", methods=("replay",), tasks=("mme",)), tmp_path / "run")
    preflight(planned(small_world, "vlmeval:MME:6", methods=("replay",), tasks=("pope",)), tmp_path / "run")
    with pytest.raises(UserError, match=r"vlmeval:MME has \d+ samples, not 100000"):
        preflight(planned(small_world, "vlmeval:MME:100000"), tmp_path / "run")
    with pytest.raises(UserError, match="VLMEvalKit has no data set 'MEM'"):
        preflight(planned(small_world, "vlmeval:MEM:6"), tmp_path / "run")
