"""`kore-bench data`: what a check counts and finds, its exit codes, and a set written in another format."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kore_bench.cli import main
from kore_bench.data_check import check
from kore_bench.formats import read_conversations

made: Any = importlib.import_module("evoke_folder")
evoke_folder, kore_folder, picture = made.evoke_folder, made.kore_folder, made.picture

INJECTION, EVALUATION = "evoke_injection_data.json", "evoke_evaluation_data.jsonl"


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return int(exit_.value.code or 0)


@pytest.fixture
def evoke(tmp_path: Path) -> Path:
    """Return an EVOKE folder whose images lie unpacked, so that they can be spoilt."""
    import shutil

    root = Path(evoke_folder(tmp_path / "EVOKE"))
    for archive in sorted(root.rglob("*.zip")):
        shutil.unpack_archive(archive, root)
        archive.unlink()
    for file in (INJECTION, EVALUATION):
        (root / "json" / file).rename(root / file)
    return root


def test_a_sound_set(evoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked = check(evoke)
    assert checked.sound
    assert checked.counts["kind"] == {"wiki": {"items": 7, "questions": 7}, "news": {"items": 6, "questions": 6}}
    assert checked.counts["type"]["film"] == {"items": 2, "questions": 2}
    assert (checked.images, checked.questions, checked.paired, checked.overlaps) == (26, 13, 13, ())
    assert [question.answer for question in checked.unreachable] == ["'ten foot tall'", "'Ángel o demonio'", "$419,300"]
    assert call("data", "check", str(evoke)) == 0
    shown = capsys.readouterr().out
    assert re.search(r"wiki +7 +7\n", shown)
    for line in (
        "images: 26 found, 0 missing, 0 broken",
        "questions whose item is known: 13 of 13",
        "gold answers that the official CEM cannot reach: 3 of 13",
        "  question 44: $419,300",
        "images both injected and asked about (same bytes): 0",
        "every row and image can be used",
    ):
        assert f"{line}\n" in shown


def test_everything_that_is_wrong_is_found_at_once(evoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (evoke / EVALUATION).read_text(encoding="utf-8").splitlines()]
    (evoke / rows[0]["image"]).unlink()
    (evoke / rows[1]["image"]).write_bytes(picture(1)[:200])
    rows[2]["image"] = "../outside.jpg"
    (evoke.parent / "outside.jpg").write_bytes(picture(2))
    rows[3]["answer"] = ""
    del rows[4]["image"]
    (evoke / EVALUATION).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    items = json.loads((evoke / INJECTION).read_text(encoding="utf-8"))
    (evoke / rows[5]["image"]).write_bytes((evoke / items[5]["image"]).read_bytes())
    checked = check(evoke)
    assert not checked.sound
    assert [problem.removeprefix(f"{evoke / EVALUATION}, ").split(":")[0] for problem in checked.problems] == [
        "line 1, field 'image'", "line 3, field 'image'", "line 4, field 'answer'", "line 5, field 'image'",
    ]  # fmt: skip
    assert checked.missing == 2
    assert checked.images == 26 - 4  # of five rows, the second's image alone is there
    (broken,) = checked.broken.items()
    assert broken[0] == rows[1]["image"]
    assert broken[1].startswith("cannot be decoded")
    assert checked.overlaps == ((items[5]["image"], rows[5]["image"]),)
    assert checked.questions == 11
    assert call("data", "check", str(evoke)) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "images: 22 found, 2 missing, 1 broken" in shown
    assert "rows: 4 problems" in shown
    assert f"{items[5]['image']} = {rows[5]['image']}" in shown
    assert "a run would stop at the first of these" in shown


def test_many_findings_are_counted_and_some_shown(evoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for image in evoke.glob("*imgs/**/*.jpg"):
        image.write_bytes(b"x")
    types = [json.loads(line) for line in (evoke / EVALUATION).read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(types):
        row["type"] = f"[bold]type {number}[/]"  # a set's own words are no markup
    (evoke / EVALUATION).write_text("".join(json.dumps(row) + "\n" for row in types), encoding="utf-8")
    assert call("data", "check", str(evoke)) == 1
    shown = capsys.readouterr().out
    assert "26 broken" in shown
    assert "\n  and 16 more\n" in shown
    assert "[bold]type 12[/]" in shown


def test_conversations_are_checked_too(evoke: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kore = kore_folder(tmp_path / "KORE-74K")
    checked = check(kore)
    assert checked.counts["set"] == {
        "all": {"conversations": 65, "turns": 78},
        "one turn": {"conversations": 52, "turns": 52},
        "several turns": {"conversations": 13, "turns": 26},
    }
    assert (checked.images, checked.missing, len(checked.problems)) == (52, 13, 13)  # the items' own lie with EVOKE
    assert call("data", "check", str(kore)) == 1
    assert "images: 52 found, 13 missing, 0 broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda root: (root / INJECTION).write_bytes(b'[{"id": 1'), "line 1, column 10: not valid JSON"),
        (lambda root: (root / EVALUATION).unlink(), f"has no {EVALUATION}"),
        (lambda root: (root / EVALUATION).write_bytes(b""), f"{EVALUATION} holds no rows"),
        (lambda root: (root / "images.zip").write_bytes(b"PK"), "images.zip cannot be unpacked"),
        (lambda root: root.rename(root.with_name("elsewhere")), "there is no folder or file"),
    ],
)
def test_what_cannot_be_read_at_all_ends_with_2(
    evoke: Path, capsys: pytest.CaptureFixture[str], spoil: object, problem: str
) -> None:
    assert callable(spoil)
    first = json.loads((evoke / EVALUATION).read_text(encoding="utf-8").splitlines()[0])["image"]
    (evoke / first).unlink()  # a missing image alone is no reason to stop
    spoil(evoke)
    assert call("data", "check", str(evoke)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("error: ")
    assert problem in said


def test_a_set_is_converted(evoke: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", "convert", str(evoke), str(tmp_path / "made"), "--to", "llava") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "made/llava.json")
    assert len(read_conversations(tmp_path / "made").examples) == 13
    assert call("data", "convert", str(evoke), str(tmp_path / "made"), "--to", "sharegpt") == 2
    assert "is there already and not an empty folder" in capsys.readouterr().err


def test_the_mini_world_has_a_name(capsys: pytest.CaptureFixture[str], world: Path) -> None:
    assert call("data", "check", "mini") == 0
    assert re.search(r"COM +300 +256\n", capsys.readouterr().out)
