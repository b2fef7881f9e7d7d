"""Further draws of new entities for the mini world: any number, near to the old ones or far; the rest is the main world's."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import permutations, product
from pathlib import Path
from random import Random
from typing import Any

from kore_bench.errors import UserError

from . import language, probes, skills
from .drawing import SHAPES, Cells, Symbol
from .language import HYPERNYMS, RELATIONS
from .probes import shapes_of
from .settings import WorldSettings
from .world import Entity, Writer, cast, random_look

Shapes = tuple[str, ...]
"""The four shapes of an entity, row by row."""

_MOST_SHARED = {"near": (3,), "any": (0, 1, 2), "far": (0, 1)}
_KEPT_FILES = ("retention.jsonl", "old_facts.jsonl", "old.json")
_KEPT_PICTURES = ("old-*", *(skill.lower() for skill in skills.SKILLS))


def drawn(settings: WorldSettings, draw: int) -> tuple[Entity, ...]:
    """Return the new entities of one draw: the same for the same numbers, and more of them begin with the fewer.

    Names have three words, where those of the main world have two, and no two entities of a draw share one. A value is
    one that no old entity has; they are dealt out in rounds, each in another order, so that all are equally frequent.
    No two entities have the same four shapes. Draws differ in names, facts and looks; distances in looks alone.
    Raises UserError where there are fewer looks than entities.
    """
    looks = list(_looks(settings.distance, draw))
    if settings.entities > len(looks):
        raise UserError(
            f"--set world.entities={settings.entities}: with world.distance={settings.distance} there are entities of "
            f"{len(looks)} different looks"
        )
    pairs = permutations(language.FIRST_NAMES, 2)
    names = [" ".join((*pair, last)) for pair, last in product(pairs, language.LAST_NAMES)]
    Random(f"names {draw}").shuffle(names)
    columns = [_values(number, settings.entities, draw) for number in range(len(RELATIONS))]
    return tuple(
        Entity(
            id=f"draw{draw}-{name.lower().replace(' ', '-')}",
            name=name,
            type=HYPERNYMS[number % len(HYPERNYMS)],
            kind=("news", "wiki")[number % 2],
            symbols=look,
            values=values,
        )
        for number, (values, name, look) in enumerate(zip(zip(*columns, strict=True), names, looks, strict=False))
    )


def write_draw(folder: Path, main: Path, settings: WorldSettings, draw: int) -> None:
    """Write a knowledge folder: what is old, retention and ``validation/`` as in the folder ``main``, a draw to inject.

    The same bytes every time. Raises UserError as `drawn` does.
    """
    entities = drawn(settings, draw)
    folder.mkdir(parents=True, exist_ok=True)
    for file in _KEPT_FILES:
        shutil.copy(main / file, folder / file)
    for source in (group for pattern in _KEPT_PICTURES for group in sorted((main / "images").glob(pattern))):
        shutil.copytree(source, folder / "images" / source.name)
    shutil.copytree(main / "validation", folder / "validation")
    writer = _DrawWriter(folder, Random(f"injection {draw}"), draw)
    writer.injection(entities)
    probes.write(writer, entities, Random(f"probes {draw}"), crowded([*cast().old, *entities]))


class _DrawWriter(Writer):
    """Writes what is injected under names of its draw's own: no question or picture is called like another draw's."""

    def __init__(self, root: Path, rng: Random, draw: int) -> None:
        super().__init__(root, rng)
        self.draw = draw

    def picture(self, group: str, cells: Cells) -> str:
        return super().picture(f"draw{self.draw}-{group}", cells)

    def lines(self, name: str, rows: Sequence[Any]) -> None:
        super().lines(name, [{**row, "question_id": f"draw{self.draw}-{row['question_id']}"} for row in rows])


def crowded(entities: Sequence[Entity]) -> frozenset[Shapes]:
    """Return the shapes that no look-alike may have: an entity's own, and those one shape away from more than one."""
    own = [shapes_of(entity) for entity in entities]
    beside = Counter(changed for shapes in own for changed in _beside(shapes))
    return frozenset(own) | {shapes for shapes, count in beside.items() if count > 1}


def _beside(shapes: Shapes) -> Iterator[Shapes]:
    """Yield what differs from ``shapes`` in one of them."""
    for place, shape in product(range(len(shapes)), SHAPES):
        if shape != shapes[place]:
            yield (*shapes[:place], shape, *shapes[place + 1 :])


def _looks(distance: str, draw: int) -> Iterator[tuple[Symbol, ...]]:
    """Yield the looks that a distance allows, each in shapes of its own, in the draw's order.

    A near one has the colours and the tint of the old entity that it resembles.
    """
    rng = Random(f"looks {distance} {draw}")
    choices = list(_choices(distance))
    rng.shuffle(choices)
    for shapes in choices:
        resembled = [entity.symbols for entity in cast().old if _shared(shapes, entity) == 3]
        symbols = rng.choice(resembled) if resembled else random_look(rng)
        yield tuple(symbol._replace(name=name) for symbol, name in zip(symbols, shapes, strict=True))


@cache
def _choices(distance: str) -> tuple[Shapes, ...]:
    """Return all fours of shapes at this distance from the old entities; those that tuning injects are left out."""
    tuned_on = {shapes_of(entity) for entity in cast().validation}
    return tuple(
        shapes
        for shapes in product(SHAPES, repeat=4)
        if shapes not in tuned_on and max(_shared(shapes, entity) for entity in cast().old) in _MOST_SHARED[distance]
    )


def _values(relation: int, count: int, draw: int) -> list[str]:
    """Deal out ``count`` values of a relation that no old entity has."""
    rng = Random(f"values {relation} {draw}")
    known = {entity.values[relation] for entity in cast().old}
    pairs = product(RELATIONS[relation].first, RELATIONS[relation].second)
    free = [value for pair in pairs if (value := " ".join(pair)) not in known]
    dealt: list[str] = []
    while len(dealt) < count:
        dealt += rng.sample(free, len(free))
    return dealt[:count]


def _shared(shapes: Shapes, entity: Entity) -> int:
    return sum(map(str.__eq__, shapes, shapes_of(entity)))
