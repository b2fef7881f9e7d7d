"""The knowledge folder: what is read from good files, and the exact place that is named for bad ones."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore_bench.errors import UserError
from kore_bench.examples import Fact, Turn
from kore_bench.formats import check_images, read_knowledge
from kore_bench.measures import reachable

DATA = Path(__file__).parent / "data"
INJECTION, EVALUATION, FACTS = "evoke_injection_data.json", "evoke_evaluation_data.jsonl", "facts.json"
RETENTION, OLD_FACTS, OLD = "retention.jsonl", "old_facts.jsonl", "old.json"

Row = dict[str, Any]


def conversation(id: str, image: str | list[str] | None, *said: str, **more: Any) -> Row:
    turns = [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(said)]
    return {"id": id, "conversations": turns, **({"image": image} if image else {}), **more}


def query(id: int, image: str | list[str], text: str, answer: str, **more: Any) -> Row:
    return {"question_id": id, "image": image, "text": text, "category": "default", "answer": answer, **more}


def good_rows() -> dict[str, list[Row]]:
    fact = {
        "subject": "Nova",
        "hypernym": "robot",
        "relation": "maker",
        "value": "Acme",
        "questions": ["Who made Nova?"],
    }
    return {
        INJECTION: [
            conversation("e1", "items/1.png", "<image>\nDescribe the robot.", "Nova was made by Acme.", name="Nova"),
            conversation("e2", "items/2.png", "Describe it.\n<image>", "Zed is a film.", name="Zed", type="film"),
        ],
        EVALUATION: [
            query(1, "eval/1.png", "Who made it?\nAnswer.", "Acme", type="robot", cnn_wiki_type="wiki", item="e1"),
            query(2, ["eval/1.png"], "<image>\nWho?", "Acme", item="e1"),
            query(3, "eval/1.png", "What is it?", "a film", item=""),
        ],
        FACTS: [
            {"id": "e1", "name": "other", "type": "robot", "retrieved": ["more/1.png", "eval/1.png"], "facts": [fact]},
            {"id": "e2", "name": "Zed", "type": "film"},
        ],
        RETENTION: [
            query(1, ["eval/1.png", "items/1.png"], "Same?", "no", type="M-IDU", cnn_wiki_type=""),
            query(2, "eval/1.png", "Red?", "yes", type="HAL", item="e1"),
        ],
        OLD_FACTS: [query(1, "eval/1.png", "Who?", "Eve", item="known")],
        OLD: [
            conversation("h1", "eval/1.png", "<image>\nRed?", "yes", skill="HAL"),
            conversation(
                "c1", ["eval/1.png", "items/1.png"], "<image>\n<image>\nSame?", "no", "Sure?", "yes", skill="COM"
            ),
            conversation("c2", None, "Two and two?", "four", skill="COM"),
        ],
    }


def write(root: Path, files: dict[str, list[Row]]) -> Path:
    """Write a knowledge folder, one row a line: the first stands on line 1 of JSONL and on line 2 of JSON."""
    for name in ("items/1.png", "items/2.png", "more/1.png", "eval/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), name == "eval/1.png").save(root / name)
    for name, rows in files.items():
        if name == FACTS:
            text = "{\n" + ",\n".join(f"{json.dumps(row.pop('id'))}: {json.dumps(row)}" for row in rows) + "\n}\n"
        elif name.endswith(".json"):
            text = "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"
        else:
            text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "world", good_rows())


def message(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        check_images(read_knowledge(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- good files ---


def test_items_with_their_sidecar(root: Path) -> None:
    first, second = read_knowledge(root).items
    assert (first.id, first.image, first.prompt) == ("e1", root / "items/1.png", "Describe the robot.")
    assert (first.text, first.name, first.type) == ("Nova was made by Acme.", "Nova", "robot")
    assert first.retrieved == (root / "more/1.png", root / "eval/1.png")
    assert first.facts == (
        Fact(subject="Nova", hypernym="robot", relation="maker", value="Acme", questions=("Who made Nova?",)),
    )
    assert (second.prompt, second.name, second.type, second.facts) == ("Describe it.", "Zed", "film", ())
    assert first.example().turns == (Turn(question="Describe the robot.", answer="Nova was made by Acme."),)


def test_questions_know_their_item(root: Path) -> None:
    knowledge = read_knowledge(root)
    named, marked, free = knowledge.questions
    assert (named.group, named.context, named.kind) == ("e1", "Nova was made by Acme.", "wiki")
    assert (marked.text, marked.images) == ("Who?", (root / "eval/1.png",))
    assert (free.id, free.group, free.context) == ("3", "3", "")
    assert [question.group for question in knowledge.retention] == ["1", "2"]
    assert knowledge.retention[0].images == (root / "eval/1.png", root / "items/1.png")
    assert [(question.group, question.context) for question in knowledge.old_facts] == [("known", "")]


def test_old_knowledge_by_skill_in_the_papers_order(root: Path) -> None:
    old = read_knowledge(root).old
    assert list(old) == ["COM", "HAL"]
    pair, text_only = old["COM"]
    assert pair.turns == (Turn(question="Same?", answer="no"), Turn(question="Sure?", answer="yes"))
    assert len(pair.images) == 2
    assert (pair.source, text_only.images) == ("COM", ())


def test_sidecars_are_optional(root: Path) -> None:
    for name in (FACTS, RETENTION, OLD_FACTS, OLD):
        (root / name).unlink()
    knowledge = read_knowledge(str(root))
    assert (knowledge.retention, knowledge.old_facts, knowledge.old) == ((), (), {})
    assert (knowledge.items[0].name, knowledge.items[0].type) == ("Nova", "robot")  # the type of its question


def test_genuine_evoke_rows(tmp_path: Path) -> None:
    root = write(tmp_path, {INJECTION: good_rows()[INJECTION]})
    shutil.copy(DATA / "evoke_sample.jsonl", root / EVALUATION)
    for line in (root / EVALUATION).read_text(encoding="utf-8").splitlines():
        image = root / json.loads(line)["image"]
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(image)
    knowledge = read_knowledge(root)
    check_images(knowledge)
    questions = {question.id: question for question in knowledge.questions}
    assert len(questions) == 13
    assert questions["1"].text.endswith("?'\nAnswer the question using a single word or phrase.")
    assert (questions["1"].group, questions["1"].type) == ("1900 Storm Memorial visual artwork", "visual artwork")
    assert questions["31"].group == "Live at the Greek (The Driver Era album) album"
    assert (questions["2"].group, questions["2"].kind) == ("cnn_2189", "news")
    assert sum(not reachable(question.answer) for question in knowledge.questions) == 3


@pytest.mark.parametrize(
    ("image", "kind", "group"),
    [
        ("eval/photo_1.png", "wiki", "7"),  # a number alone does not make an entity
        ("eval/Yon film_x.png", "wiki", "7"),
        ("eval/Yon film_12.png", "wiki", "Yon film"),
        ("cnn_3/Yon film_12.png", "wiki", "Yon film"),
        ("cnn_3/Zed_1.png", "news", "cnn_3"),
        ("news/Zed_1.png", "news", "7"),
    ],
)
def test_groups_from_image_names(root: Path, image: str, kind: str, group: str) -> None:
    (root / image).parent.mkdir(exist_ok=True)
    shutil.copy(root / "eval/1.png", root / image)
    row = query(7, image, "Who?", "x", type="film", cnn_wiki_type=kind)
    (root / EVALUATION).write_text(json.dumps(row), encoding="utf-8")
    assert read_knowledge(root).questions[0].group == group


def test_the_digest_depends_on_what_is_read_alone(root: Path, tmp_path: Path) -> None:
    digest = read_knowledge(root).digest
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    write(moved / "validation", good_rows())
    (moved / "notes.txt").write_text("not read", encoding="utf-8")
    assert read_knowledge(moved).digest == read_knowledge(moved / "validation").digest == digest
    Image.new("RGB", (4, 4), "red").save(moved / "items/2.png")
    changed_image = read_knowledge(moved).digest
    (moved / RETENTION).unlink()
    assert len({digest, changed_image, read_knowledge(moved).digest}) == 3


def test_byte_order_mark_blank_lines_and_line_separators_are_accepted(root: Path) -> None:
    rows = [query(1, "eval/1.png", "Who\u2028made it?", "Acme"), query(2, "eval/1.png", "Who?", "Acme")]
    lines = "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (root / EVALUATION).write_bytes(b"\xef\xbb\xbf" + lines.encode())
    (root / INJECTION).write_bytes(b"\xef\xbb\xbf" + json.dumps(good_rows()[INJECTION], indent=2).encode())
    assert [question.text for question in read_knowledge(root).questions] == ["Who\u2028made it?", "Who?"]
    assert len(read_knowledge(root).items) == 2


# --- bad fields: file, row, field, what is done to the row, what the message says ---


def put(field: str, value: Any) -> Callable[[Row], None]:
    return lambda row: row.update({field: value})


def said(turn: int, **change: str) -> Callable[[Row], None]:
    return lambda row: row["conversations"][turn].update(change)


BAD_FIELDS: list[tuple[str, int, str, Callable[[Row], object], str]] = [
    (INJECTION, 1, "id", lambda row: row.pop("id"), "missing, the row has 'conversations', 'image', 'name', 'type'"),
    (INJECTION, 1, "id", put("id", "e1"), "'e1' stands on line 2 already"),
    (INJECTION, 0, "id", put("id", True), "expected text or a whole number, found True"),
    (INJECTION, 1, "image", put("image", 3), "expected one relative path, found 3"),
    (INJECTION, 1, "image", put("image", ["items/1.png"]), "expected one relative path, found ['items/1.png']"),
    (INJECTION, 1, "image", put("image", "items/3.png"), "no file 'items/3.png' in "),
    (INJECTION, 1, "image", put("image", "items"), "no file 'items' in "),
    (INJECTION, 1, "image", put("image", "items/1.png\0"), "expected one relative path"),
    (INJECTION, 1, "image", put("image", "x" * 5000), "no file 'xxx"),
    (INJECTION, 1, "image", put("image", "/etc/passwd"), "'/etc/passwd' leads out of the data folder"),
    (INJECTION, 1, "image", put("image", "items/../../x.png"), "'items/../../x.png' leads out of the data"),
    (INJECTION, 1, "name", put("name", 5), "expected text without <image>, found 5"),
    (
        INJECTION,
        1,
        "cnn_wiki_type",
        put("cnn_wiki_type", "wikipedia"),
        "expected one of news, wiki, found 'wikipedia'; ",
    ),
    (INJECTION, 1, "conversations", put("conversations", []), "expected a list of objects, found []"),
    (INJECTION, 1, "conversations", put("conversations", ["hi"]), "expected a list of objects, found ['hi']"),
    (INJECTION, 0, "conversations", lambda row: row["conversations"].pop(), "the last question has no answer"),
    (
        INJECTION,
        0,
        "conversations",
        lambda row: row["conversations"].extend([{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]),
        "expected one question and one answer, found 2",
    ),
    (INJECTION, 0, "conversations[0].from", said(0, **{"from": "user"}), "expected one of human, gpt, found 'user'; "),
    (INJECTION, 0, "conversations[1].from", said(1, **{"from": "human"}), "expected 'gpt' (the two take turns"),
    (
        INJECTION,
        0,
        "conversations[1].value",
        lambda row: row["conversations"][1].pop("value"),
        "missing, the row has 'from'",
    ),
    (INJECTION, 0, "conversations[1].value", said(1, value=" \n"), "expected text, found empty text"),
    (INJECTION, 0, "conversations[0].value", said(0, value="<image>\n"), "no text beside <image>"),
    (INJECTION, 0, "conversations[0].value", said(0, value="Describe it."), "expected 1 <image> (one for each image"),
    (INJECTION, 0, "conversations[0].value", said(0, value="<image><image>Who?"), "found 2"),
    (INJECTION, 0, "conversations[1].value", said(1, value="<image> is a robot"), "expected 0 <image>"),
    (EVALUATION, 2, "question_id", put("question_id", 1), "'1' stands on line 1 already"),
    (EVALUATION, 2, "question_id", put("question_id", 1.5), "expected text or a whole number, found 1.5"),
    (EVALUATION, 2, "image", put("image", []), "expected a relative path or a list of them, found []"),
    (EVALUATION, 2, "image", put("image", ["eval/1.png", "eval/l.png"]), "; did you mean '1.png'?"),
    (EVALUATION, 2, "text", put("text", ""), "expected text, found empty text"),
    (EVALUATION, 2, "text", put("text", "<image> or <image>?"), "expected 1 <image>"),
    (EVALUATION, 2, "answer", lambda row: row.pop("answer"), "missing, the row has 'question_id'"),
    (EVALUATION, 2, "answer", put("answer", "  "), "expected text without <image>, found empty text"),
    (EVALUATION, 2, "answer", put("answer", None), "expected text without <image>, found None"),
    (EVALUATION, 2, "answer", put("answer", "<image>"), "expected text without <image>, found '<image>'"),
    (EVALUATION, 2, "answer", put("answer", "\ud800"), "expected text without <image>, found '\\ud800'"),
    (EVALUATION, 1, "item", put("item", "e22"), f"no item 'e22' in {INJECTION}; did you mean 'e2'?"),
    (FACTS, 1, "id", put("id", "e22"), f"no item 'e22' in {INJECTION}; did you mean 'e2'?"),
    (FACTS, 1, "id", put("id", "e1"), "'e1' stands on line 2 already"),
    (FACTS, 0, "retrieved", put("retrieved", ["items/2.png", 4]), "expected a relative path or a list of them"),
    (FACTS, 0, "retrieved", put("retrieved", ["items/2.png", "items/9.jpg"]), "no file 'items/9.jpg' in "),
    (FACTS, 0, "facts[0].value", lambda row: row["facts"][0].pop("value"), "missing, the row has 'subject'"),
    (
        FACTS,
        0,
        "facts[0].questions",
        lambda row: row["facts"][0].update(questions=[]),
        "expected a list of texts, found []",
    ),
    (
        FACTS,
        0,
        "facts[0].questions[0]",
        lambda row: row["facts"][0].update(subject="Novo"),
        "the subject 'Novo' does not stand in 'Who made Nova?'",
    ),
    (
        RETENTION,
        1,
        "type",
        put("type", "MATH"),
        "expected one of COM, OCR, M-DIS, INS, M-IDU, MAT, HAL, found 'MATH'; ",
    ),
    (RETENTION, 1, "type", lambda row: row.pop("type"), "missing, the row has "),
    (OLD_FACTS, 0, "image", put("image", "../world/eval/1.png"), "leads out of the data folder"),
    (OLD, 2, "skill", put("skill", "OLD"), "expected one of COM, OCR, M-DIS, INS, M-IDU, MAT, HAL, found 'OLD'; "),
    (OLD, 2, "image", put("image", {}), "expected a relative path or a list of them, found {}"),
    (OLD, 1, "conversations[2].value", said(2, value="<image> Sure?"), "expected 0 <image>"),
    (OLD, 1, "conversations[0].value", said(0, value="<image> Sure?"), "expected 2 <image>"),
    (OLD, 2, "conversations[0].value", said(0, value="<image> Sure?"), "expected 0 <image>"),
]


@pytest.mark.parametrize(("name", "index", "field", "change", "problem"), BAD_FIELDS)
def test_a_bad_field_is_named(
    tmp_path: Path, name: str, index: int, field: str, change: Callable[[Row], object], problem: str
) -> None:
    files = good_rows()
    change(files[name][index])
    found = message(write(tmp_path / "world", files))
    line = index + (2 if name.endswith(".json") else 1)
    assert found.startswith(f"{tmp_path / 'world' / name}, line {line}, field '{field}': ")
    assert problem in found


# --- bad files ---


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (INJECTION, b'[\n{"id": "a",\n "image" "b"}]', ", line 3, column 10: not valid JSON (Expecting ':' delimiter)"),
        (INJECTION, b"", ", line 1, column 1: expected '[', found the end"),
        (INJECTION, b"[\n]\n", " holds no rows"),
        (INJECTION, b'\n{"id": 1}', ", line 2, column 1: expected '[', found '{'"),
        (INJECTION, b"[\n 5]", ", line 2: expected an object, found 5"),
        (INJECTION, b"[[[" + b"[" * 100_000, ", line 1, column 2: JSON with a number too long or nested too deeply"),
        (INJECTION, b"[\n" + b"9" * 5000 + b"]", ", line 2, column 1: JSON with a number too long"),
        (
            EVALUATION,
            b'{"question_id": 1,\n"image": 3}',
            ", line 1, column 19: not valid JSON (Expecting property name",
        ),
        (EVALUATION, b"\n[1]\n", ", line 2: expected an object, found [1]"),
        (EVALUATION, b"\n \n", " holds no rows"),
        (EVALUATION, b"\xff\xfe{\x00", ", line 1: not UTF-8 text (byte 0xff); save the file as UTF-8"),
        (EVALUATION, b"\xef\xbb\xbf\n\n{\xe9}", ", line 3: not UTF-8 text (byte 0xe9); save the file as UTF-8"),
        (FACTS, b"[]", ", line 1, column 1: expected '{', found '['"),
        (FACTS, b'{"e1"\n "x"}', ", line 2, column 2: expected ':', found '\"'"),
        (FACTS, b'{"e1": {},\n}', ", line 2, column 1: expected '\"', found '}'"),
        (FACTS, b'{"e1": []}', ", line 1: expected an object, found []"),
        (OLD, b"{}", ", line 1, column 1: expected '[', found '{'"),
        (RETENTION, b"x", ", line 1, column 1: not valid JSON (Expecting value)"),
    ],
)
def test_a_bad_file_is_named_with_its_line(root: Path, name: str, content: bytes, problem: str) -> None:
    (root / name).write_bytes(content)
    assert message(root).startswith(f"{root / name}{problem}")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda text: text[:-2], "line 4, column 1: expected ',' or ']', found the end; the file may be cut off"),
        (lambda text: text + "[]", "line 5, column 1: expected the end, found '['"),
        (lambda text: text.replace("},\n", "}\n"), "line 3, column 1: expected ',' or ']', found '{'"),
        (lambda text: text.replace("\n]", ",\n]"), "line 4, column 1: not valid JSON (Expecting value)"),
    ],
    ids=["cut off", "trailing", "no comma", "comma at the end"],
)
def test_a_broken_array_is_named_with_its_line(root: Path, change: Callable[[str], str], place: str) -> None:
    (root / INJECTION).write_text(change((root / INJECTION).read_text(encoding="utf-8")), encoding="utf-8")
    assert message(root) == f"{root / INJECTION}, {place}"


def test_rows_of_an_indented_array_are_named_with_their_first_line(root: Path) -> None:
    rows = good_rows()[INJECTION]
    (root / INJECTION).write_text(json.dumps(rows, indent=4), encoding="utf-8")
    text = (root / INJECTION).read_text(encoding="utf-8")
    line = text[: text.index('    {\n        "id": "e2"')].count("\n") + 1
    (root / "items/2.png").unlink()
    assert message(root).startswith(f"{root / INJECTION}, line {line}, field 'image': no file 'items/2.png'")


def test_a_second_value_on_a_line_is_named(root: Path) -> None:
    (root / EVALUATION).write_text('{} {"question_id": 1}', encoding="utf-8")
    assert message(root) == f"{root / EVALUATION}, line 1, column 4: expected the end, found '{{'"


def test_a_missing_folder_or_file_names_the_nearest(root: Path) -> None:
    assert message(root.parent / "worl") == f"no knowledge folder '{root.parent / 'worl'}'; did you mean 'world'?"
    assert message(root.parent / "no" / "folder") == f"no knowledge folder '{root.parent / 'no' / 'folder'}'"
    (root / EVALUATION).rename(root / "evoke_evaluation.jsonl")
    found = message(root)
    assert f"the knowledge folder '{root}' has no {EVALUATION}; did you mean 'evoke_evaluation.jsonl'?" in found


def test_a_file_that_cannot_be_read_is_named(root: Path) -> None:
    (root / OLD).unlink()
    (root / OLD).mkdir()
    assert message(root) == f"{root / OLD} cannot be read: Is a directory"


def test_damaged_files_never_raise_anything_but_a_user_error(root: Path) -> None:
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        path = root / rng.choice([INJECTION, EVALUATION, FACTS, RETENTION, OLD])
        whole = path.read_bytes()
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(damaged))
            damaged[at : at + rng.randint(0, 3)] = rng.choice([b"", b"{", b"]", b'"', b"\\", b"\xff", b"0", b"null"])
        path.write_bytes(damaged)
        try:
            read_knowledge(root)
        except UserError as error:
            refused += 1
            assert str(path) in str(error) or INJECTION in str(error)  # noqa: PT017
        path.write_bytes(whole)
    assert refused > 150


# --- bad images ---


def truncated(kind: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        Image.effect_noise((64, 64), 50).save(path, kind)
        os.truncate(path, path.stat().st_size // 2)

    return spoil


def flipped(chunk: bytes, offset: int) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[data.index(chunk) + offset] ^= 0xFF
        path.write_bytes(data)

    return spoil


BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "text": (lambda path: path.write_text("not a picture", encoding="utf-8"), "is no picture of a known format (PNG, "),
    "postscript": (lambda path: Image.new("RGB", (4, 4)).save(path, "EPS"), "is no picture of a known format (PNG, "),
    "truncated PNG": (truncated("PNG"), "cannot be decoded ("),
    "truncated JPEG": (truncated("JPEG"), "cannot be decoded ("),
    "flipped data": (flipped(b"IDAT", 6), "cannot be decoded ("),
    "flipped check sum": (flipped(b"IEND", -5), "cannot be decoded ("),  # the last byte of IDAT's
    "header": (lambda path: path.write_bytes(path.read_bytes()[:20]), "cannot be decoded (Truncated"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
@pytest.mark.parametrize(
    ("image", "file", "line", "field"),
    [
        ("items/1.png", INJECTION, 2, "image"),
        ("items/2.png", INJECTION, 3, "image"),
        ("more/1.png", FACTS, 2, "retrieved"),
    ],
)
def test_a_bad_image_is_named_with_the_first_row_that_asks_for_it(
    root: Path, name: str, image: str, file: str, line: int, field: str
) -> None:
    spoil, problem = BAD_IMAGES[name]
    spoil(root / image)
    assert message(root).startswith(f"{root / file}, line {line}, field '{field}': image '{root / image}' {problem}")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # refused even where warnings are not
@pytest.mark.parametrize("limit", [30, 20])  # Pillow warns of more pixels than this, and refuses twice as many
def test_a_decompression_bomb_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    Image.new("RGB", (7, 7)).save(root / "items/2.png")
    assert f"{INJECTION}, line 3, field 'image': image" in (found := message(root))
    assert found.endswith(f"has more than {limit} pixels; scale it down")


def test_images_of_every_file_are_decoded(root: Path) -> None:
    for name, line in ((EVALUATION, 3), (RETENTION, 2), (OLD_FACTS, 1), (OLD, 4)):
        files = good_rows()
        files[name][-1]["image"] = f"{name}.png"
        if name == OLD:
            files[name][-1]["conversations"][0]["value"] = "<image>\nRed?"
        write(root, files)
        (root / f"{name}.png").write_bytes(b"x")
        assert message(root).startswith(f"{root / name}, line {line}, field 'image': image ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_common_formats_are_accepted(root: Path, kind: str) -> None:
    Image.effect_noise((8, 8), 50).save(root / "items/1.png", kind)
    check_images(read_knowledge(root))
