"""EVOKE: the knowledge folder of injection items and evaluation questions, and the sidecars that kore-bench adds.

Each file has a table of its fields below. The files may lie in the folder or up to two levels below it.

| file | rows | required |
|---|---|---|
| ``evoke_injection_data.json`` | array of LLaVA conversations, one an item | yes |
| ``evoke_evaluation_data.jsonl`` | questions about the items | yes |
| ``facts.json`` | object: item id -> its structured facts and retrieved images | no |
| ``retention.jsonl`` | questions of the seven dimensions | no |
| ``old_facts.jsonl`` | questions about entities that the base knows | no |
| ``probes.jsonl`` | further questions about the items, each with its sort (``probe``) | no |
| ``old.json`` | array of LLaVA conversations of old knowledge, each with its skill | no |
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from kore_bench.errors import UserError, nearest
from kore_bench.examples import PROBES, Example, Fact, Item, Knowledge, Question, name_of

from . import json_rows
from .conversations import Problems, paths, turns, unmarked
from .digests import content_digest
from .fields import (
    DIMENSIONS,
    FLAG,
    ID,
    PATH,
    PATHS,
    PLAIN,
    ROWS,
    TEXT,
    TEXTS,
    Fields,
    Row,
    closest,
    one_of,
    optional,
)  # fmt: skip
from .pairing import described, group_of, name_of_item, pair
from .pictures import Pictures

INJECTION, EVALUATION, FACTS = "evoke_injection_data.json", "evoke_evaluation_data.jsonl", "facts.json"
RETENTION, OLD_FACTS, OLD = "retention.jsonl", "old_facts.jsonl", "old.json"
PROBE_FILE = "probes.jsonl"
VALIDATION = "validation"

_NAME, _SOURCE = optional(PLAIN), optional(one_of("news", "wiki"))
_INJECTION_FIELDS: Fields = {
    "id": ID, "image": PATH, "conversations": ROWS, "name": _NAME, "type": _NAME, "cnn_wiki_type": _SOURCE,
}  # fmt: skip
_QUESTION_FIELDS: Fields = {
    "question_id": ID, "image": PATHS, "text": TEXT, "answer": PLAIN, "type": _NAME, "cnn_wiki_type": _SOURCE,
    "item": optional(ID), "fact": _NAME,
}  # fmt: skip
_PROBE_FIELDS: Fields = {**_QUESTION_FIELDS, "image": optional(PATHS), "item": ID, "probe": one_of(*PROBES)}
_RETENTION_FIELDS: Fields = {**_QUESTION_FIELDS, "type": one_of(*DIMENSIONS)}
_OLD_FIELDS: Fields = {"id": ID, "image": optional(PATHS), "conversations": ROWS, "skill": one_of(*DIMENSIONS)}
_SIDECAR_FIELDS: Fields = {
    "id": ID, "name": _NAME, "type": _NAME, "retrieved": optional(PATHS), "facts": optional(ROWS),
}  # fmt: skip
_FACT_FIELDS: Fields = {
    "subject": PLAIN, "hypernym": PLAIN, "relation": PLAIN, "value": PLAIN, "questions": TEXTS,
    "reserved": optional(FLAG),
}  # fmt: skip


class Tables(Protocol):
    """Where the rows of each file above come from; ``files`` are those read so far, by a name of their own."""

    root: Path
    pictures: Pictures
    files: dict[str, Path]

    def rows(self, table: str) -> Iterator[Row] | None:
        """Return the rows of one of the files above, None where it is not there."""


class FolderTables:
    """The files of a knowledge folder on disk; ``questions`` says whether those of the evaluation must be there."""

    def __init__(self, root: Path, *, questions: bool = True) -> None:
        if not root.is_dir():
            raise UserError(f"no knowledge folder {str(root)!r}{closest(root.name, _names(root.absolute().parent))}")
        self.root, self.pictures = root, Pictures(root)
        self.required = (INJECTION, EVALUATION) if questions else (INJECTION,)
        self.files: dict[str, Path] = {}

    def rows(self, table: str) -> Iterator[Row] | None:
        """Return the rows of a file; raises UserError where a required one is missing."""
        file = find_file(self.root, table)
        if file is None:
            if table not in self.required:
                return None
            found = [found for found in _names(self.root) if found.endswith((".json", ".jsonl"))]
            raise UserError(f"the knowledge folder {str(self.root)!r} has no {table}; {nearest(table, found)}")
        self.files[file.relative_to(self.root).as_posix()] = file
        read = (
            json_rows.members if table == FACTS else json_rows.lines if file.suffix == ".jsonl" else json_rows.elements
        )
        return read(file)


def find_file(root: Path, name: str) -> Path | None:
    """Return a file of a data folder, which lies in it or up to two levels below, not in its validation folder."""
    if (root / name).exists():
        return root / name
    below = [file for level in ("*/", "*/*/") for file in sorted(root.glob(f"{level}{name}"))]
    return next((file for file in below if file.relative_to(root).parts[0] != VALIDATION), None)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # only ever asked for a hint
        return []


class KnowledgeReader:
    """Reads a knowledge folder's tables; remembers which row first asked for each image."""

    def __init__(self, tables: Tables, problems: Problems | None = None) -> None:
        self.tables, self.problems = tables, problems or Problems()
        self.images: dict[Path, tuple[Row, str]] = {}

    def knowledge(self) -> Knowledge:
        """Return all that the tables hold; raises UserError (or collects it) for what cannot be used."""
        items = self._items()
        asked = [*self._questions(EVALUATION)]
        items, questions = self._about(items, asked)
        probes = self._probes(items)
        retention = [question for _, question in self._questions(RETENTION, _RETENTION_FIELDS)]
        old_facts = [question for _, question in self._questions(OLD_FACTS)]
        old = self._old()
        root, pictures = self.tables.root, self.tables.pictures
        unpacked = pictures.unpacked if pictures.outside else ()
        named = {name_of(image, (root, *unpacked)): image for image in self.images if image.is_file()}
        return Knowledge(
            root=root,
            items=tuple(items.values()),
            questions=tuple(questions),
            retention=tuple(by_image(retention)),
            old_facts=tuple(old_facts),
            probes=probes,
            old=old,
            digest=content_digest({**named, **self.tables.files}),
            unpacked=unpacked,
        )

    def _items(self) -> dict[str, Item]:
        sidecar = {str(row.data["id"]): row for row in self._rows(FACTS, _SIDECAR_FIELDS, "id")}
        rows = self._rows(INJECTION, _INJECTION_FIELDS, "id")
        items = {item.id: item for item in self.problems.usable(rows, lambda row: self._item(row, sidecar))}
        for id, row in sidecar.items():
            if id not in items:
                self.problems.add(row.error("id", f"no item {id!r} in {INJECTION}{closest(id, items)}"))
        return items

    def _item(self, row: Row, sidecars: Mapping[str, Row]) -> Item:
        id, images = str(row.data["id"]), self._paths(row, "image")
        said = turns(row, len(images))
        if len(said) != 1:
            raise row.error("conversations", f"expected one question and one answer, found {len(said)} of each")
        sidecar = sidecars.get(id)
        more = sidecar.data if sidecar else {}
        return Item(
            id=id,
            image=images[0],
            prompt=said[0].question,
            text=said[0].answer,
            name=row.text("name") or more.get("name") or name_of_item(images[0]),
            type=row.text("type") or more.get("type") or "",
            kind=row.text("cnn_wiki_type"),
            retrieved=self._paths(sidecar, "retrieved") if sidecar else (),
            facts=tuple(map(_fact, sidecar.parts("facts", _FACT_FIELDS))) if sidecar else (),
        )

    def _questions(self, table: str, fields: Fields = _QUESTION_FIELDS) -> Iterator[tuple[Row, Question]]:
        return self.problems.usable(self._rows(table, fields, "question_id"), lambda row: (row, self._question(row)))

    def _question(self, row: Row) -> Question:
        id, type, kind = row.text("question_id"), row.text("type"), row.text("cnn_wiki_type")
        images = self._paths(row, "image")
        return Question(
            id=id,
            images=images,
            text=unmarked(row, "text", len(images), unmarked_too=True),
            answer=row.data["answer"],
            type=type,
            kind=kind,
            group=row.text("item") or group_of(id, images[0], type, kind),
            fact=row.text("fact"),
        )

    def _about(
        self, items: dict[str, Item], asked: list[tuple[Row, Question]]
    ) -> tuple[dict[str, Item], list[Question]]:
        """Return items and questions with what each tells of the other, where it is known which belong together."""
        told = {question.id: row.text("item") for row, question in asked if row.text("item")}
        pairs = pair(items, [question for _, question in asked if question.id not in told]) | told
        questions = []
        for row, question in asked:
            id = pairs.get(question.id)
            if id is None:
                questions.append(question)
            elif id not in items:
                self.problems.add(row.error("item", f"no item {id!r} in {INJECTION}{closest(id, items)}"))
            else:
                items[id] = described(items[id], question)
                questions.append(replace(question, group=id, context=items[id].text))
        return items, questions

    def _probes(self, items: Mapping[str, Item]) -> dict[str, tuple[Question, ...]]:
        asked = [*self._questions(PROBE_FILE, _PROBE_FIELDS)]
        found: dict[str, tuple[Question, ...]] = {}
        for sort in PROBES:
            chosen = [(row, question) for row, question in asked if row.data["probe"] == sort]
            _, questions = self._about(dict(items), chosen)
            if questions:
                found[sort] = tuple(questions)
        return found

    def _old(self) -> dict[str, tuple[Example, ...]]:
        def build(row: Row) -> Example:
            images = self._paths(row, "image")
            said = turns(row, len(images))
            return Example(id=str(row.data["id"]), images=images, turns=said, source=row.data["skill"])

        examples = [*self.problems.usable(self._rows(OLD, _OLD_FIELDS, "id"), build)]
        by_skill = {skill: tuple(e for e in examples if e.source == skill) for skill in DIMENSIONS}
        return {skill: samples for skill, samples in by_skill.items() if samples}

    def _rows(self, table: str, fields: Fields, id_field: str) -> Iterator[Row]:
        """Yield the rows of a table, each checked against ``fields`` and for an id that no row before it has."""
        rows = self.tables.rows(table)
        seen: dict[str, str] = {}

        def checked(row: Row) -> Row:
            row.check(fields)
            id = str(row.data[id_field])
            if id in seen:
                raise row.error(id_field, f"{id!r} stands on {seen[id]} already, each id must be its own")
            seen[id] = row.place
            return row

        if rows is not None:
            before = len(self.problems.found)
            yield from self.problems.usable(rows, checked)
            if not seen and len(self.problems.found) == before:
                raise UserError(f"{self.tables.files.get(table, self.tables.root / table)} holds no rows")

    def _paths(self, row: Row, field: str) -> tuple[Path, ...]:
        """Return the image files of a field, and remember which row asks for them."""
        found = paths(row, field, self.tables.pictures, self.problems)
        for path in found:
            self.images.setdefault(path, (row, field))
        return found


def _fact(row: Row) -> Fact:
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
        reserved=bool(data.get("reserved")),
    )


def by_image(questions: Iterable[Question]) -> Iterator[Question]:
    """Yield questions of old knowledge, grouped where they are about the same images; others stand alone."""
    first: dict[tuple[Path, ...], str] = {}
    for question in questions:
        group = first.setdefault(question.images, question.id) if question.images else question.id
        yield replace(question, group=group)
