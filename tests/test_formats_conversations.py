"""Conversation sets in every format: read, written and read again, and the exact place of what is wrong."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Example, Turn
from kore_bench.formats import (
    FORMATS,
    Conversations,
    check_images,
    conversation_files,
    convert,
    format_of,
    huggingface,
    images_of,
    read_conversations,
    read_knowledge,
)
from kore_bench.formats.evoke_writer import tables_of

made: Any = importlib.import_module("evoke_folder")
evoke_folder = made.evoke_folder
kore_folder = made.kore_folder
kore_rows = made.kore_rows
picture = made.picture
spoken = made.spoken
Row = dict[str, Any]

ROWS: list[Row] = [
    {"id": "a", "image": "p/1.jpg", "conversations": spoken(["<image>\nWho?", "Eve", "Sure?", "yes"])},
    {"id": "a", "image": ["p/1.jpg", "p/2.jpg"], "conversations": spoken(["<image>\n<image>\nSame?", "no"])},
    {"id": 7, "conversations": spoken(["Two and two?", "four \u2028 \U0001f642"])},
]


def write(root: Path, rows: list[Row], name: str = "data.json") -> Path:
    (root / "p").mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        (root / f"p/{number}.jpg").write_bytes(picture(number))
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"
    if name.endswith("l"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def as_sharegpt(row: Row) -> Row:
    images = row.get("image", [])
    return {"conversations": row["conversations"], "images": [images] if isinstance(images, str) else images}


def as_messages(row: Row) -> Row:
    names = {"human": "user", "gpt": "assistant"}
    turns = [{"role": names[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    return {"messages": turns, "images": as_sharegpt(row)["images"]}


def content(found: Conversations) -> list[tuple[tuple[Turn, ...], list[bytes]]]:
    return [(example.turns, [image.read_bytes() for image in example.images]) for example in found.examples]


EXPECTED = [
    ((Turn(question="Who?", answer="Eve"), Turn(question="Sure?", answer="yes")), [picture(1)]),
    ((Turn(question="Same?", answer="no"),), [picture(1), picture(2)]),
    ((Turn(question="Two and two?", answer="four \u2028 \U0001f642"),), []),
]


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
@pytest.mark.parametrize(
    ("form", "change"),
    [("llava", lambda row: row), ("sharegpt", as_sharegpt), ("sharegpt", as_messages)],
    ids=["llava", "sharegpt", "messages"],
)
def test_every_spelling_is_read(tmp_path: Path, name: str, form: str, change: Callable[[Row], Row]) -> None:
    file = write(tmp_path, [change(row) for row in ROWS], name)
    assert format_of(file) == format_of(tmp_path) == form
    found = read_conversations(file)
    assert content(found) == content(read_conversations(tmp_path)) == EXPECTED
    assert {example.source for example in found.examples} == {form}
    assert conversation_files(tmp_path) == (file,)


def test_ids_are_those_of_the_rows_and_each_its_own(tmp_path: Path) -> None:
    assert [example.id for example in read_conversations(write(tmp_path, ROWS)).examples] == ["a", "a/2", "7"]
    nameless = write(tmp_path, [as_sharegpt(row) for row in ROWS])
    assert [example.id for example in read_conversations(nameless).examples] == ["line-2", "line-3", "line-4"]


@pytest.mark.parametrize("form", [name for name, made in FORMATS.items() if made.write_conversations])
@pytest.mark.parametrize("again", [name for name, made in FORMATS.items() if made.write_conversations])
def test_written_and_read_again_it_is_the_same(tmp_path: Path, form: str, again: str) -> None:
    convert(write(tmp_path / "source", ROWS), tmp_path / "first", form)
    convert(tmp_path / "first", tmp_path / "second", again)
    assert (format_of(tmp_path / "first"), format_of(tmp_path / "second")) == (form, again)
    found = read_conversations(tmp_path / "second")
    assert content(found) == EXPECTED
    assert [example.id for example in found.examples] == ["a", "a/2", "7"]


def test_llama_factory_finds_what_is_written_for_it(tmp_path: Path) -> None:
    convert(write(tmp_path / "source", ROWS), tmp_path / "made", "sharegpt")
    (entry,) = json.loads((tmp_path / "made/dataset_info.json").read_text(encoding="utf-8")).values()
    rows = json.loads((tmp_path / "made" / entry["file_name"]).read_text(encoding="utf-8"))
    assert entry["formatting"] == "sharegpt"
    for row in rows:
        turns, images = row[entry["columns"]["messages"]], row[entry["columns"]["images"]]
        assert "".join(turn["value"] for turn in turns).count("<image>") == len(images)
        assert all((tmp_path / "made" / image).is_file() for image in images)


def test_images_of_two_folders_with_one_name_stay_apart(tmp_path: Path) -> None:
    rows = [{"image": f"{side}/1.jpg", "conversations": spoken(["<image>\nWho?", side])} for side in ("a", "images/a")]
    write(tmp_path / "source", rows)
    for number, side in enumerate(("a", "images/a")):
        (tmp_path / "source" / side).mkdir(parents=True)
        (tmp_path / "source" / side / "1.jpg").write_bytes(picture(number))
    convert(tmp_path / "source", tmp_path / "made", "llava")
    assert [images for _, images in content(read_conversations(tmp_path / "made"))] == [[picture(0)], [picture(1)]]


def test_an_item_becomes_a_conversation(tmp_path: Path) -> None:
    evoke = evoke_folder(tmp_path / "EVOKE")
    convert(evoke, tmp_path / "made", "sharegpt")
    items = read_knowledge(evoke).items
    assert content(read_conversations(tmp_path / "made")) == [
        (item.example().turns, [item.image.read_bytes()]) for item in items
    ]


# --- Hugging Face ---


def test_a_knowledge_set_as_a_data_set(tmp_path: Path) -> None:
    evoke = evoke_folder(tmp_path / "EVOKE")
    convert(evoke, tmp_path / "made", "huggingface")
    assert format_of(tmp_path / "made") == "huggingface"
    first, again = read_knowledge(evoke), read_knowledge(tmp_path / "made")
    check_images(again)
    assert [path.read_bytes() for path in images_of(again)] == [path.read_bytes() for path in images_of(first)]
    assert [(found.id, found.text, found.group, found.context) for found in again.questions] == [
        (found.id, found.text, found.group, found.context) for found in first.questions
    ]
    assert [(item.id, item.name, item.type) for item in again.items] == [
        (item.id, item.name, item.type) for item in first.items
    ]
    assert again.name_of(again.questions[3].images[0]) == "evaluation/image/3-0.jpg"
    assert again.digest != first.digest
    assert again.digest == read_knowledge(tmp_path / "made").digest


def test_parquet_files_are_splits_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    convert(evoke_folder(tmp_path / "EVOKE"), tmp_path / "made", "huggingface")
    (tmp_path / "parquet").mkdir()
    for split, made in datasets.load_from_disk(str(tmp_path / "made")).items():
        half = len(made) // 2
        for part, rows in enumerate((range(half), range(half, len(made)))):
            made.select(rows).to_parquet(str(tmp_path / f"parquet/{split}-{part:05}-of-00002.parquet"))
    found, expected = read_knowledge(tmp_path / "parquet"), read_knowledge(tmp_path / "made")
    assert [question.text for question in found.questions] == [question.text for question in expected.questions]
    assert [path.read_bytes() for path in images_of(found)] == [path.read_bytes() for path in images_of(expected)]


def test_bad_rows_of_a_data_set_are_named_by_split_and_row(tmp_path: Path) -> None:
    evoke = evoke_folder(tmp_path / "EVOKE")
    knowledge = read_knowledge(evoke)
    made = tables_of(knowledge)
    made["evoke_evaluation_data.jsonl"][4]["answer"] = ""
    made["evoke_evaluation_data.jsonl"][7]["image"] = None
    from datasets import DatasetDict

    for row, problem in ((4, "field 'answer': expected text without <image>, found empty text"),
                         (7, "field 'image': missing, the row has 'question_id', 'text'")):  # fmt: skip
        splits = {huggingface.SPLITS[table]: huggingface._dataset(rows) for table, rows in made.items()}
        DatasetDict(splits).save_to_disk(str(tmp_path / f"bad {row}"))
        with pytest.raises(UserError) as caught:
            read_knowledge(tmp_path / f"bad {row}")
        assert str(caught.value).startswith(f"{tmp_path / f'bad {row}'} [evaluation], row {row}, {problem}")
        made["evoke_evaluation_data.jsonl"][4]["answer"] = "whole again"


def test_a_picture_that_is_only_a_path_is_not_followed(tmp_path: Path) -> None:
    """A set may name any file of the machine that it is read on."""
    pyarrow: Any = importlib.import_module("pyarrow")
    from datasets import Dataset, Features, Image, List, Value

    (tmp_path / "secret.jpg").write_bytes(picture(1))
    struct = pyarrow.array([{"bytes": None, "path": str(tmp_path / "secret.jpg")}])
    turn = pyarrow.array([[{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "Eve"}]])
    features = Features({"image": Image(), "conversations": List({"from": Value("string"), "value": Value("string")})})
    table = pyarrow.table({"image": struct, "conversations": turn})
    found = Dataset(table.cast(features.arrow_schema)).cast(features)
    folder = huggingface._pictures(found, "train")
    assert [file.read_bytes() for file in folder.rglob("*.jpg")] == [b""]


def test_a_missing_split_and_an_unreadable_set_are_named(tmp_path: Path) -> None:
    convert(write(tmp_path / "source", ROWS), tmp_path / "made", "huggingface")
    with pytest.raises(UserError, match=r"made has no split injection; available: train"):
        read_knowledge(tmp_path / "made")
    (arrow,) = (tmp_path / "made").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(UserError, match=r"made cannot be read as a Hugging Face data set: "):
        read_conversations(tmp_path / "made")


def test_a_name_on_the_hub_goes_through_the_same_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    convert(write(tmp_path / "source", ROWS), tmp_path / "made", "huggingface")
    made = datasets.load_from_disk(str(tmp_path / "made"))
    asked: list[str] = []

    def load(name: str) -> Any:
        asked.append(name)
        if name != "owner/some-set":
            raise ConnectionError(f"Couldn't reach {name!r} on the Hub\nmore")
        return datasets.DatasetDict({"train": made})

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    assert content(read_conversations("owner/some-set")) == EXPECTED
    with pytest.raises(UserError) as caught:
        read_conversations("owner/sone-set")
    assert str(caught.value) == (
        "there is no folder or file 'owner/sone-set' here, and no such data set can be had from the hub: "
        "Couldn't reach 'owner/sone-set' on the Hub"
    )
    before = len(asked)
    with pytest.raises(UserError, match=r"there is no folder or file 'source/dat.json'; did you mean 'data.json'"):
        read_conversations("source/dat.json")  # its folder is here, so the hub is not asked
    assert len(asked) == before


# --- what is wrong ---


def put(field: str, value: Any) -> Callable[[Row], object]:
    return lambda row: row.update({field: value})


BAD: list[tuple[str, int, Callable[[Row], object], str]] = [
    ("llava", 0, put("image", "p/3.jpg"), "field 'image': no file 'p/3.jpg' in "),
    ("llava", 0, put("image", "../p/1.jpg"), "field 'image': '../p/1.jpg' leads out of the data folder"),
    ("llava", 0, lambda row: row.pop("image"), "field 'conversations[0].value': expected 0 <image> (one for each"),
    ("llava", 1, put("conversations", None), "field 'conversations': expected a list of objects, found None"),
    ("sharegpt", 0, put("images", ["p/1.jpg", 3]), "field 'images': expected a relative path or a list of them"),
    ("sharegpt", 0, put("images", []), "field 'conversations[0].value': expected 0 <image> (one for each"),
    ("messages", 0, lambda row: row["messages"][0].update(role="system"), "field 'messages[0].role': expected one of "),
    ("messages", 0, lambda row: row["messages"].pop(), "field 'messages': the last question has no answer"),
    ("messages", 2, lambda row: row["messages"][1].pop("content"), "field 'messages[1].content': missing, the row"),
]


@pytest.mark.parametrize(("form", "index", "change", "problem"), BAD)
def test_a_bad_field_is_named(
    tmp_path: Path, form: str, index: int, change: Callable[[Row], object], problem: str
) -> None:
    made = {"llava": lambda row: row, "sharegpt": as_sharegpt, "messages": as_messages}[form]
    rows = [made(json.loads(json.dumps(row))) for row in ROWS]
    change(rows[index])
    file = write(tmp_path, rows)
    with pytest.raises(UserError) as caught:
        read_conversations(file)
    assert str(caught.value).startswith(f"{file}, line {index + 2}, {problem}")


def test_files_that_are_no_data_set_are_named(tmp_path: Path) -> None:
    file = write(tmp_path, [{"prompt": "x"}])
    with pytest.raises(UserError, match=r"line 2: a row with 'prompt' is of no known format \(evoke, llava, sharegpt"):
        format_of(file)
    write(tmp_path, ROWS, "more.json")
    with pytest.raises(UserError, match=r"of JSON files it has 2: data.json, more.json; name one of them"):
        format_of(tmp_path)
    with pytest.raises(UserError, match=r"of JSON files it has none"):
        format_of(tmp_path / "p")
    (tmp_path / "more.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match=r"more\.json holds no rows"):
        format_of(tmp_path / "more.json")


def test_what_cannot_be_converted_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "source", ROWS)
    with pytest.raises(UserError, match=r"--to evoke: .* has conversations but no evaluation questions"):
        convert(file, tmp_path / "made", "evoke")
    assert not (tmp_path / "made").exists()
    with pytest.raises(UserError, match=r"--to lava: did you mean 'llava'"):
        convert(file, tmp_path / "made", "lava")
    with pytest.raises(UserError, match=r"source is there already and not an empty folder"):
        convert(file, tmp_path / "source", "llava")


def test_kore_74k_in_its_published_layout(tmp_path: Path) -> None:
    evoke, kore = evoke_folder(tmp_path / "EVOKE"), kore_folder(tmp_path / "KORE-74K")
    items = read_knowledge(evoke).items
    found = read_conversations(kore, known=tuple(item.image for item in items))
    assert len(found.examples) == len(kore_rows()) == 65
    own = [example for example in found.examples if len(example.turns) > 1]
    assert [example.images for example in own] == [(item.image,) for item in items]
    assert len({image.read_bytes() for example in found.examples for image in example.images}) == 65
    with pytest.raises(UserError, match=r"line 1, field 'image': no file 'wikidata_imgs/1900 Storm Memorial_wiki"):
        read_conversations(kore)
    example: Example = found.examples[2]
    assert example.turns[0].question == "Describe it.\nAnswer the question in one paragraph."
