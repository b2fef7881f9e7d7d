"""Further questions about what the mini world injects: other wordings, by name, for the name, and of look-alikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from . import language, skills
from .drawing import SHAPES
from .language import RELATIONS
from .world import Entity, Writer, cast, fact_of

WORDINGS = 2
"""Other reserved wordings in which a fact is asked, beside that of the evaluation question."""


def write(writer: Writer, entities: Sequence[Entity], rng: Random) -> None:
    """Write ``probes.jsonl``: for each entity two wordings a fact, each fact by name, the name, and a look-alike's facts.

    Pictures are fresh renderings. What is asked and its instruction are worded as in pre-training, so that a wrong
    answer is a missing fact and not an unknown form of question.
    """
    rows: list[dict[str, Any]] = []

    def add(probe: str, entity: Entity, query: skills.Query, image: str | None, fact: str = "") -> None:
        row = Writer.row(len(rows) + 1, image, query, entity.type, entity)
        rows.append({**row, "probe": probe, **({"fact": fact} if fact else {})})

    def picture(entity: Entity) -> str:
        return writer.picture("probes", entity.cells(rng.randrange(9)))

    for entity in entities:
        twin = look_alike(entity, rng)
        for number in range(len(RELATIONS)):
            fact, value = fact_of(entity, number), entity.values[number]
            one, two, three = rng.sample(language.wordings(number, reserved=True), WORDINGS + 1)
            for wording in (one, two):
                add("paraphrase", entity, _ask(wording, entity.reference, value), picture(entity), fact)
            add("by-name", entity, _ask(three, entity.name, value), None, fact)
            add("look-alike", entity, _ask(three, twin.reference, value), picture(twin), fact)
        naming = rng.choice(language.NAMINGS).format(type=entity.type)
        add("naming", entity, skills.Query(naming, entity.name), picture(entity))
    writer.lines("probes.jsonl", rows)


def look_alike(entity: Entity, rng: Random) -> Entity:
    """Return what differs from ``entity`` by one shape of four, and is nothing that the world knows.

    Any two entities of the world share at most two shapes, so that it is nearer to this one than to all others.
    """
    known = {
        tuple(symbol.name for symbol in other.symbols) for other in (*cast().old, *cast().main, *cast().validation)
    }
    while True:
        place = rng.randrange(len(entity.symbols))
        symbols = list(entity.symbols)
        symbols[place] = symbols[place]._replace(name=rng.choice(SHAPES))
        if symbols[place] != entity.symbols[place] and tuple(symbol.name for symbol in symbols) not in known:
            return replace(entity, symbols=tuple(symbols))


def _ask(wording: str, subject: str, value: str) -> skills.Query:
    return skills.Query(f"{language.ask(wording, subject)}\n{language.SHORT}", value)
