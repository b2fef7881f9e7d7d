"""EVOKE as it is published: files and archives below the folder, no sidecars, items and questions paired by name."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore_bench.cache import cache_folder
from kore_bench.errors import UserError
from kore_bench.examples import Item, Question
from kore_bench.formats import check_images, convert, images_of, read_knowledge
from kore_bench.formats.digests import content_digest
from kore_bench.formats.pairing import pair
from kore_bench.formats.pictures import Pictures

made: Any = importlib.import_module("evoke_folder")
evoke_folder, item_row, name_of, pack, picture = made.evoke_folder, made.item_row, made.name_of, made.pack, made.picture


@pytest.fixture
def evoke(tmp_path: Path) -> Path:
    return Path(evoke_folder(tmp_path / "EVOKE"))


def test_the_published_layout_is_read_as_it_is(evoke: Path) -> None:
    knowledge = read_knowledge(evoke)
    check_images(knowledge)
    assert (len(knowledge.items), len(knowledge.questions), knowledge.old, knowledge.retention) == (13, 13, {}, ())
    storm = knowledge.items[0]
    assert (storm.name, storm.type, storm.kind) == ("1900 Storm Memorial", "visual artwork", "wiki")
    assert storm.text == knowledge.questions[0].context
    assert knowledge.name_of(storm.image) == "wikidata_imgs/1900 Storm Memorial_wiki.jpg"
    assert [question.group for question in knowledge.questions] == [item.id for item in knowledge.items]
    for offset, images in (
        (0, [item.image for item in knowledge.items]),
        (100, [q.images[0] for q in knowledge.questions]),
    ):
        assert [image.read_bytes() for image in images] == [picture(offset + number) for number in range(13)]
    assert not any(path.suffix == ".jpg" for path in evoke.rglob("*"))  # the folder itself is left as it is


def test_unpacked_by_hand_it_is_the_same_knowledge(evoke: Path, tmp_path: Path) -> None:
    packed = read_knowledge(evoke)
    for archive in sorted(evoke.rglob("*.zip")):
        shutil.unpack_archive(archive, archive.parent)
        archive.unlink()
    by_hand = read_knowledge(evoke)
    assert by_hand.unpacked == ()
    assert by_hand.digest != packed.digest  # the images' names within the folder are others
    assert [replace(item, image=Path()) for item in by_hand.items] == [
        replace(item, image=Path()) for item in packed.items
    ]
    moved = evoke.rename(tmp_path / "elsewhere")
    assert read_knowledge(moved).digest == by_hand.digest


def test_a_missing_archive_is_a_missing_image(evoke: Path) -> None:
    (evoke / "imgs/evaluation/evoke_news_evaluation_imgs.zip").unlink()
    with pytest.raises(UserError) as caught:
        read_knowledge(evoke)
    assert str(caught.value).startswith(f"{evoke / 'json/evoke_evaluation_data.jsonl'}, line 2, field 'image': no file")


def test_an_image_of_another_archive_is_never_taken_for_a_missing_one(evoke: Path) -> None:
    pack(evoke / "imgs/other.zip", {"other/eval_wikidata/1900 Storm Memorial visual artwork_0.jpg": picture(0)})
    (evoke / "imgs/evaluation/evoke_entity_evaluation_imgs.zip").unlink()
    with pytest.raises(UserError, match=r"line 1, field 'image': no file 'eval_wikidata_imgs/1900 Storm"):
        read_knowledge(evoke)


def test_a_broken_archive_is_named(evoke: Path) -> None:
    archive = evoke / "imgs/injection/evoke_news_injection_imgs.zip"
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(UserError, match=r"evoke_news_injection_imgs\.zip cannot be unpacked: file is not a zip file"):
        read_knowledge(evoke)


def test_rows_on_one_line_are_told_apart_by_their_index(evoke: Path) -> None:
    file = evoke / "json/evoke_injection_data.json"
    items = json.loads(file.read_text(encoding="utf-8"))
    del items[5]["image"]
    file.write_text(json.dumps(items), encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1, row 5, field 'image': missing, the row has 'id', 'conversations'"):
        read_knowledge(evoke)


def test_a_file_longer_than_a_piece_keeps_its_lines_and_columns(evoke: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kore_bench.formats.json_rows.PIECE", 7)
    file = evoke / "json/evoke_injection_data.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    assert len(read_knowledge(evoke).items) == 13
    text = file.read_text(encoding="utf-8")
    at = text.index('"id": 22')
    for changed, problem, place in (
        (text[:at] + "x" + text[at:], "not valid JSON (Expecting property name enclosed in double quotes)", at),
        (text[: at + 1], "not valid JSON (Unterminated string starting at); the file may be cut off", at),
    ):
        file.write_text(changed, encoding="utf-8")
        line, column = text.count("\n", 0, place) + 1, place - text.rindex("\n", 0, place)
        with pytest.raises(UserError) as caught:
            read_knowledge(evoke)
        assert str(caught.value) == f"{file}, line {line}, column {column}: {problem}"
    file.write_bytes(text[:at].encode() + b"\xff" + text[at:].encode())
    line = text.count("\n", 0, at) + 1
    with pytest.raises(UserError, match=rf"line {line}: not UTF-8 text \(byte 0xff\); save the file as UTF-8"):
        read_knowledge(evoke)


def test_written_and_read_again_it_is_the_same(small_world: Path, tmp_path: Path) -> None:
    convert(small_world, tmp_path / "copy", "evoke")
    first, again = read_knowledge(small_world), read_knowledge(tmp_path / "copy")
    assert [path.read_bytes() for path in images_of(first)] == [path.read_bytes() for path in images_of(again)]
    moved = dict(zip(images_of(first), images_of(again), strict=True))
    for part in ("items", "questions", "retention", "old_facts"):
        assert [_moved(noun, moved) for noun in getattr(first, part)] == list(getattr(again, part))
    assert {skill: [_moved(each, moved) for each in pool] for skill, pool in first.old.items()} == {
        skill: list(pool) for skill, pool in again.old.items()
    }


def _moved(noun: object, moved: dict[Path, Path]) -> object:
    changes: dict[str, Any] = {}
    for field in ("image", "images", "retrieved"):
        value = getattr(noun, field, None)
        if isinstance(value, Path):
            changes[field] = moved[value]
        elif value is not None:
            changes[field] = tuple(moved[path] for path in value)
    return replace(noun, **changes)  # type: ignore[type-var]


# --- pairing ---


def item(id: str, image: str, name: str = "") -> Item:
    return Item(id=id, image=Path(image), prompt="", text=f"text {id}", name=name)


def question(id: str, group: str, type: str = "film") -> Question:
    return Question(id=id, images=(), text="", answer="", type=type, group=group)


ITEMS = [item("1", "w/Zed_wiki.jpg", "Zed"), item("2", "w/Zed_wiki.jpg", "Zed"), item("3", "cnn/cnn_7/2.jpg")]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([question("9", "cnn_7")], {"9": "3"}),
        ([question("9", "cnn_70")], {}),
        ([question("9", "Zed film")], {}),  # two items have the name
        ([question("2", "Zed film")], {"2": "2"}),
        ([question("3", "Zed film")], {}),
        ([question("1", "1"), question("2", "2")], {}),  # equal numbers alone, and not of every item
        ([question("1", "1"), question("2", "cnn_7"), question("3", "x")], {"1": "1", "2": "3", "3": "3"}),
    ],
)
def test_pairs(asked: list[Question], found: dict[str, str]) -> None:
    assert pair({each.id: each for each in ITEMS}, asked) == found


def test_the_sample_is_paired_by_names_without_its_numbers(evoke: Path) -> None:
    file = evoke / "json/evoke_injection_data.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps([{**row, "id": f"item {row['id']}"} for row in rows]), encoding="utf-8")
    assert [found.group for found in read_knowledge(evoke).questions] == [f"item {row['id']}" for row in rows]


# --- pictures and digests ---


def test_names_outside_the_folder_are_refused_and_inside_it_may_be_absolute(tmp_path: Path) -> None:
    (tmp_path / "data/imgs").mkdir(parents=True)
    (tmp_path / "1.jpg").write_bytes(picture(1))
    (tmp_path / "data/imgs/1.jpg").write_bytes(picture(1))
    pictures = Pictures(tmp_path / "data")
    inside = str(tmp_path / "data/imgs/1.jpg")
    assert pictures.find(inside) == (Path(inside), "")
    assert pictures.find("1.jpg") == (Path(inside), "")
    for name in ("../1.jpg", str(tmp_path / "1.jpg"), "imgs/../../1.jpg"):
        assert pictures.find(name) == (None, f"{name!r} leads out of the data folder")


def test_the_digest_of_a_large_set_is_remembered_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kore_bench.formats.digests._LARGE", 10)
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "1.jpg"
    file.write_bytes(picture(1))
    first = content_digest({"1": file})
    (note,) = (cache_folder() / "digests").iterdir()
    assert note.read_text() == first
    note.write_text("remembered")
    assert content_digest({"1": file}) == "remembered"
    assert content_digest({"2": file}) not in ("remembered", first)
    file.write_bytes(picture(2))
    assert content_digest({"1": file}) not in ("remembered", first)


def test_images_found_whole_are_not_decoded_again(evoke: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knowledge = read_knowledge(evoke)
    check_images(knowledge)
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: pytest.fail("decoded again"))
    check_images(knowledge)


def test_the_maker_of_this_folder_names_items_as_evoke_does() -> None:
    row = {"question_id": 1, "image": "e/A B film_0.jpg", "type": "film", "cnn_wiki_type": "wiki", "answer": "x"}
    assert (name_of(row), item_row(row)["image"]) == ("A B", "wikidata_imgs/A B_wiki.jpg")
