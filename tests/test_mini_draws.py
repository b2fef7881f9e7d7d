"""Tests of further draws of the mini world: how many, how alike, apart from each other, and refused where impossible."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kore_bench.calibration import draws, plan_knowledge
from kore_bench.errors import UserError
from kore_bench.formats import read_knowledge
from kore_bench.grid import list_cells
from kore_bench.mini import world, world_folder
from kore_bench.mini.architecture import processor
from kore_bench.mini.drawing import SHAPES
from kore_bench.mini.draws import crowded, drawn, write_draw
from kore_bench.mini.probes import look_alike, shapes_of
from kore_bench.mini.settings import WorldSettings
from kore_bench.plan import Request, make_plan
from kore_bench.reports.browser_images import image_folders

records: Any = importlib.import_module("report_records")

FEW = WorldSettings(entities=12, draws="seed")


def _shared(one: world.Entity, other: world.Entity) -> int:
    return sum(map(str.__eq__, shapes_of(one), shapes_of(other)))


def _files(folder: Path, pattern: str) -> dict[str, str]:
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def _plan(*settings: str, seeds: tuple[int, ...] = (0,), **options: Any) -> Any:
    return make_plan(Request(methods=("lora",), settings=settings, seeds=seeds, **options))


@pytest.fixture(scope="module")
def folders(cache: Path) -> tuple[Path, Path]:
    return world_folder(cache, FEW, 0), world_folder(cache, FEW, 1)


def test_fewer_entities_are_the_first_of_more() -> None:
    assert drawn(WorldSettings(entities=600), 3)[:60] == drawn(WorldSettings(entities=60, draws="seed"), 3)


@pytest.mark.parametrize("entities", [60, 200, 600])
def test_entities_of_a_draw_share_neither_names_nor_looks_and_values_come_equally_often(entities: int) -> None:
    found = drawn(WorldSettings(entities=entities), 0)
    assert len({entity.name for entity in found}) == len({shapes_of(entity) for entity in found}) == entities
    known = [*world.cast().old, *world.cast().main, *world.cast().validation]
    assert not {entity.name for entity in found} & {*world.cast().strangers, *(entity.name for entity in known)}
    for relation in range(5):
        counts = Counter(entity.values[relation] for entity in found)
        assert not set(counts) & {entity.values[relation] for entity in world.cast().old}
        assert max(counts.values()) == -(-entities // 96)
    assert len({entity.values for entity in found}) == entities


@pytest.mark.parametrize(("distance", "shared"), [("near", {3}), ("any", {1, 2}), ("far", {1})])
def test_distance_is_what_is_shared_with_the_likest_old_entity(distance: Any, shared: set[int]) -> None:
    found = drawn(WorldSettings(entities=48, distance=distance), 0)
    assert {max(_shared(entity, old) for old in world.cast().old) for entity in found} == shared
    if distance == "near":
        like = {tuple((symbol.color, symbol.tint) for symbol in old.symbols) for old in world.cast().old}
        assert all(tuple((symbol.color, symbol.tint) for symbol in entity.symbols) in like for entity in found)


def test_distances_differ_in_looks_alone_and_draws_in_everything() -> None:
    near, far = (drawn(WorldSettings(entities=48, distance=distance), 2) for distance in ("near", "far"))
    assert [(one.id, one.name, one.values) for one in near] == [(one.id, one.name, one.values) for one in far]
    other = drawn(WorldSettings(entities=48, distance="near"), 1)
    assert not {one.id for one in near} & {one.id for one in other}
    assert [one.values for one in near] != [one.values for one in other]
    assert [one.symbols for one in near] != [one.symbols for one in other]


def test_more_entities_than_looks_are_refused() -> None:
    with pytest.raises(UserError, match=r"world\.entities=60: with world\.distance=far .* of 53 different looks"):
        drawn(WorldSettings(entities=60, distance="far"), 0)


def test_words_of_a_draw_are_words_that_the_bases_know() -> None:
    tokenizer = processor().tokenizer
    texts = [text for entity in drawn(WorldSettings(entities=600), 1) for text in (entity.name, *entity.values)]
    assert not [text for text in texts if tokenizer.unk_token_id in tokenizer(text)["input_ids"]]


def test_a_draw_keeps_what_is_old_and_asked_of_it(cache: Path, folders: tuple[Path, Path]) -> None:
    main = world_folder(cache)
    for pattern in ("retention.jsonl", "old_facts.jsonl", "old.json", "images/com/*", "images/old-*/*"):
        assert _files(folders[0], pattern) == _files(main, pattern) != {}
    assert _files(folders[0] / "validation", "**/*") == _files(main / "validation", "**/*") != {}
    assert {path.name for path in (folders[0] / "images").glob("draw*")} >= {"draw0-items", "draw0-evaluation"}
    assert not (folders[0] / "images" / "items").exists()


def test_two_draws_share_no_question_about_what_is_injected(folders: tuple[Path, Path]) -> None:
    one, other = (read_knowledge(folder) for folder in folders)
    assert len(one.items) == 12
    assert len(one.questions) == 60
    for first, second in [(one.questions, other.questions), *((one.probes[p], other.probes[p]) for p in one.probes)]:
        assert not {question.id for question in first} & {question.id for question in second}
        assert not {question.group for question in first} & {question.group for question in second}
    names = [{know.name_of(image) for question in know.questions for image in question.images} for know in (one, other)]
    assert not names[0] & names[1]
    assert one.retention[0].id == other.retention[0].id


def test_the_same_draw_is_written_byte_for_byte(tmp_path: Path, cache: Path, folders: tuple[Path, Path]) -> None:
    write_draw(tmp_path / "again", world_folder(cache), FEW, 1)
    assert _files(tmp_path / "again", "**/*") == _files(folders[1], "**/*")


def test_no_look_alike_is_as_near_to_another_entity() -> None:

    found = drawn(WorldSettings(entities=200), 0)
    everyone = [*world.cast().old, *found]
    taken, rng = crowded(everyone), Random(0)
    twins = [(entity, twin) for entity in found if (twin := look_alike(entity, taken, rng))]
    assert len(twins) > 150
    for entity, twin in twins[:40]:
        assert [_shared(twin, other) >= 3 for other in everyone].count(True) == 1
        assert _shared(twin, entity) == 3


def test_an_entity_whose_look_alikes_are_all_taken_has_none() -> None:

    everything = frozenset(product(SHAPES, repeat=4))
    assert look_alike(world.cast().main[0], everything, Random(0)) is None


def test_each_seed_has_its_own_knowledge_and_keys(folders: tuple[Path, Path]) -> None:
    plan = _plan("world.entities=12", "world.draws=seed", seeds=(0, 1))
    found = draws(plan)
    assert tuple(knowledge.root for knowledge in found.values()) == folders
    assert found[0].digest != found[1].digest
    assert found[1].digest == plan_knowledge(plan, 1).digest
    keys = {cell.seed: cell.key for cell in list_cells(plan, found[0], found) if cell.method == "lora"}
    alone = list_cells(_plan("world.entities=12", "world.draws=seed", seeds=(1,)), found[1])
    assert keys[1] in {cell.key for cell in alone}
    fixed = _plan("world.entities=12", seeds=(0, 1))
    assert draws(fixed) == {}
    assert fixed.knowledge_folder(0) == fixed.knowledge_folder(1)


def test_the_page_finds_the_pictures_of_every_draw(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    run = records.write_run(tmp_path, seeds=(0, 1), methods=("lora",))
    found = [replace(record, data={**record.data, "root": folders[record.seed].name}) for record in run.records()]
    assert image_folders(run, found) == folders
    assert image_folders(run, found[1:2]) == (folders[found[1].seed],)


def test_the_main_world_stays_the_default() -> None:
    assert _plan().world.main
    assert not _plan("world.draws=seed").world.main


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ("world.entities=1", {}, "world.entities=1 must be at least 2"),
        ("world.distance=nearby", {}, "world.distance=nearby is not one of any, near, far"),
        ("world.drawn=seed", {}, "did you mean 'draws'"),
        ("world.entities=90", {"data": "/data/evoke"}, "is about the mini world, and --data is /data/evoke"),
        ("world.entities=90", {"model": "llava-7b"}, "llava-7b knows nothing of the mini world"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _plan(settings, **options)


def test_tuned_rates_are_those_of_other_settings(folders: tuple[Path, Path]) -> None:
    knowledge = read_knowledge(folders[0])
    [cell] = [cell for cell in list_cells(_plan("world.entities=12"), knowledge) if cell.method == "lora"]
    assert cell.tuned == "tuned at other settings"
    assert json.loads((folders[0] / "evoke_injection_data.json").read_text())[0]["id"].startswith("draw0-")
