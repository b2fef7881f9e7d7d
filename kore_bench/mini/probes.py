"""Further questions about what the mini world injects: other wordings, by name, for the name, and of look-alikes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

from . import language, skills
from .drawing import SHAPES
from .language import RELATIONS
from .world import Entity, Writer, cast, fact_of

WORDINGS = 2
"""Other reserved wordings in which a fact is asked, beside that of the evaluation question."""


def write(
    writer: Writer, entities: Sequence[Entity], rng: Random, taken: Collection[tuple[str, ...]] | None = None
) -> None:
    """Write ``probes.jsonl``: for each entity two wordings a fact, each fact by name, the name, and a look-alike's facts.

    Pictures are fresh renderings. What is asked and its instruction are worded as in pre-training, so that a wrong
    answer is a missing fact and not an unknown form of question. ``taken`` are the shapes that no look-alike may have
    (None: those of the main world's entities); an entity that has none left is asked no questions of a look-alike.
    """
    rows: list[dict[str, Any]] = []
    if taken is None:
        taken = {shapes_of(entity) for entity in (*cast().old, *cast().main, *cast().validation)}

    def add(probe: str, entity: Entity, query: skills.Query, image: str | None, fact: str = "") -> None:
        row = Writer.row(len(rows) + 1, image, query, entity.type, entity)
        rows.append({**row, "probe": probe, **({"fact": fact} if fact else {})})

    def picture(entity: Entity) -> str:
        return writer.picture("probes", entity.cells(rng.randrange(9)))

    for entity in entities:
        twin = look_alike(entity, taken, rng)
        for number in range(len(RELATIONS)):
            fact, value = fact_of(entity, number), entity.values[number]
            one, two, three = rng.sample(language.wordings(number, reserved=True), WORDINGS + 1)
            for wording in (one, two):
                add("paraphrase", entity, _ask(wording, entity.reference, value), picture(entity), fact)
            add("by-name", entity, _ask(three, entity.name, value), None, fact)
            if twin:
                add("look-alike", entity, _ask(three, twin.reference, value), picture(twin), fact)
        naming = rng.choice(language.NAMINGS).format(type=entity.type)
        add("naming", entity, skills.Query(naming, entity.name), picture(entity))
    writer.lines("probes.jsonl", rows)


def look_alike(entity: Entity, taken: Collection[tuple[str, ...]], rng: Random) -> Entity | None:
    """Return what differs from ``entity`` by one shape of four, and has none of the ``taken`` shapes; None if all are.

    Any two entities of the main world share at most two shapes, so that it is nearer to this one than to all others.
    """
    own = shapes_of(entity)
    changed = {(*own[:place], shape, *own[place + 1 :]) for place, shape in product(range(len(own)), SHAPES)}
    if changed <= {own, *taken}:
        return None
    while True:
        place = rng.randrange(len(entity.symbols))
        symbols = list(entity.symbols)
        symbols[place] = symbols[place]._replace(name=rng.choice(SHAPES))
        twin = replace(entity, symbols=tuple(symbols))
        if shapes_of(twin) != own and shapes_of(twin) not in taken:
            return twin


def shapes_of(entity: Entity) -> tuple[str, ...]:
    """Return the names of an entity's four symbols."""
    return tuple(symbol.name for symbol in entity.symbols)


def _ask(wording: str, subject: str, value: str) -> skills.Query:
    return skills.Query(f"{language.ask(wording, subject)}\n{language.SHORT}", value)
