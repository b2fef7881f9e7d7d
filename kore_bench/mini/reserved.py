"""Which facts of the injected entities no training may ask for: they stand in the paragraphs alone."""

from __future__ import annotations

from random import Random

from .language import RELATIONS

_SEED = 20_255


def reserved_relations(entities: int) -> tuple[int, ...]:
    """Return the relation of the one reserved fact of each entity, by its number.

    Every five entities in a row reserve each relation once, so that a hard relation weighs no more in one half of
    the questions than in the other; what is drawn for an entity does not depend on how many follow.
    """
    rng = Random(_SEED)
    drawn: list[int] = []
    while len(drawn) < entities:
        drawn += rng.sample(range(len(RELATIONS)), len(RELATIONS))
    return tuple(drawn[:entities])
