"""Which item a question asks about, where no row says so: told by the images' names and the ids, as in EVOKE.

EVOKE names an item's image ``NAME_wiki.jpg`` or after the news article, and evaluation images ``NAME TYPE_K.jpg``
(wiki) and ``ARTICLE/ENTITY_K.jpg`` (news: all entities of one article hang on one injected text). Its item and its
question of one pair have the same number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from kore_bench.examples import Item, Question

_ARTICLE = re.compile(r"[^\W\d_]+_\d+(?!\d)")  # cnn_2189
_WIKI = "_wiki"


def name_of_item(image: Path) -> str:
    """Return the name that a wiki item's image tells, nothing where it tells none."""
    return image.stem.removesuffix(_WIKI) if image.stem.endswith(_WIKI) else ""


def group_of(id: str, image: Path, type: str, kind: str) -> str:
    """Return what a question's image tells of its item: the article or ``NAME TYPE``; else the question's own id."""
    entity, _, number = image.stem.rpartition("_")
    if kind == "news" and re.fullmatch(r".+_\d+", image.parent.name):
        return image.parent.name
    if type and entity.endswith(f" {type}") and number.isdigit():
        return entity
    return id


def pair(items: Mapping[str, Item], questions: Iterable[Question]) -> dict[str, str]:
    """Return question id -> item id for the questions whose item can be told.

    A name that fits several items is decided by the equal number. Numbers alone decide only where every question has
    an item of its number and the other way round.
    """
    questions = tuple(questions)
    by_name: dict[str, list[str]] = {}
    for id, item in items.items():
        for name in sorted({item.name, *_articles(item.image)} - {""}):
            by_name.setdefault(name, []).append(id)
    numbered = {question.id for question in questions} == set(items)
    found = {}
    for question in questions:
        fitting = by_name.get(question.group.removesuffix(f" {question.type}"), [])
        if len(fitting) == 1:
            found[question.id] = fitting[0]
        elif question.id in fitting or (numbered and not fitting):
            found[question.id] = question.id
    return found


def described(item: Item, question: Question) -> Item:
    """Return an item with the type and kind that its question has, where it has none of its own."""
    return replace(item, type=item.type or question.type, kind=item.kind or question.kind)


def _articles(image: Path) -> set[str]:
    return {match[0] for part in (image.parent.name, image.stem) if (match := _ARTICLE.match(part))}
