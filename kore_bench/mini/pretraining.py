"""Pre-training conversations of mini-llava, drawn without end: scenes, texts, image pairs, old entities, reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from . import language, skills, world
from .drawing import COLORS, GLYPHS, GRID, Cells, Symbol
from .language import RELATIONS
from .skills import Query

MAX_TURN_TOKENS = 64
"""Text tokens of one conversation beyond which no further turn is added."""


class Conversation(NamedTuple):
    """Images, as what stands in their cells, and the questions about them."""

    images: list[Cells]
    turns: list[Query]


def _length(query: Query) -> int:
    return len(language.words(query.question)) + len(language.words(query.answer)) + 3


def _plain(query: Query) -> Query:
    """Leave out the instruction, as in a dialogue."""
    return query._replace(question=query.question.removesuffix(f"\n{language.SHORT}"))


def _fill(turns: list[Query], draw: Callable[[], Query | None], rng: Random) -> list[Query]:
    """Add drawn turns, none twice and most without an instruction, until the conversation is full."""
    room = MAX_TURN_TOKENS - sum(map(_length, turns))
    asked = {_plain(query) for query in turns}
    for _ in range(12):
        query = draw()
        if query is None or _plain(query) in asked:
            continue
        asked.add(_plain(query))
        query = query if rng.random() < 0.3 else _plain(query)
        room -= _length(query)
        if room < 0:
            break
        turns.append(query)
    return turns


def _about_scene(setting: str, names: Sequence[tuple[str, str]]) -> Callable[[Random], Conversation]:
    kinds = [kind for kind in skills.KINDS if (kind.skill, kind.name) in names]

    def converse(rng: Random) -> Conversation:
        images = skills.scene(setting, rng)
        turns: list[Query] = []
        if setting == "sparse" and rng.random() < 0.4:
            listed = ", ".join(f"{symbol.color} {symbol.name}" for symbol in images[0].values())
            turns.append(Query(language.LISTING, listed))
        return Conversation(images, _fill(turns, lambda: skills.pose(rng.choice(kinds), images, rng), rng))

    return converse


def _about_text(rng: Random) -> Conversation:
    images = skills.scene(rng.choice(("text", "text", "numbers")), rng)
    symbols = list(images[0].values())
    turns = [Query(rng.choice(language.OCR), " ".join(symbol.name for symbol in symbols))]
    extras = [
        Query("What is the first character?", symbols[0].name),
        Query("What is the last character?", symbols[-1].name),
        Query("What color is the text?", symbols[0].color),
        Query("How many characters are in the image?", str(len(symbols))),
    ]
    turns = rng.sample([*turns, *extras], 5) if rng.random() < 0.5 else turns + extras[:2]
    return Conversation(images, turns)


def _about_numbers(rng: Random) -> Conversation:
    images = skills.scene("numbers", rng)
    kinds = [kind for kind in skills.KINDS if kind.setting == "numbers"]
    symbols = list(images[0].values())
    turns = _fill([], lambda: skills.pose(rng.choice(kinds), images, rng), rng)[:2]
    turns.append(Query("What are the two numbers?", " ".join(symbol.name for symbol in symbols)))
    return Conversation(images, turns)


def _about_entity(rng: Random) -> Conversation:
    """Talk about an old entity: who it is, whether it is this one or that, its facts, all of it in a paragraph."""
    entity = rng.choice(world.cast().old)
    turns: list[Query] = []
    form = rng.random()
    if form < 0.15:
        turns.append(Query(world.heading(entity, rng), world.paragraph(entity, rng)))
    elif form < 0.25:
        caption = rng.choice(language.CAPTIONS).format(type=entity.type)
        sentence = world.paragraph(entity, rng).split(". ", 2)[1]
        turns.append(Query(f"{caption}\n{language.PARAGRAPH}", f"{entity.name}. {sentence.removesuffix('.')}."))
    elif form < 0.6:
        turns.append(Query(rng.choice(language.NAMINGS).format(type=entity.type), entity.name))

    def draw() -> Query:
        if rng.random() < 0.25:
            return world.name_query(entity, rng)
        number = rng.randrange(len(RELATIONS))
        query = world.fact_query(entity, number, rng, reserved=False)
        if rng.random() < 0.25:
            named = query.question.replace(entity.reference, entity.name)
            query = query._replace(question=named.replace(f"The {entity.type} in the image", entity.name))
        return query

    return Conversation([entity.cells(rng.randrange(9))], _fill(turns, draw, rng))


def _recognition(rng: Random) -> Conversation:
    """Ask of one old entity whether it is this one or that."""
    entity = rng.choice(world.cast().old)
    naming = Query(rng.choice(language.NAMINGS).format(type=entity.type), entity.name)
    turns = [naming] if rng.random() < 0.3 else []
    images = [entity.cells(rng.randrange(9))]
    return Conversation(images, _fill(turns, lambda: world.name_query(entity, rng), rng))


def _reading(rng: Random) -> Conversation:
    """Read a made-up paragraph and answer from it; nothing of it is true of any entity."""
    entity = world.stranger(rng)
    numbers = rng.sample(range(len(RELATIONS)), 3)
    first, *others = [world.fact_query(entity, number, rng, reserved=False) for number in numbers]
    turns = [Query(f"{world.paragraph(entity, rng)}\n{first.question}", first.answer)]
    turns += map(_plain, others)
    return Conversation([entity.cells(rng.randrange(9))], turns)


def _listing(rng: Random) -> Conversation:
    """Say everything at once: dense practice in binding shape, colour, place and order, and in copying facts."""
    form = rng.randrange(7)
    if form == 0:
        glyphs = rng.choices(GLYPHS, k=rng.randint(4, 8))
        places = sorted(rng.sample(range(GRID * GRID), len(glyphs)))
        cells = {place: Symbol(glyph, rng.choice(list(COLORS))) for place, glyph in zip(places, glyphs, strict=True)}
        return Conversation([cells], [Query(rng.choice(language.OCR), " ".join(glyphs))])
    if form == 1:
        entity = world.stranger(rng)
        listed = [f"{relation.name} {value}" for relation, value in zip(RELATIONS, entity.values, strict=True)]
        question = f"{world.paragraph(entity, rng)}\nList the facts."
        return Conversation([entity.cells(rng.randrange(9))], [Query(question, ", ".join(listed))])
    if form < 4:
        images = skills.scene("pair", rng)
        first, second = (symbol for cells in images for symbol in cells.values())
        if form == 2:
            question, listed = "What do the images show?", [f"first {first.name} {first.color}"]
            listed.append(f"second {second.name} {second.color}")
        else:
            question = "Which image shows what?"
            listed = sorted([f"{first.name} first", f"{second.name} second"])
        return Conversation(images, [Query(question, ", ".join(listed))])
    images = skills.scene("sparse", rng)
    symbols = images[0].values()
    if form == 4:
        corners = [(name, images[0][place].name) for name, place in language.CORNERS.items() if place in images[0]]
        listed = [f"{corner} {shape}" for corner, shape in corners] or ["empty"]
        return Conversation(images, [Query("What shape is in each corner?", ", ".join(listed))])
    if form == 5:
        question = f"{language.LISTING}\nGive the shape, then the color."
        listed = [f"{symbol.name} {symbol.color}" for symbol in symbols]
    else:
        question = f"{language.LISTING}\nName the color of each shape."
        listed = sorted(f"{symbol.name} {symbol.color}" for symbol in symbols)
    return Conversation(images, [Query(question, ", ".join(listed))])


_SPARSE = [("COM", "color"), ("COM", "shape"), ("COM", "corner"), ("HAL", "color")]
_DENSE = [("MAT", "total"), ("MAT", "color"), ("MAT", "color"), ("HAL", "color")]
_SINGLE = [(kind.skill, kind.name) for kind in skills.KINDS if kind.setting == "single"]
_PAIR = [(kind.skill, kind.name) for kind in skills.KINDS if kind.setting == "pair"]

FAMILIES: dict[str, Callable[[Random], Conversation]] = {
    "sparse": _about_scene("sparse", _SPARSE),
    "dense": _about_scene("dense", _DENSE),
    "single": _about_scene("single", _SINGLE),
    "pair": _about_scene("pair", _PAIR),
    "text": _about_text,
    "numbers": _about_numbers,
    "entity": _about_entity,
    "reading": _reading,
    "recognition": _recognition,
    "listing": _listing,
}
"""Maker of each family of conversations."""


def converse(shares: Sequence[float], rng: Random) -> Conversation:
    """Draw one pre-training conversation; ``shares`` weigh the ``FAMILIES`` in their order."""
    (maker,) = rng.choices(list(FAMILIES.values()), weights=shares)
    return maker(rng)
