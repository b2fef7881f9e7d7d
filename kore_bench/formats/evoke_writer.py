"""Writes a knowledge folder in EVOKE's form, with the sidecars that it needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kore_bench.examples import Example, Fact, Item, Knowledge, Question

from .conversations import LLAVA
from .evoke import EVALUATION, FACTS, INJECTION, OLD, OLD_FACTS, PROBE_FILE, RETENTION
from .writing import Target

Row = dict[str, Any]


def write_knowledge(knowledge: Knowledge, folder: Path) -> Path:
    """Write all of ``knowledge`` into a new ``folder`` and return it; raises UserError where that is not empty."""
    target = Target(folder, (knowledge.root, *knowledge.unpacked))
    tables = tables_of(knowledge)
    for name, rows in tables.items():
        write = target.object if name == FACTS else target.array if name.endswith(".json") else target.lines
        write(name, map(target.named, rows))
    return folder


def tables_of(knowledge: Knowledge) -> dict[str, list[Row]]:
    """Return the rows of every file that ``knowledge`` fills, images as paths."""
    items = {item.id for item in knowledge.items}
    tables = {
        INJECTION: [_injection(item) for item in knowledge.items],
        EVALUATION: [_question(question, items) for question in knowledge.questions],
        FACTS: [_sidecar(item) for item in knowledge.items if item.facts or item.retrieved],
        RETENTION: [_question(question, ()) for question in knowledge.retention],
        OLD_FACTS: [_question(question, {question.group} - {question.id}) for question in knowledge.old_facts],
        PROBE_FILE: [
            {**_question(question, items), "probe": sort}
            for sort, questions in knowledge.probes.items()
            for question in questions
        ],
        OLD: [{**llava_row(example), "skill": skill} for skill, pool in knowledge.old.items() for example in pool],
    }
    return {name: rows for name, rows in tables.items() if rows}


def llava_row(example: Example) -> Row:
    """Return a conversation as a row of LLaVA's form: one image is a path, several are a list, none no field."""
    images = list(example.images)
    return {
        "id": example.id,
        **({"image": images[0] if len(images) == 1 else images} if images else {}),
        "conversations": LLAVA.write(example),
    }


def _injection(item: Item) -> Row:
    told = {"name": item.name, "type": item.type, "cnn_wiki_type": item.kind}
    return {**llava_row(item.example()), **{field: text for field, text in told.items() if text}}


def _question(question: Question, items: Iterable[str]) -> Row:
    images = list(question.images)
    told = {"type": question.type, "cnn_wiki_type": question.kind, "fact": question.fact}
    return {
        "question_id": question.id,
        **({"image": images[0] if len(images) == 1 else images} if images else {}),
        "text": question.text,
        "category": "default",
        "answer": question.answer,
        **{field: text for field, text in told.items() if text},
        **({"item": question.group} if question.group in items else {}),
    }


def _sidecar(item: Item) -> Row:
    return {"id": item.id, "retrieved": list(item.retrieved), "facts": [_fact(fact) for fact in item.facts]}


def _fact(fact: Fact) -> Row:
    row = {**asdict(fact), "questions": list(fact.questions)}
    return row if fact.reserved else {name: value for name, value in row.items() if name != "reserved"}
