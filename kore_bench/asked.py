"""Which injected facts the training of a cell asks for, one by one, and which it states in texts alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from kore_bench.examples import Example, Item, Knowledge, Question, Turn

_PARAGRAPH = re.compile(r"\bparagraph\b", re.IGNORECASE)
"""Stands in the instruction of KORE's captions: a text is asked for, not a fact."""

Words = tuple[str, ...]


def words(text: str) -> Words:
    """Return the words of a text in lower case, without punctuation."""
    return tuple(re.findall(r"\w+", text.lower()))


def says(text: str, value: str) -> bool:
    """Return whether the words of ``value``, of which there is one, stand in ``text`` in a row."""
    sought = words(value)
    return bool(sought) and sought in _runs(words(text), len(sought))


def says_reserved(item: Item, text: str) -> bool:
    """Return whether ``text`` says the value of a fact of ``item`` that no training may ask for."""
    return any(says(text, fact.value) for fact in item.facts if fact.reserved)


def with_asked(knowledge: Knowledge, examples: Sequence[Example]) -> tuple[Knowledge, int]:
    """Return ``knowledge`` whose questions tell what training on ``examples`` asks, and how many of them it asks.

    Training asks for the answer of a question where it says it in a turn about the question's item that is not the
    item's text or a request for one. It is not told of a question that no item is known of, or whose answer stands in a
    turn that may be about any item. Where training asks for nothing, a question counts as asked if its fact is none
    that ``facts.json`` reserves: the same questions, for comparison. Without such marks nothing is told.
    """
    asked = _asked(knowledge, examples)
    number = sum(found is True for found in asked.values())
    asked = asked if number else _marked(knowledge)
    questions = tuple(replace(question, asked=asked.get(question.id)) for question in knowledge.questions)
    return replace(knowledge, questions=questions), number


def _asked(knowledge: Knowledge, examples: Sequence[Example]) -> dict[str, bool | None]:
    items = {item.id: item for item in knowledge.items}
    old = {example.turns for pool in knowledge.old.values() for example in pool}
    said: dict[str, list[str]] = {}
    for example in examples:
        if example.turns not in old:
            item = items.get(example.item)
            turns = (turn for turn in example.turns if not _is_text(turn, item))
            said.setdefault(example.item, []).extend(f"{turn.question}\n{turn.answer}" for turn in turns)
    anywhere = _said_by(said.pop("", []), knowledge.questions)
    asked: dict[str, bool | None] = {}
    for question in knowledge.questions:
        texts = said.get(question.group, []) if question.context else []
        found = any(says(text, question.answer) for text in texts)
        known = question.context and words(question.answer) and question.id not in anywhere
        asked[question.id] = True if found else False if known else None
    return asked


def _is_text(turn: Turn, item: Item | None) -> bool:
    """Return whether a turn gives an item's text, or another text about it, instead of asking for a fact."""
    if _PARAGRAPH.search(turn.question):
        return True
    return item is not None and (turn.question.startswith(item.prompt) or words(turn.answer) == words(item.text))


def _said_by(texts: Sequence[str], questions: Sequence[Question]) -> set[str]:
    """Return the ids of the questions whose answer stands in one of ``texts``: by look-up, as both may be many."""
    sought: dict[Words, list[str]] = {}
    for question in questions:
        sought.setdefault(words(question.answer), []).append(question.id)
    lengths = {len(answer) for answer in sought} - {0}
    found: set[Words] = set()
    for text in texts:
        said = words(text)
        found.update(run for length in lengths for run in _runs(said, length) if run in sought)
    return {id for answer in found for id in sought[answer]}


def _marked(knowledge: Knowledge) -> dict[str, bool | None]:
    """Return what the marks in facts.json tell of the questions about facts that stand there, if they reserve any."""
    marks: dict[tuple[str, Words], bool] = {}
    for item in knowledge.items:
        for fact in item.facts:
            place = (item.id, words(fact.value))
            marks[place] = marks.get(place, False) or not fact.reserved
    if all(marks.values()):
        return {}
    return {question.id: marks.get((question.group, words(question.answer))) for question in knowledge.questions}


def _runs(said: Words, length: int) -> Iterator[Words]:
    return (said[start : start + length] for start in range(len(said) - length + 1))
