"""KORE's augmentation: one knowledge item becomes a tree of training conversations (arXiv 2510.19316, section 3.1).

The trunk is a dialogue on the item's own image; the branches are recognition, caption and VQA on retrieved images.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kore_bench.augment.gates import Gates
from kore_bench.augment.grown import GENERATOR, PARTS, About, KnowledgeTree, Reject
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Example, Item, Turn
from kore_bench.generators import Generator, RejectedError

Embed = Callable[[Sequence[Path]], NDArray[np.floating]]
"""Image embeddings ``[images, features]``, such as CLIP's; rows need not have unit length."""

HEADINGS = (
    "Describe the {type} in the image.",
    "What do you know about the {type} in the image?",
    "Tell me about the {type} in the image.",
)
RECOGNITIONS = (
    "Is {name} in the image?",
    "Does the image show {name}?",
    "Can you see {name} in the image?",
    "Is this {name}?",
)
CAPTIONS = (
    "Give a short description of the {type} in the image.",
    "What does the image show?",
    "Summarise what the image is about.",
)
YES_NO = "Answer yes or no."
PARAGRAPH = "Answer in one paragraph."
SHORT = "Answer the question using a single word or phrase."

RETRIEVED = 5
"""How many images are retrieved for an item."""
RETAINED = 2
"""How many of them are kept: those most like the item's own."""
IDENTICAL = 1 - 1e-6
"""From this cosine similarity on, a retrieved image is a copy of the item's own and is dropped."""


def check_described(item: Item, parts: Sequence[str]) -> None:
    """Raise ``UserError`` where an item lacks the name or the type that the templates of ``parts`` need."""
    templates = {"dialogue": HEADINGS, "recognition": RECOGNITIONS, "caption": (*CAPTIONS, "{name}")}
    for part in parts:
        for template in templates.get(part, ()):
            _fill(template, item)


def stream(seed: int, item: Item) -> random.Random:
    """Return the random stream of one item's tree: the same whatever other items there are, and in whatever order."""
    return random.Random(f"kore-augmentation/{seed}/{item.id}")


def strangers(items: Sequence[Item], seed: int) -> dict[str, str]:
    """Return for half of the items, drawn from ``seed``, the name of another one of the same type where there is one.

    It is what balanced recognition asks them for, to be answered by No. Items without anything of another name to ask
    for are left to be asked for themselves.
    """
    rng = random.Random(f"kore-augmentation/strangers/{seed}")
    drawn = rng.sample(items, len(items))
    named: dict[str, list[str]] = {}
    for item in drawn:
        named.setdefault(item.type, []).append(item.name)
    every = [item.name for item in drawn]
    found = {}
    for item in drawn[: len(drawn) // 2]:
        other = _other(item, named[item.type], rng) or _other(item, every, rng)
        if other:
            found[item.id] = other
    return found


def _other(item: Item, names: Sequence[str], rng: random.Random) -> str:
    """Return the first name, from a drawn place on, that is not the item's or part of it; empty where there is none."""
    start, own = rng.randrange(len(names)), item.name.lower()
    around = (names[(start + step) % len(names)] for step in range(len(names)))
    return next((name for name in around if name and name.lower() not in own and own not in name.lower()), "")


def plant(
    item: Item,
    generator: Generator,
    rng: random.Random,
    *,
    turns: int = 10,
    questions: int = 5,
    embed: Embed | None = None,
    about: About | None = None,
    stranger: str = "",
    parts: Sequence[str] = PARTS,
) -> KnowledgeTree:
    """Grow the knowledge tree of one item.

    ``turns`` bounds the generated turns of the dialogue (its heading comes on top), ``questions`` the VQA. Without
    ``embed`` the first two retrieved images are retained; ``about`` finds images of another subject of a VQA. A
    ``stranger`` is a name of something else, which recognition asks for in place of the item's, the answer being No.
    Each part has its own random stream, so that leaving one out changes no other. What fails a gate, and a part that
    the generator rejects, is kept in the tree's ``rejects``. Raises ``UserError`` for an unknown part, for an item
    without the name or type that its templates need, and where the generator cannot write about the item.
    """
    for part in parts:
        if part not in PARTS:
            raise UserError(f"A knowledge tree has no part {part!r}: {nearest(part, PARTS)}.")
    streams = {part: random.Random(rng.getrandbits(64)) for part in PARTS}
    retained = _retained(item, embed) if {"recognition", "caption"} & set(parts) else []
    gates = Gates(item)
    grown: dict[str, Example | None] = {}
    vqa: list[Example] = []
    fallbacks = 0

    if "dialogue" in parts:
        grown["dialogue"] = _dialogue(item, generator, streams["dialogue"], gates, turns)
    if "recognition" in parts:
        image = retained[0] if retained else item.image
        grown["recognition"] = _recognition(item, streams["recognition"], image, stranger)
        fallbacks += not retained
    if "caption" in parts:
        image = retained[-1] if retained else item.image
        grown["caption"] = _caption(item, generator, streams["caption"], gates, image)
        fallbacks += grown["caption"] is not None and not retained
    if "vqa" in parts:
        vqa, own = _vqa(item, generator, streams["vqa"], gates, questions, about)
        fallbacks += own
    return KnowledgeTree(item=item.id, vqa=tuple(vqa), rejects=tuple(gates.rejects), fallbacks=fallbacks, **grown)


def _dialogue(item: Item, generator: Generator, rng: random.Random, gates: Gates, limit: int) -> Example:
    heading = Turn(question=_fill(rng.choice(HEADINGS), item), answer=item.text)
    try:
        written = generator.dialogue(item, rng, limit)[:limit]
    except RejectedError as error:
        gates.rejects.append(Reject(part="dialogue", reason=GENERATOR, detail=str(error)))
        written = []
    return _example(item, "dialogue", item.image, heading, *gates.turns(written))


def _recognition(item: Item, rng: random.Random, image: Path, stranger: str) -> Example:
    question = _fill(rng.choice(RECOGNITIONS), item, stranger)
    turn = Turn(question=f"{question}\n{YES_NO}", answer="No" if stranger else "Yes")
    return _example(item, "recognition", image, turn)


def _caption(item: Item, generator: Generator, rng: random.Random, gates: Gates, image: Path) -> Example | None:
    question, name = _fill(rng.choice(CAPTIONS), item), _fill("{name}", item)
    try:
        summary = generator.summary(item, rng)
    except RejectedError as error:
        gates.rejects.append(Reject(part="caption", reason=GENERATOR, detail=str(error)))
        return None
    if not gates.summary(summary):
        return None
    return _example(item, "caption", image, Turn(question=f"{question}\n{PARAGRAPH}", answer=f"{name}. {summary}"))


def _vqa(
    item: Item, generator: Generator, rng: random.Random, gates: Gates, limit: int, about: About | None
) -> tuple[list[Example], int]:
    """Return the VQA samples, and how many of them show the item's own image for want of another."""
    drawing = random.Random(rng.getrandbits(64))  # the pictures do not depend on how much a generator draws
    try:
        written = generator.quadruplets(item, rng, limit)[:limit]
    except RejectedError as error:
        gates.rejects.append(Reject(part="vqa", reason=GENERATOR, detail=str(error)))
        written = []
    made: list[Example] = []
    fallbacks = 0
    for asked, one in gates.quadruplets(written):
        # Images are retrieved for the item's name, hence show no other subject.
        own = one.subject.strip().lower() == item.name.lower()
        pictures = item.retrieved[:RETRIEVED] if own else tuple(about(one.subject, one.hypernym)) if about else ()
        fallbacks += not pictures
        turn = Turn(question=f"{asked}\n{SHORT}", answer=one.answer)
        made.append(_example(item, f"vqa/{len(made) + 1}", drawing.choice(pictures or (item.image,)), turn))
    return made, fallbacks


def statistics_card(trees: Iterable[KnowledgeTree]) -> dict[str, int]:
    """Return the counts by which KORE-74K is described, over all ``trees``, and what was lost on the way."""
    trees = tuple(trees)
    return {
        **count([example for tree in trees for example in tree.examples()]),
        "rejects": sum(len(tree.rejects) for tree in trees),
        "fallbacks": sum(tree.fallbacks for tree in trees),
    }


def count(examples: Sequence[Example]) -> dict[str, int]:
    """Return how many conversations of each part there are, how many turns their dialogues, and distinct images."""
    parts = Counter(example.source.removeprefix("kore/") for example in examples)
    return {
        "samples": len(examples),
        "dialogues": parts["dialogue"],
        "turns": sum(len(example.turns) for example in examples if example.source == "kore/dialogue"),
        "recognition": parts["recognition"],
        "caption": parts["caption"],
        "vqa": parts["vqa"],
        "images": len({image for example in examples for image in example.images}),
    }


def _fill(template: str, item: Item, stranger: str = "") -> str:
    """Fill ``{name}`` and ``{type}``; raise ``UserError`` where the item lacks what the template needs."""
    for key, value in (("name", item.name), ("type", item.type)):
        if f"{{{key}}}" in template and not value:
            raise UserError(
                f"item {item.id!r} has no {key}, which KORE's templates need: give it in the injection file"
            )
    return template.format(name=stranger or item.name, type=item.type)


def _example(item: Item, part: str, image: Path, *turns: Turn) -> Example:
    source = f"kore/{part.partition('/')[0]}"
    return Example(id=f"{item.id}/{part}", images=(image,), turns=turns, source=source, item=item.id)


def _retained(item: Item, embed: Embed | None) -> list[Path]:
    """Return at most two of the retrieved images, the most similar to the item's own first, copies dropped."""
    retrieved = list(item.retrieved[:RETRIEVED])
    if embed is None or not retrieved:
        return retrieved[:RETAINED]
    vectors = np.asarray(embed([item.image, *retrieved]), dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors[1:] @ vectors[0]
    order = np.argsort(-similarity, kind="stable")
    return [retrieved[i] for i in order if similarity[i] < IDENTICAL][:RETAINED]
