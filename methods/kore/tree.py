"""KORE's augmentation: one knowledge item becomes a tree of training conversations (arXiv 2510.19316, section 3.1).

The trunk is a dialogue on the item's own image; the branches are recognition, caption and VQA on retrieved images.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kore_bench.errors import UserError, nearest
from kore_bench.examples import Example, Item, Turn
from kore_bench.generators import Generator, Quadruplet

Embed = Callable[[Sequence[Path]], NDArray[np.floating]]
"""Image embeddings ``[images, features]``, such as CLIP's; rows need not have unit length."""

PARTS = ("dialogue", "recognition", "caption", "vqa")

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


@dataclass(frozen=True, kw_only=True)
class KnowledgeTree:
    """The conversations grown from one item, and what was lost on the way.

    ``rejected`` counts the VQA quadruplets that failed a quality rule, by reason; ``fallbacks`` counts the branches
    that show the item's own image because no retrieved one fits.
    """

    item: str
    dialogue: Example | None = None
    recognition: Example | None = None
    caption: Example | None = None
    vqa: tuple[Example, ...] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)
    fallbacks: int = 0

    def examples(self) -> tuple[Example, ...]:
        """Return the conversations, trunk first."""
        single = (self.dialogue, self.recognition, self.caption)
        return (*(example for example in single if example is not None), *self.vqa)


def plant(
    item: Item,
    generator: Generator,
    rng: random.Random,
    *,
    turns: int = 10,
    questions: int = 5,
    embed: Embed | None = None,
    parts: Sequence[str] = PARTS,
) -> KnowledgeTree:
    """Grow the knowledge tree of one item.

    ``turns`` bounds the generated turns of the dialogue (its heading comes on top), ``questions`` the VQA. Without
    ``embed`` the first two retrieved images are retained. Each part has its own random stream, so that leaving one
    out changes no other. Raises ``UserError`` for an unknown part, for an item without the name or type that its
    templates need, and where the generator cannot write about the item.
    """
    for part in parts:
        if part not in PARTS:
            raise UserError(f"A knowledge tree has no part {part!r}: {nearest(part, PARTS)}.")
    streams = {part: random.Random(rng.getrandbits(64)) for part in PARTS}
    retained = _retained(item, embed) if {"recognition", "caption"} & set(parts) else []
    grown: dict[str, Example] = {}
    vqa: list[Example] = []
    rejected: Counter[str] = Counter()
    fallbacks = 0

    if "dialogue" in parts:
        stream = streams["dialogue"]
        heading = Turn(question=_fill(stream.choice(HEADINGS), item), answer=item.text)
        generated = generator.dialogue(item, stream, turns)[:turns]
        grown["dialogue"] = _example(item, "dialogue", item.image, heading, *generated)
    if "recognition" in parts:
        question = _fill(streams["recognition"].choice(RECOGNITIONS), item)
        turn = Turn(question=f"{question}\n{YES_NO}", answer="Yes")
        grown["recognition"] = _example(item, "recognition", retained[0] if retained else item.image, turn)
        fallbacks += not retained
    if "caption" in parts:
        stream = streams["caption"]
        question = _fill(stream.choice(CAPTIONS), item)
        answer = _fill("{name}. ", item) + generator.summary(item, stream)
        turn = Turn(question=f"{question}\n{PARAGRAPH}", answer=answer)
        grown["caption"] = _example(item, "caption", retained[-1] if retained else item.image, turn)
        fallbacks += not retained
    if "vqa" in parts:
        stream = streams["vqa"]
        for quadruplet in generator.quadruplets(item, stream, questions)[:questions]:
            asked, reason = _refer(quadruplet)
            if reason:
                rejected[reason] += 1
                continue
            # Images are retrieved for the item's name, hence show no other subject.
            pictures = item.retrieved[:RETRIEVED] if quadruplet.subject.lower() == item.name.lower() else ()
            fallbacks += not pictures
            turn = Turn(question=f"{asked}\n{SHORT}", answer=quadruplet.answer)
            vqa.append(_example(item, f"vqa/{len(vqa) + 1}", stream.choice(pictures or (item.image,)), turn))
    return KnowledgeTree(item=item.id, vqa=tuple(vqa), rejected=dict(rejected), fallbacks=fallbacks, **grown)


def statistics_card(trees: Iterable[KnowledgeTree]) -> dict[str, int]:
    """Return the counts by which KORE-74K is described, over all ``trees``, and what was lost on the way."""
    trees = tuple(trees)
    return {
        **count([example for tree in trees for example in tree.examples()]),
        "rejects": sum(sum(tree.rejected.values()) for tree in trees),
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


def _fill(template: str, item: Item) -> str:
    """Fill ``{name}`` and ``{type}``; raise ``UserError`` where the item lacks what the template needs."""
    for key, value in (("name", item.name), ("type", item.type)):
        if f"{{{key}}}" in template and not value:
            raise UserError(
                f"Item {item.id!r} has no {key}, which KORE's templates need: give it in the injection file."
            )
    return template.format(name=item.name, type=item.type)


def _example(item: Item, part: str, image: Path, *turns: Turn) -> Example:
    return Example(id=f"{item.id}/{part}", images=(image,), turns=turns, source=f"kore/{part.partition('/')[0]}")


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


def _refer(quadruplet: Quadruplet) -> tuple[str, str]:
    """Return the question with its subject replaced by a reference to the image, and why it fails ("" if it does not).

    The subject must stand in the question, must not be the answer, and must be replaceable: it needs a hypernym, and
    "the tower in the image's" or "the tower in the image-" is no English.
    """
    subject, question = quadruplet.subject.strip(), quadruplet.question
    named = re.compile(rf"(?<!\w)(?:(?:the|a|an)\s+)?{re.escape(subject)}(?!\w)", re.IGNORECASE)
    if not subject or not named.search(question):
        return question, "subject not in the question"
    if subject.lower() == quadruplet.answer.strip(" .").lower():
        return question, "subject is the answer"
    if not quadruplet.hypernym or re.search(rf"{named.pattern}(?:['\u2019]s|-)", question, re.IGNORECASE):
        return question, "subject not replaceable"
    reference = f"he {quadruplet.hypernym} in the image"
    return named.sub(lambda match: ("t" if match.start() else "T") + reference, question), ""
