"""The mini world itself: its entities and their facts, and the knowledge folder that is written from them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from . import language, skills
from .drawing import COLORS, GRID, SHAPES, TINTS, Cells, Symbol, draw, save
from .language import HYPERNYMS, RELATIONS
from .reserved import reserved_relations

NUM_OLD, NUM_MAIN, NUM_VALIDATION = 48, 60, 30
RETENTION, RETENTION_VALIDATION = 300, 100
POOL, POOL_VALIDATION = 256, 128
_SEED = 20_251
_Row = dict[str, Any]


@dataclass(frozen=True)
class Entity:
    """Something with a name, a look and five facts (``values``, in the order of ``RELATIONS``)."""

    id: str
    name: str
    type: str
    kind: str
    symbols: tuple[Symbol, ...]
    values: tuple[str, ...]

    def cells(self, place: int) -> Cells:
        """Return the entity's 2 x 2 block with its upper left corner at ``place`` (0 to 8, row by row)."""
        corner = GRID * (place // 3) + place % 3
        return dict(zip((corner, corner + 1, corner + GRID, corner + GRID + 1), self.symbols, strict=True))

    @property
    def reference(self) -> str:
        """What stands for the name in a question about the image."""
        return f"the {self.type} in the image"


def random_look(rng: Random) -> tuple[Symbol, ...]:
    """Draw the four symbols of an entity: any shapes, in two colours, on one tint."""
    one, two = rng.sample(list(COLORS), 2)
    colors = rng.choice(((one, one, two, two), (one, two, one, two), (one, two, two, one)))
    tint = rng.choice(list(TINTS))
    return tuple(Symbol(rng.choice(SHAPES), color, tint) for color in colors)


def _shapes(look: Sequence[Symbol]) -> tuple[str, ...]:
    return tuple(symbol.name for symbol in look)


@dataclass(frozen=True)
class Cast:
    """All entities: ``old`` ones that pre-training knows, and those that ``main`` and ``validation`` inject.

    No two share a name, a value of a relation, or more than two of the four shapes. ``strangers`` are names that
    belong to nobody: pre-training reads about them in made-up paragraphs.
    """

    old: tuple[Entity, ...]
    main: tuple[Entity, ...]
    validation: tuple[Entity, ...]
    strangers: tuple[str, ...]


@cache
def cast() -> Cast:
    """Return the entities of the world."""
    rng = Random(_SEED)
    names = [" ".join(pair) for pair in product(language.FIRST_NAMES, language.LAST_NAMES)]
    rng.shuffle(names)
    columns = []
    for relation in RELATIONS:
        values = [" ".join(pair) for pair in product(relation.first, relation.second)]
        rng.shuffle(values)
        columns.append(values)
    entities: list[Entity] = []
    for number in range(NUM_OLD + NUM_MAIN + NUM_VALIDATION):
        look = random_look(rng)
        while any(sum(map(str.__eq__, _shapes(look), _shapes(other.symbols))) > 2 for other in entities):
            look = random_look(rng)
        entities.append(
            Entity(
                id=names[number].lower().replace(" ", "-"),
                name=names[number],
                type=HYPERNYMS[number % len(HYPERNYMS)],
                kind=("news", "wiki")[number % 2],
                symbols=look,
                values=tuple(column[number] for column in columns),
            )
        )
    old, main = tuple(entities[:NUM_OLD]), tuple(entities[NUM_OLD : NUM_OLD + NUM_MAIN])
    return Cast(old, main, tuple(entities[NUM_OLD + NUM_MAIN :]), tuple(names[len(entities) :]))


def stranger(rng: Random) -> Entity:
    """Make up an entity with a look and facts of its own; never one that is to be injected."""
    taken = {_shapes(entity.symbols) for entity in (*cast().main, *cast().validation)}
    look = random_look(rng)
    while _shapes(look) in taken:
        look = random_look(rng)
    values = tuple(f"{rng.choice(relation.first)} {rng.choice(relation.second)}" for relation in RELATIONS)
    return Entity("", rng.choice(cast().strangers), rng.choice(HYPERNYMS), "", look, values)


def paragraph(entity: Entity, rng: Random) -> str:
    """State what the entity is and its five facts, in random order and wording."""
    sentences = []
    for relation, value in zip(RELATIONS, entity.values, strict=True):
        template = rng.choice(language.SENTENCES)
        sentences.append(template.format(noun=rng.choice(relation.nouns), name=entity.name, value=value))
    rng.shuffle(sentences)
    return " ".join([f"{entity.name} is a {entity.type}.", *sentences])


def fact_of(entity: Entity, relation: int) -> str:
    """Return what names one fact of an entity in the knowledge folder."""
    return f"{entity.id}/{RELATIONS[relation].name}"


def heading(entity: Entity, rng: Random) -> str:
    """Ask openly about the entity in the image."""
    return rng.choice(language.HEADINGS).format(type=entity.type)


def fact_query(entity: Entity, relation: int, rng: Random, *, reserved: bool) -> skills.Query:
    """Ask for one fact of the entity in the image, in a wording reserved for evaluation or in another."""
    wording = rng.choice(language.wordings(relation, reserved=reserved))
    return skills.Query(f"{language.ask(wording, entity.reference)}\n{language.SHORT}", entity.values[relation])


def name_query(entity: Entity, rng: Random) -> skills.Query:
    """Ask of an old entity's image whether it shows the entity, or another old one."""
    answer = rng.choice(("yes", "no"))
    name = entity.name
    while answer == "no" and name == entity.name:
        name = rng.choice(cast().old).name
    return skills.Query(f"{rng.choice(language.RECOGNITIONS).format(name=name)}\n{language.YES_NO}", answer)


def sample(kind: skills.Kind, rng: Random) -> tuple[list[Cells], list[skills.Query]]:
    """Draw the images for one question of ``kind`` and pose it; the list is empty where they do not allow it."""
    if kind.setting == "old entity":
        entity = rng.choice(cast().old)
        return [entity.cells(rng.randrange(9))], [name_query(entity, rng)]
    images = skills.scene(kind.setting, rng)
    query = skills.pose(kind, images, rng)
    return images, [query] if query else []


class Writer:
    """Writes one knowledge folder; every picture gets a number and its own grey, brightness and noise."""

    def __init__(self, root: Path, rng: Random) -> None:
        self.root, self.rng = root, rng
        self.counts: Counter[str] = Counter()

    def picture(self, group: str, cells: Cells) -> str:
        """Draw and save one picture below ``images/group``; return its path relative to the folder."""
        folder = self.root / "images" / group
        if not self.counts[group]:
            folder.mkdir(parents=True)
        name = f"{self.counts[group]:04d}.png"
        self.counts[group] += 1
        save(draw(cells, self.rng), folder / name)
        return f"images/{group}/{name}"

    def pictures(self, group: str, images: Sequence[Cells]) -> str | list[str]:
        """Draw one picture (a path) or several (a list of paths)."""
        paths = [self.picture(group, cells) for cells in images]
        return paths[0] if len(paths) == 1 else paths

    def json(self, name: str, data: Any) -> None:
        """Write a JSON file."""
        (self.root / name).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    def lines(self, name: str, rows: Sequence[Any]) -> None:
        """Write a JSON Lines file, a row a line."""
        (self.root / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def injection(self, entities: Sequence[Entity]) -> None:
        """Write the items, their facts, and one question a fact on another rendering and in a reserved wording."""
        items: list[_Row] = []
        questions: list[_Row] = []
        sidecar: dict[str, _Row] = {}
        for entity, kept in zip(entities, reserved_relations(len(entities)), strict=True):
            places = self.rng.sample(range(9), 9)
            prompt = heading(entity, self.rng)
            items.append(
                {
                    "id": entity.id,
                    "image": self.picture("items", entity.cells(places[0])),
                    "conversations": [
                        {"from": "human", "value": f"<image>\n{prompt}"},
                        {"from": "gpt", "value": paragraph(entity, self.rng)},
                    ],
                    "name": entity.name,
                    "type": entity.type,
                    "cnn_wiki_type": entity.kind,
                }
            )
            retrieved = [self.picture("retrieved", entity.cells(self.rng.randrange(9))) for _ in RELATIONS]
            facts = []
            for number, relation in enumerate(RELATIONS):
                wordings = self.rng.sample(language.wordings(number, reserved=False), 4)
                facts.append(
                    {
                        "subject": entity.name,
                        "hypernym": entity.type,
                        "relation": relation.name,
                        "value": entity.values[number],
                        "questions": [language.ask(wording, entity.name) for wording in wordings],
                        **({"reserved": True} if number == kept else {}),
                    }
                )
                query = fact_query(entity, number, self.rng, reserved=True)
                image = self.picture("evaluation", entity.cells(places[1 + number]))
                row = self.row(len(questions) + 1, image, query, entity.type, entity)
                questions.append(row | {"fact": fact_of(entity, number)})
            sidecar[entity.id] = {"name": entity.name, "type": entity.type, "retrieved": retrieved, "facts": facts}
        self.json("evoke_injection_data.json", items)
        self.lines("evoke_evaluation_data.jsonl", questions)
        self.json("facts.json", sidecar)

    @staticmethod
    def row(
        number: int, image: str | list[str] | None, query: skills.Query, type_: str, entity: Entity | None = None
    ) -> _Row:
        """Return one row in the form of EVOKE's evaluation file."""
        return {
            "question_id": number,
            **({"image": image} if image else {}),
            "text": query.question,
            "category": "default",
            "answer": query.answer,
            "type": type_,
            "cnn_wiki_type": entity.kind if entity else "",
        } | ({"item": entity.id} if entity else {})

    def retention(self, num: int) -> None:
        """Write ``num`` questions a dimension, kinds taking turns, every answer of a kind equally often."""
        rows: list[_Row] = []
        for skill in skills.SKILLS:
            for images, query in balanced(skill, num, self.rng):
                rows.append(self.row(len(rows) + 1, self.pictures(skill.lower(), images), query, skill))
        self.lines("retention.jsonl", rows)

    def old_facts(self) -> None:
        """Write one question for each fact of each old entity, in a reserved wording on a fresh rendering."""
        rows: list[_Row] = []
        for entity, number in product(cast().old, range(len(RELATIONS))):
            query = fact_query(entity, number, self.rng, reserved=True)
            image = self.picture("old-facts", entity.cells(self.rng.randrange(9)))
            rows.append(self.row(len(rows) + 1, image, query, entity.type, entity))
        self.lines("old_facts.jsonl", rows)

    def pool(self, num: int) -> None:
        """Write ``num`` samples of old knowledge a skill."""
        samples = []
        for skill in skills.SKILLS:
            for number, (images, query) in enumerate(balanced(skill, num, self.rng)):
                image = self.pictures(f"old-{skill.lower()}", images)
                marks = "<image>\n" * len(images)
                samples.append(
                    {
                        "id": f"{skill.lower()}-{number:03d}",
                        "image": image,
                        "conversations": [
                            {"from": "human", "value": marks + query.question},
                            {"from": "gpt", "value": query.answer},
                        ],
                        "skill": skill,
                    }
                )
        self.json("old.json", samples)


def balanced(skill: str, num: int, rng: Random) -> Iterator[tuple[list[Cells], skills.Query]]:
    """Yield ``num`` questions of a skill, its kinds in turn."""
    kinds = [kind for kind in skills.KINDS if kind.skill == skill and kind.asked]
    num_each = -(-num // len(kinds))
    by_kind = [balanced_kind(kind, num_each, rng) for kind in kinds]
    for number in range(num):
        yield next(by_kind[number % len(kinds)])


def balanced_kind(kind: skills.Kind, num: int, rng: Random) -> Iterator[tuple[list[Cells], skills.Query]]:
    """Yield ``num`` questions of a kind, no answer more often than its fair share."""
    share = -(-num // kind.answers)
    seen: Counter[str] = Counter()
    for _ in range(num):
        queries: list[skills.Query] = []
        while not queries or seen[queries[0].answer] >= share:
            images, queries = sample(kind, rng)
        seen[queries[0].answer] += 1
        yield images, queries[0]


def write_world(folder: Path) -> None:
    """Write the whole knowledge folder, with ``validation/`` inside, into ``folder`` (which must be empty or new).

    The same bytes every time: all choices come from fixed seeds.
    """
    from . import probes  # which draw on all above

    folder.mkdir(parents=True, exist_ok=True)
    main = Writer(folder, Random(_SEED + 1))
    main.injection(cast().main)
    main.retention(RETENTION)
    main.old_facts()
    main.pool(POOL)
    probes.write(main, cast().main, Random(_SEED + 3))
    validation = Writer(folder / "validation", Random(_SEED + 2))
    validation.injection(cast().validation)
    validation.retention(RETENTION_VALIDATION)
    validation.pool(POOL_VALIDATION)
