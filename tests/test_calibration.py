"""Calibration sets of one's own: their grammar, their pools and draws, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore_bench.calibration import (
    Source,
    calibrated,
    draw_held_out,
    draw_old,
    parse_calibration,
    plan_knowledge,
    seen_skills,
    settle,
)
from kore_bench.errors import UserError
from kore_bench.examples import Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.grid import list_cells
from kore_bench.plan import OldSettings, Plan, Request, make_plan, preflight


def write_set(folder: Path, name: str, count: int, pictures: int = 1) -> Path:
    """Write a LLaVA conversation file of ``count`` rows about ``pictures`` pictures each."""
    folder.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    for row in range(count):
        images = [f"{name}-{row}-{picture}.png" for picture in range(pictures)]
        for image in images:
            Image.new("RGB", (24, 24), (row % 256, len(image), 7)).save(folder / image)
        said = [
            {"from": "human", "value": "<image>" * pictures + f"what is {row}?"},
            {"from": "gpt", "value": f"{row}"},
        ]
        rows.append({"id": f"{name}{row}", "image": images, "conversations": said})
    file = folder / f"{name}.json"
    file.write_text(json.dumps(rows))
    return file


def plan(small_world: Path, *settings: str, methods: tuple[str, ...] = ("kore-null",), **more: Any) -> Plan:
    return make_plan(Request(methods=methods, data=str(small_world), settings=settings, **more))


def checked(plan_: Plan, tmp_path: Path) -> Knowledge:
    return preflight(plan_, tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("a.json", [Source("a.json")]),
        ("a.json:64, b.json:32", [Source("a.json", 64), Source("b.json", 32)]),
        ("toolkit:MME", [Source("toolkit:MME")]),
        ("toolkit:MME:8", [Source("toolkit:MME", 8)]),
    ],
)
def test_a_calibration_is_names_with_numbers(text: str, sources: list[Source]) -> None:
    assert list(parse_calibration(text)) == sources


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.json,", "a name is missing"),
        ("a.json:64,b.json", "to every source or to none"),
        ("a.json:64,a.json:8", "names a.json twice"),
        ("a.json:0", "take at least 1 sample"),
    ],
)
def test_other_forms_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_calibration(text)


def test_numbers_of_the_sources_are_the_settings() -> None:
    old = OldSettings(calibration="a.json:64,b.json:8")
    assert settle(old, samples_given=False) == replace(old, samples=72, skills=2)
    assert settle(OldSettings(calibration="a,b,c"), samples_given=False).samples == 256
    assert settle(OldSettings(), samples_given=True) == OldSettings()
    with pytest.raises(UserError, match=r"takes 72 samples, and old\.samples is 256"):
        settle(old, samples_given=True)


def test_each_source_gives_its_share(small_world: Path, tmp_path: Path) -> None:
    one, two = write_set(tmp_path, "one", 6), write_set(tmp_path, "two", 9)
    found = plan(small_world, f"old.calibration={one}:2,{two}:5")
    knowledge = checked(found, tmp_path)
    drawn = draw_old(knowledge, found.old, 0)
    assert [sample.source for sample in drawn] == ["one.json"] * 2 + ["two.json"] * 5
    assert drawn == draw_old(knowledge, found.old, 0) != draw_old(knowledge, found.old, 1)
    assert seen_skills(knowledge, found.old, 3) == {"one.json", "two.json"}
    held_out = draw_held_out(knowledge, drawn, 0)
    assert held_out
    assert not set(held_out) & set(drawn)
    equal = plan(small_world, f"old.calibration={one},{two}", "old.samples=7")
    assert [sample.source for sample in draw_old(knowledge, equal.old, 0)].count("one.json") == 4


def test_a_set_taken_whole_is_the_same_for_every_seed(small_world: Path, tmp_path: Path) -> None:
    found = plan(small_world, f"old.calibration={write_set(tmp_path, 'one', 5)}:5")
    knowledge = checked(found, tmp_path)
    assert draw_old(knowledge, found.old, 0) == draw_old(knowledge, found.old, 1)
    assert [sample.id for sample in draw_old(knowledge, found.old, 0)] == [f"one{row}" for row in range(5)]


def test_a_knowledge_folder_gives_its_old_samples(small_world: Path, tmp_path: Path) -> None:
    found = plan(small_world, f"old.calibration={small_world}:12")
    drawn = draw_old(checked(found, tmp_path), found.old, 0)
    own = read_knowledge(small_world)
    assert set(drawn) < {sample for pool in own.old.values() for sample in pool}
    assert {sample.source for sample in drawn} <= set(own.old)


def test_a_task_gives_its_questions_with_their_answers(small_world: Path, tmp_path: Path) -> None:
    found = plan(small_world, "old.calibration=retention:4")
    knowledge = checked(found, tmp_path)
    by_id = {question.id: question for question in knowledge.retention}
    for sample in draw_old(knowledge, found.old, 0):
        question = by_id[sample.id]
        assert sample.turns[0].answer == question.answer
        assert sample.images == question.images
        assert sample.source == question.type
    assert seen_skills(knowledge, found.old, 0) == {question.type for question in knowledge.retention}


def test_what_trains_on_old_samples_may_not_have_a_tasks_answers(small_world: Path, tmp_path: Path) -> None:
    for method in ("replay", "ewc+replay"):
        with pytest.raises(UserError, match="--calibration retention would let it train on answers"):
            checked(plan(small_world, "old.calibration=retention:4", methods=(method,)), tmp_path)
    file = write_set(tmp_path, "one", 4)
    checked(plan(small_world, f"old.calibration={file}:4", methods=("replay",)), tmp_path)


def test_keys_hold_the_content(small_world: Path, tmp_path: Path) -> None:
    file = write_set(tmp_path, "one", 4)
    found = plan(small_world, f"old.calibration={file}:2")

    def keys() -> list[str]:
        return [cell.key for cell in list_cells(found, plan_knowledge(found))]

    before = keys()
    assert keys() == before
    Image.new("RGB", (24, 24), (1, 2, 3)).save(tmp_path / "one-0-0.png")
    after = keys()
    assert not set(before) & set(after)
    file.write_text(file.read_text().replace("what is 1?", "what was 1?"))
    assert not set(keys()) & set(after)
    plain = plan(small_world)
    knowledge = read_knowledge(small_world)
    assert calibrated(plain, knowledge) is knowledge


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ("{folder}/gone.json", "gone.json is neither a file, a folder nor a task"),
        ("retentoin", "did you mean 'retention'"),
        ("nowhere:MME", "nowhere:MME is neither a file, a folder nor a task"),
        ("{folder}/empty.json", "empty.json holds no rows"),
        ("{folder}/cut.json", r"cut.json, line 1, column \d+: .* the file may be cut off"),
        ("{folder}/one.json:1", "1 sample to calibrate on says next to nothing"),
        ("{folder}/one.json:9", "one.json has 4 samples, not 9"),
        ("{folder}/one.json", "one.json has 4 samples, not 256"),
        ("{folder}/broken.json:2", "image '.*broken-1-0.png'"),
        ("{folder}/one.json:2,{folder}/more/one.json:2", "two sources are called one.json"),
    ],
)
def test_what_cannot_calibrate_is_said(small_world: Path, tmp_path: Path, calibration: str, message: str) -> None:
    write_set(tmp_path, "one", 4)
    (tmp_path / "more").mkdir()
    write_set(tmp_path / "more", "one", 4)
    write_set(tmp_path, "broken", 2)
    (tmp_path / "broken-1-0.png").write_bytes(b"no picture")
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "cut.json").write_text((tmp_path / "one.json").read_text()[:90])
    with pytest.raises(UserError, match=message):
        checked(plan(small_world, f"old.calibration={calibration.format(folder=tmp_path)}"), tmp_path)
