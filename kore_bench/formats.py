"""The knowledge folder on disk: EVOKE's files and their sidecars, read with errors that name file, line and field.

Each file has a table of its fields below; everything that can be wrong with a row is said by ``_Row.error``.

| file | rows | required |
|---|---|---|
| ``evoke_injection_data.json`` | array of LLaVA conversations, one an item | yes |
| ``evoke_evaluation_data.jsonl`` | questions about the items | yes |
| ``facts.json`` | object: item id -> its structured facts and retrieved images | no |
| ``retention.jsonl`` | questions of the seven dimensions | no |
| ``old_facts.jsonl`` | questions about entities that the base knows | no |
| ``old.json`` | array of LLaVA conversations of old knowledge, each with its skill | no |
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import io
import json
import os
import re
import reprlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from kore_bench.errors import UserError, nearest
from kore_bench.examples import Example, Fact, Item, Knowledge, Question, Turn

INJECTION, EVALUATION, FACTS = "evoke_injection_data.json", "evoke_evaluation_data.jsonl", "facts.json"
RETENTION, OLD_FACTS, OLD = "retention.jsonl", "old_facts.jsonl", "old.json"

DIMENSIONS = ("COM", "OCR", "M-DIS", "INS", "M-IDU", "MAT", "HAL")
"""KORE's dimensions of retention, in the paper's order; also the skills of old knowledge."""

IMAGE_MARK = "<image>"
# Only decoders of plain pictures: Pillow would hand EPS to Ghostscript whatever the file is called.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def read_knowledge(folder: str | Path) -> Knowledge:
    """Return what ``folder`` holds, every field checked; images are found but not decoded (see ``check_images``).

    ``digest`` covers the names and bytes of all files read, images included, wherever the folder lies. A
    ``validation`` folder inside is a knowledge folder of its own and not part of this one.

    Raises UserError, naming file, line and field, for anything that cannot be used.
    """
    return _Reader(Path(folder)).knowledge()


def check_images(knowledge: Knowledge) -> None:
    """Decode every image; raise UserError for the first that cannot be, naming the row that asks for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for path in dict.fromkeys(_images(knowledge)):
            problem = _decoding_problem(path)
            if problem:
                # The nouns do not carry their lines, so that the files are read again, only now.
                reader = _Reader(knowledge.root)
                reader.knowledge()
                row, field = reader.images[path]
                raise row.error(field, f"image {str(path)!r} {problem}")


# --- what a field may hold ---


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What a field may hold: in words, and as a test; ``choices`` where only some names are valid."""

    expected: str
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    optional: bool = False


_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # a file's name cannot hold NUL, UTF-8 cannot hold half a surrogate pair


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not _UNUSABLE.search(value)


def _is_plain(value: Any) -> bool:
    return _is_text(value) and IMAGE_MARK not in value


def _is_id(value: Any) -> bool:
    return _is_plain(value) or (isinstance(value, int) and not isinstance(value, bool))


def _list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(accepts, value))


def _one_of(*choices: str) -> _Kind:
    return _Kind(expected=f"one of {', '.join(choices)}", accepts=lambda value: value in choices, choices=choices)


_PLAIN = _Kind(expected=f"text without {IMAGE_MARK}", accepts=_is_plain)
_MARKED = _Kind(expected="text", accepts=_is_text)
_TEXTS = _Kind(expected="a list of texts", accepts=_list_of(_is_plain))
_ID = _Kind(expected="text or a whole number", accepts=_is_id)
_PATH = _Kind(expected="one relative path", accepts=_is_text)
_PATHS = _Kind(
    expected="a relative path or a list of them", accepts=lambda value: _is_text(value) or _list_of(_is_text)(value)
)
_ROWS = _Kind(expected="a list of objects", accepts=_list_of(lambda value: isinstance(value, dict)))
_DIMENSION = _one_of(*DIMENSIONS)

_Fields = Mapping[str, _Kind]


def _optional(kind: _Kind) -> _Kind:
    return replace(kind, optional=True)


_NAME, _SOURCE = _optional(_PLAIN), _optional(_one_of("news", "wiki"))
_INJECTION_FIELDS: _Fields = {
    "id": _ID,
    "image": _PATH,
    "conversations": _ROWS,
    "name": _NAME,
    "type": _NAME,
    "cnn_wiki_type": _SOURCE,
}
_TURN_FIELDS: _Fields = {"from": _one_of("human", "gpt"), "value": _MARKED}
_QUESTION_FIELDS: _Fields = {
    "question_id": _ID,
    "image": _PATHS,
    "text": _MARKED,
    "answer": _PLAIN,
    "type": _NAME,
    "cnn_wiki_type": _SOURCE,
    "item": _optional(_ID),
}
_RETENTION_FIELDS: _Fields = {**_QUESTION_FIELDS, "type": _DIMENSION}
_OLD_FIELDS: _Fields = {"id": _ID, "image": _optional(_PATHS), "conversations": _ROWS, "skill": _DIMENSION}
_SIDECAR_FIELDS: _Fields = {
    "id": _ID,
    "name": _NAME,
    "type": _NAME,
    "retrieved": _optional(_PATHS),
    "facts": _optional(_ROWS),
}
_FACT_FIELDS: _Fields = {
    "subject": _PLAIN,
    "hypernym": _PLAIN,
    "relation": _PLAIN,
    "value": _PLAIN,
    "questions": _TEXTS,
}


# --- rows and where they stand ---


@dataclass(frozen=True)
class _Row:
    """One object of a file; ``inside`` leads to a part of a row, such as ``conversations[1].``."""

    file: Path
    line: int
    data: dict[str, Any]
    inside: str = ""

    def error(self, field: str, problem: str) -> UserError:
        return UserError(f"{self.file}, line {self.line}, field '{self.inside}{field}': {problem}")

    def check(self, fields: _Fields) -> None:
        """Raise UserError for the first field that is missing or holds what it may not."""
        for name, kind in fields.items():
            value = self.data.get(name)
            if kind.optional and value in (None, ""):
                continue
            if name not in self.data:
                raise self.error(name, f"missing, the row has {', '.join(map(repr, self.data)) or 'no fields'}")
            if not kind.accepts(value):
                hint = f"; {nearest(value, kind.choices)}" if kind.choices and isinstance(value, str) else ""
                raise self.error(name, f"expected {kind.expected}, found {_shown(value)}{hint}")

    def parts(self, field: str, fields: _Fields) -> list[_Row]:
        """Return the checked objects of a list field; none where an optional field is absent."""
        inside = self.data.get(field) or []
        parts = [_Row(self.file, self.line, part, f"{self.inside}{field}[{i}].") for i, part in enumerate(inside)]
        for part in parts:
            part.check(fields)
        return parts


def _shown(value: Any) -> str:
    return "empty text" if isinstance(value, str) and not value.strip() else reprlib.repr(value)


def _closest(name: str, known: Iterable[str]) -> str:
    """Return a hint without the list of all choices: there may be thousands."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # only ever asked for a hint
        return []


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _text(file: Path) -> str:
    data = _bytes(file).removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x}"
        raise UserError(f"{file}, line {line}: not UTF-8 text ({found}); save the file as UTF-8") from error


class _Scanner:
    """Walks over JSON text value by value, because only so is the line of each row known."""

    def __init__(self, file: Path, text: str, line: int = 1) -> None:
        self.file, self.text, self.at, self.line = file, text, 0, line

    def peek(self) -> str:
        """Pass over white space and return the next character, nothing at the end."""
        while self.text.startswith((" ", "\t", "\n", "\r"), self.at):
            self.line += self.text[self.at] == "\n"
            self.at += 1
        return self.text[self.at : self.at + 1]

    def expect(self, *marks: str) -> str:
        """Pass over one of ``marks`` ("" is the end) and return it."""
        found = self.peek()
        if found not in marks:
            wanted = " or ".join(repr(mark) if mark else "the end" for mark in marks)
            raise self.error(f"expected {wanted}, found {repr(found) if found else 'the end'}", self.at)
        self.at += len(found)
        return found

    def value(self) -> Any:
        """Pass over one JSON value and return it."""
        self.peek()
        start = self.at
        try:
            value, self.at = json.JSONDecoder().raw_decode(self.text, start)
        except json.JSONDecodeError as error:
            raise self.error(f"not valid JSON ({error.msg})", error.pos) from error
        except (ValueError, RecursionError) as error:
            raise self.error("JSON with a number too long or nested too deeply", start) from error
        self.line += self.text.count("\n", start, self.at)
        return value

    def between(self, opening: str, closing: str) -> Iterator[int]:
        """Yield the line of each element between two brackets; the caller passes over the element itself."""
        self.expect(opening)
        mark = self.expect(closing) if self.peek() == closing else ","
        while mark == ",":
            self.peek()
            yield self.line
            mark = self.expect(",", closing)
        self.expect("")

    def error(self, problem: str, at: int) -> UserError:
        line, column = self.line + self.text.count("\n", self.at, at), at - self.text.rfind("\n", 0, at)
        return UserError(f"{self.file}, line {line}, column {column}: {problem}")


def _lines(file: Path) -> Iterator[_Row]:
    """Yield the objects of a JSONL file; blank lines are passed over."""
    for number, text in enumerate(_text(file).split("\n"), start=1):
        if text.strip():
            scanner = _Scanner(file, text, number)
            value = scanner.value()
            scanner.expect("")
            yield _row(file, number, value)


def _elements(file: Path) -> Iterator[_Row]:
    """Yield the objects of a JSON array."""
    scanner = _Scanner(file, _text(file))
    for line in scanner.between("[", "]"):
        yield _row(file, line, scanner.value())


def _members(file: Path) -> Iterator[_Row]:
    """Yield the objects that a JSON object holds, each with its key as ``id``."""
    scanner = _Scanner(file, _text(file))
    for line in scanner.between("{", "}"):
        if scanner.peek() != '"':
            scanner.expect('"')
        key = scanner.value()
        scanner.expect(":")
        row = _row(file, line, scanner.value())
        yield replace(row, data={**row.data, "id": key})


def _row(file: Path, line: int, value: Any) -> _Row:
    if not isinstance(value, dict):
        raise UserError(f"{file}, line {line}: expected an object, found {_shown(value)}")
    return _Row(file, line, value)


# --- the folder ---


class _Reader:
    """Reads one knowledge folder; remembers its files, and which row first asked for each image."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"no knowledge folder {str(root)!r}{_closest(root.name, _names(root.absolute().parent))}")
        self.root = root
        self.files: list[Path] = []
        self.images: dict[Path, tuple[_Row, str]] = {}

    def knowledge(self) -> Knowledge:
        items = self.items()
        questions = tuple(self.about(items, row, question) for row, question in self.questions(EVALUATION))
        retention = self.questions(RETENTION, _RETENTION_FIELDS, optional=True)
        old_facts = self.questions(OLD_FACTS, optional=True)
        return Knowledge(
            root=self.root,
            items=tuple(items.values()),
            questions=questions,
            retention=tuple(replace(question, group=question.id) for _, question in retention),
            old_facts=tuple(question for _, question in old_facts),
            old=self.old(),
            digest=self.digest(),
        )

    def items(self) -> dict[str, Item]:
        rows = {str(row.data["id"]): row for row in self.rows(INJECTION, _INJECTION_FIELDS, "id")}
        sidecar = {str(row.data["id"]): row for row in self.rows(FACTS, _SIDECAR_FIELDS, "id", optional=True)}
        for id, row in sidecar.items():
            if id not in rows:
                raise row.error("id", f"no item {id!r} in {INJECTION}{_closest(id, rows)}")
        return {id: self.item(id, row, sidecar.get(id)) for id, row in rows.items()}

    def item(self, id: str, row: _Row, sidecar: _Row | None) -> Item:
        images = self.paths(row, "image")
        turns = _turns(row, len(images))
        if len(turns) != 1:
            raise row.error("conversations", f"expected one question and one answer, found {len(turns)} of each")
        more = sidecar.data if sidecar else {}
        return Item(
            id=id,
            image=images[0],
            prompt=turns[0].question,
            text=turns[0].answer,
            name=row.data.get("name") or more.get("name") or "",
            type=row.data.get("type") or more.get("type") or "",
            kind=row.data.get("cnn_wiki_type") or "",
            retrieved=self.paths(sidecar, "retrieved") if sidecar else (),
            facts=tuple(map(_fact, sidecar.parts("facts", _FACT_FIELDS))) if sidecar else (),
        )

    def questions(
        self, name: str, fields: _Fields = _QUESTION_FIELDS, *, optional: bool = False
    ) -> Iterator[tuple[_Row, Question]]:
        for row in self.rows(name, fields, "question_id", optional=optional):
            images = self.paths(row, "image")
            question = Question(
                id=str(row.data["question_id"]),
                images=images,
                text=_unmarked(row, "text", len(images), unmarked_too=True),
                answer=row.data["answer"],
                type=row.data.get("type") or "",
                kind=row.data.get("cnn_wiki_type") or "",
                group=_group(row, images[0]),
            )
            yield row, question

    def about(self, items: Mapping[str, Item], row: _Row, question: Question) -> Question:
        """Return the question with the paragraph of the item that it asks about, where it names one."""
        if not _item(row):
            return question
        if question.group not in items:
            raise row.error("item", f"no item {question.group!r} in {INJECTION}{_closest(question.group, items)}")
        return replace(question, context=items[question.group].text)

    def old(self) -> dict[str, tuple[Example, ...]]:
        examples = []
        for row in self.rows(OLD, _OLD_FIELDS, "id", optional=True):
            images = self.paths(row, "image")
            turns = _turns(row, len(images))
            examples.append(Example(id=str(row.data["id"]), images=images, turns=turns, source=row.data["skill"]))
        by_skill = {skill: tuple(e for e in examples if e.source == skill) for skill in DIMENSIONS}
        return {skill: samples for skill, samples in by_skill.items() if samples}

    def rows(self, name: str, fields: _Fields, id_field: str, *, optional: bool = False) -> Iterator[_Row]:
        """Yield the rows of a file, each checked against ``fields`` and for an id that no row before it has."""
        file = self.root / name
        if not file.exists():
            if optional:
                return
            found = [found for found in _names(self.root) if found.endswith((".json", ".jsonl"))]
            raise UserError(f"the knowledge folder {str(self.root)!r} has no {name}; {nearest(name, found)}")
        self.files.append(file)
        seen: dict[str, int] = {}
        read = _members if name == FACTS else _lines if file.suffix == ".jsonl" else _elements
        for row in read(file):
            row.check(fields)
            id = str(row.data[id_field])
            if id in seen:
                raise row.error(id_field, f"{id!r} stands on line {seen[id]} already, each id must be its own")
            seen[id] = row.line
            yield row
        if not seen:
            raise UserError(f"{file} holds no rows")

    def paths(self, row: _Row, field: str) -> tuple[Path, ...]:
        """Return the image files of a field, which must lie in the folder; none where the field is absent."""
        value = row.data.get(field) or []
        paths = []
        for name in [value] if isinstance(value, str) else value:
            relative = Path(name)
            if relative.anchor or ".." in relative.parts:
                raise row.error(field, f"{name!r} leads out of the knowledge folder")
            path = self.root / relative
            if path not in self.images and not os.path.isfile(path):
                hint = _closest(path.name, _names(path.parent))
                raise row.error(field, f"no file {name!r} in {str(self.root)!r}{hint}")
            self.images.setdefault(path, (row, field))
            paths.append(path)
        return tuple(paths)

    def digest(self) -> str:
        """Return the SHA-256 over the relative names and the bytes of all files read so far, in the names' order."""
        digest = hashlib.sha256()
        paths = {path.relative_to(self.root).as_posix(): path for path in (*self.files, *self.images)}
        for name, path in sorted(paths.items()):
            # The inner digest has one length, so that no name can pass for another file's bytes.
            digest.update(hashlib.sha256(_bytes(path)).digest() + name.encode() + b"\0")
        return digest.hexdigest()


def _turns(row: _Row, images: int) -> tuple[Turn, ...]:
    """Return the exchanges of a LLaVA conversation, the image marks of its first question taken off."""
    said = row.parts("conversations", _TURN_FIELDS)
    texts = []
    for i, part in enumerate(said):
        speaker = ("human", "gpt")[i % 2]
        if part.data["from"] != speaker:
            raise part.error("from", f"expected {speaker!r} (the two take turns, 'human' first)")
        texts.append(_unmarked(part, "value", 0 if i else images))
    if len(texts) % 2:
        raise row.error("conversations", "the last question has no answer")
    return tuple(
        Turn(question=question, answer=answer) for question, answer in zip(texts[::2], texts[1::2], strict=True)
    )


def _unmarked(row: _Row, field: str, images: int, *, unmarked_too: bool = False) -> str:
    """Return a text without its image marks, of which there must be one an image (or none, if ``unmarked_too``)."""
    text: str = row.data[field]
    marks = text.count(IMAGE_MARK)
    if not marks and (unmarked_too or not images):
        return text
    if marks != images:
        problem = f"expected {images} {IMAGE_MARK} (one for each image, in the first question only), found {marks}"
        raise row.error(field, problem)
    rest = text.replace(IMAGE_MARK, "").strip()
    if not rest:
        raise row.error(field, f"no text beside {IMAGE_MARK}")
    return rest


def _fact(row: _Row) -> Fact:
    data = row.data
    for i, question in enumerate(data["questions"]):
        if data["subject"] not in question:
            raise row.error(f"questions[{i}]", f"the subject {data['subject']!r} does not stand in {question!r}")
    return Fact(
        subject=data["subject"],
        hypernym=data["hypernym"],
        relation=data["relation"],
        value=data["value"],
        questions=tuple(data["questions"]),
    )


def _item(row: _Row) -> str:
    """Return the id of the item or entity that a question names, nothing where it names none."""
    item = row.data.get("item")
    return "" if item is None else str(item)


def _group(row: _Row, image: Path) -> str:
    """Return what the answer depends on jointly with others: the item, else what EVOKE's image name tells.

    EVOKE names images ``<entity> <type>_<k>.jpg`` (wiki) and ``<news id>/<entity>_<k>.jpg`` (news: all entities of
    one article hang on one injected text). Other names tell nothing, and the question is its own group.
    """
    if _item(row):
        return _item(row)
    data = row.data
    entity, _, number = image.stem.rpartition("_")
    if data.get("cnn_wiki_type") == "news" and re.fullmatch(r".+_\d+", image.parent.name):
        return image.parent.name
    if data.get("type") and entity.endswith(f" {data['type']}") and number.isdigit():
        return entity
    return str(data["question_id"])


# --- images ---


def _images(knowledge: Knowledge) -> Iterator[Path]:
    for item in knowledge.items:
        yield from (item.image, *item.retrieved)
    for question in (*knowledge.questions, *knowledge.retention, *knowledge.old_facts):
        yield from question.images
    for examples in knowledge.old.values():
        for example in examples:
            yield from example.images


def _decoding_problem(path: Path) -> str:
    """Return why an image cannot be used, or nothing."""
    try:
        data = path.read_bytes()
        if not data:
            return "is empty (0 bytes)"
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            image.verify()  # check sums, which load() passes over; it leaves the image unusable
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            image.load()
    except UnidentifiedImageError:
        return f"is no picture of a known format ({', '.join(IMAGE_FORMATS)})"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down"
    except Exception as error:  # noqa: BLE001  # on bytes that they did not foresee, decoders raise anything
        return f"cannot be decoded ({error})"
    return ""
