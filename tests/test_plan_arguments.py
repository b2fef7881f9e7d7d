"""Plans beyond `run`: `kore_bench.run(plan=...)` asks for what the command asks for, and `tune --plan` for its part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kore_bench
from kore_bench import api, session
from kore_bench.cli import main
from kore_bench.errors import UserError
from kore_bench.plan import Request
from kore_bench.plan_files import list_plans

OWN = """\
methods: [kore, lora]
model: mini-llava
seeds: 3
limit: 5
offline: true
calibration: mme:256
sweep: {kore-null.rank: "8,16"}
set: {train.steps: 30, train.batch-size: 8}
models:
  mini-*:
    calibration: ""
    rerun: always
"""
Asked = list[tuple[Request, Path]]


class AskedError(Exception):
    """What was asked for is known, and nothing runs."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    """Return requests and run folders of `kore_bench.run`, `run` and `tune`, in place of running them."""
    seen: Asked = []

    def prepare(request: Request, folder: Path) -> Any:
        seen.append((request, folder))
        raise AskedError

    def run(request: Request, runs: Path, name: str, *, checked: Any, **options: Any) -> int:
        seen.append((request, runs / name))
        return 0

    def tune(request: Request, runs: Path, file: Path, **options: Any) -> int:
        seen.append((request, runs))
        return 0

    monkeypatch.setattr(api, "prepare", prepare)
    monkeypatch.setattr(session, "run_session", run)
    monkeypatch.setattr(session, "tune_session", tune)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(OWN)
    return seen


def from_python(**arguments: Any) -> None:
    with pytest.raises(AskedError):
        kore_bench.run(**arguments)


def from_command(*arguments: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 0


@pytest.mark.parametrize("model", ["llava-7b", "mini-llava"])
@pytest.mark.parametrize("name", list_plans())
def test_both_sides_ask_for_the_same(name: str, model: str, asked: Asked) -> None:
    from_command("run", "--plan", name, "--model", model, "--data", "EVOKE")
    from_python(plan=name, model=model, data="EVOKE")
    assert asked[0] == asked[1]
    assert asked[0][1].name.startswith(f"{model}-")


def test_a_plan_of_ones_own_gives_what_no_argument_says(asked: Asked) -> None:
    from_command("run", "--plan", "my.yaml", "--set", "train.batch_size=4")
    from_python(plan="my.yaml", settings={"train.batch_size": 4})
    assert asked[0] == asked[1]
    request, folder = asked[1]
    assert request.methods == ("kore:kore-null.rank=8", "kore:kore-null.rank=16", "lora")
    assert (request.seeds, request.limit, request.offline) == ((0, 1, 2), 5, True)
    assert request.settings == ("train.steps=30", "train.batch_size=4")
    assert folder == Path("runs/mini-llava-my")
    from_python(plan="my.yaml", seeds=1, limit=0, model="llava-7b", name="mine", methods="ewc", sweeps={})
    request, folder = asked[2]
    assert (request.methods, request.seeds, request.limit, request.model) == (("ewc",), (0,), 0, "llava-7b")
    assert request.settings == ("old.calibration=mme:256", "train.steps=30", "train.batch-size=8")
    assert folder == Path("runs/mine")


def test_a_tuning_takes_its_part_of_a_plan(asked: Asked) -> None:
    from_command("tune", "--plan", "my.yaml")
    request, runs = asked[0]
    assert (request.methods, request.model, request.split) == (("kore", "lora"), "mini-llava", "validation")
    assert request.settings == ("train.steps=30", "train.batch-size=8")
    assert (request.seeds, request.tasks, runs) == ((0,), ("adaptation", "retention"), Path("runs"))
    from_command("tune", "--plan", "paper/table12-mme", "--model", "llava-7b", "--methods", "lora")
    assert asked[1][0].methods == ("lora",)
    assert asked[1][0].settings == ("old.calibration=mme:256",)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("metods: [kore]", r"bad.yaml, line 1: there is no option 'metods': did you mean 'methods'"),
        ("seeds: three", "bad.yaml, line 1: seeds: 'three' is no number"),
        ("offline: perhaps", "bad.yaml, line 1: offline: 'perhaps' is neither true nor false"),
        ("dry-run: true", "bad.yaml, line 1: there is no option 'dry-run'"),
    ],
)
def test_what_is_wrong_in_a_plan_is_named(line: str, sentence: str, asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(line)
    with pytest.raises(UserError, match=sentence):
        kore_bench.run(plan="bad.yaml")


def test_an_option_that_no_command_has_is_refused_when_tuning(asked: Asked, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "bad.yaml").write_text("metods: [kore]")
    with pytest.raises(SystemExit) as exit_:
        main(["tune", "--plan", "bad.yaml"])
    assert exit_.value.code == 2
    assert "tune has no option 'metods': did you mean 'methods'" in capsys.readouterr().err
