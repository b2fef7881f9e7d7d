"""Options in a YAML file: what is read, what wins, what is refused with file and line, and what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kore_bench import session
from kore_bench.cli import main
from kore_bench.launch import Launch
from kore_bench.plan import Request


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Replace what `run` and `tune` do by a list of what they were asked for; the working folder is a new one."""
    seen: list[dict[str, Any]] = []

    def run(request: Request, runs: Path, name: str, *, checked: Any, out: Any, **options: Any) -> int:
        checked()
        seen.append({"request": request, "runs": runs, "name": name, **options})
        return 0

    def tune(request: Request, runs: Path, file: Path, *, out: Any, **options: Any) -> int:
        seen.append({"request": request, "runs": runs, "file": file, **options})
        return 0

    monkeypatch.setattr(session, "run_session", run)
    monkeypatch.setattr(session, "tune_session", tune)
    monkeypatch.chdir(tmp_path)
    return seen


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return int(exit_.value.code or 0)


FULL = """\
# a comment
methods: [lora, kore-null]
model: some/model
data: world
tasks: adaptation
seeds: 3
set:
  train.steps: 4
  kore-null.rank: 16
tuning: rates.json
name: 2024
runs: here
jobs: 2
gpus_per_cell: 2
rerun: always
dry-run: yes
gpu: h100-80gb
plugin: [a.py, b.py]
"""


def test_every_option_is_read_under_its_own_name(calls: list[dict[str, Any]]) -> None:
    Path("run.yaml").write_text(FULL)
    assert call("run", "--config", "run.yaml") == 0
    assert calls == [
        {
            "request": Request(
                methods=("lora", "kore-null"),
                model="some/model",
                data="world",
                tasks=("adaptation",),
                seeds=(0, 1, 2),
                settings=("train.steps=4", "kore-null.rank=16"),
                plugins=("a.py", "b.py"),
                tuning="rates.json",
                frontier=(0.5, 0.75),
            ),
            "runs": Path("here"),
            "name": "2024",
            "jobs": 2,
            "launch": Launch(gpus_per_cell=2),
            "rerun": "always",
            "dry_run": True,
            "gpu": "h100-80gb",
        }
    ]


def test_the_command_line_has_the_last_word(calls: list[dict[str, Any]]) -> None:
    Path("run.yaml").write_text(FULL)
    more = ["--methods", "kore", "--seeds", "1", "--set", "train.steps=9", "--set", "lora.rank=4", "--plugin", "c.py"]
    assert call("run", *more, "--config", "run.yaml", "--no-dry-run") == 0
    request = calls[0]["request"]
    assert (request.methods, request.seeds, request.plugins) == (("kore",), (0,), ("c.py",))
    assert request.settings == ("kore-null.rank=16", "train.steps=9", "lora.rank=4")
    assert (request.tasks, calls[0]["dry_run"], calls[0]["jobs"]) == (("adaptation",), False, 2)


def test_a_setting_given_again_in_another_spelling_replaces_the_files(calls: list[dict[str, Any]]) -> None:
    Path("run.yaml").write_text("set: [train.batch-size=4, train.steps=3]\n")
    assert call("run", "--config", "run.yaml", "--set", "train.batch_size=8") == 0
    assert calls[0]["request"].settings == ("train.steps=3", "train.batch_size=8")


def test_an_empty_file_changes_nothing(calls: list[dict[str, Any]]) -> None:
    Path("run.yaml").write_text("# nothing\n")
    assert call("run") == call("run", "--config", "run.yaml") == 0
    assert calls[0] == calls[1]


def test_tune_reads_a_config_of_its_own_options(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tune.yaml").write_text("methods: lora\nout: rates.json\nset: {train.steps: 2}\n")
    assert call("tune", "--config", "tune.yaml") == 0
    assert (calls[0]["file"], calls[0]["request"].settings) == (Path("rates.json"), ("train.steps=2",))
    Path("tune.yaml").write_text("seeds: 3\n")
    assert call("tune", "--config", "tune.yaml") == 2
    assert "tune.yaml, line 1: tune has no option 'seeds'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: 1\nmethds: lora\n", "run.yaml, line 2: run has no option 'methds': did you mean 'methods'?"),
        ("dry-run: true\ndry_run: true\n", "line 2: 'dry_run' is given on line 1 already, as 'dry-run': keep one"),
        ("seeds: 1\n\nseeds: 2\n", "line 3: 'seeds' is given on line 1 already: keep one"),
        ("seeds: two\n", "line 1: seeds: two: "),
        ("seeds: 0\n", "line 1: seeds: 0: "),
        ("rerun: sometimes\n", "line 1: rerun: sometimes: "),
        ("dry-run: maybe\n", "line 1: dry-run: maybe: "),
        ("seeds: [0, 1]\n", "line 1: seeds takes one value"),
        ("model: {name: x}\n", "line 1: model takes one value"),
        ("methods: {lora: 1}\n", "line 1: methods takes a list"),
        ("name:\n", "line 1: name: there is nothing on line 1"),
        (
            "set: {train.batch-size: 4, train.batch_size: 8}\n",
            "'train.batch_size' is given twice, once as 'train.batch",
        ),
        ("set: [train.steps=1, train.steps=2]\n", "'train.steps' is given twice: keep one"),
        ("set: [train.steps]\n", "'train.steps' must have the form name.field=value"),
        ("set:\n  train:\n    steps: 4\n", "line 1: set: what stands on line 3 is nested too deeply"),
        ("save-config: other.yaml\n", "line 1: --save-config is for the command line alone"),
        ("config: other.yaml\n", "line 1: --config is for the command line alone"),
        ("debug: true\n", "line 1: --debug is for the command line alone"),
        ("seeds: 1\nmethods: [lora\n", "line 3: this is no YAML"),
        ("- lora\n", "line 1: a config has an option on each line, such as 'seeds: 3'"),
        ("? [a]\n: b\n", "line 1: what stands on line 1 is nested too deeply"),
        ("name: !!python/object/apply:os.getcwd []\n", "line 1: name takes one value"),
    ],
)
def test_mistakes_name_file_and_line(
    text: str, message: str, calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.yaml").write_text(text)
    assert call("run", "--config", "run.yaml") == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: run.yaml, line ")
    assert message in shown
    assert not calls


@pytest.mark.parametrize(("file", "message"), [("no.yaml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read(
    file: str, message: str, calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", "--config", file) == 2
    assert f"error: --config {file} cannot be read: {message}" in capsys.readouterr().err
    Path("bytes.yaml").write_bytes(b"\xff\xfe\x80")
    assert call("run", "--config", "bytes.yaml") == 2
    assert "error: --config bytes.yaml is not UTF-8 text" in capsys.readouterr().err


def test_a_saved_config_reproduces_the_command(calls: list[dict[str, Any]]) -> None:
    given = ["--methods", "lora,ewc+replay", "--seeds", "2", "--set", "train.learning_rate=0.003", "--plugin", "p.py"]
    given += ["--set", "train.schedule=cosine", "--name", "007", "--rerun", "never", "--set", "train.steps=1e2"]
    assert call("run", *given, "--dry-run", "--save-config", "saved.yaml") == 0
    text = Path("saved.yaml").read_text()
    assert "train.learning_rate: 0.003\n" in text
    assert "dry" not in text
    assert call("run", *given) == call("run", "--config", "saved.yaml") == 0
    assert calls[1] == calls[2]
    assert call("run", "--config", "saved.yaml", "--save-config", "again.yaml") == 0
    assert Path("again.yaml").read_text().splitlines()[1:] == text.splitlines()[1:]


def test_a_config_is_saved_once_and_never_over_another(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # the same command goes on
        assert call("run", "--save-config", "saved.yaml") == 0
    before = Path("saved.yaml").read_text()
    assert call("run", "--seeds", "2", "--save-config", "saved.yaml") == 2
    assert "--save-config saved.yaml is there already, with other content" in capsys.readouterr().err
    assert Path("saved.yaml").read_text() == before


def test_a_command_that_fails_its_checks_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("run", "--methods", "nope", "--save-config", "saved.yaml") == 2
    assert "unknown method 'nope'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
