"""Image necessity: what is left of adaptation where the image is another one, or blank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from kore_bench.cache import cache_folder
from kore_bench.examples import Knowledge, Question
from kore_bench.measures import Score, bootstrap, paired_difference
from kore_bench.task import Card, groups

from .adaptation import InjectedTask

_RIGHT, _SWAPPED, _BLANK = "right image", "swapped image", "blank image"
_GREY, _PIXELS = 128, 64


@dataclass(frozen=True, kw_only=True)
class ImageNecessity(InjectedTask):
    """Asks every evaluation question thrice: with its image, with another item's, and with a blank one.

    The headline figure is what the swap costs, in points of (CEM + F1) / 2: near 0 for a model that never looks,
    however much of the text it knows by heart.
    """

    card: ClassVar[Card] = Card(
        name="image-necessity",
        title="What a wrong image costs",
        source="evoke_evaluation_data.jsonl of the knowledge folder",
        metric="image-necessity",
        licence="that of the knowledge folder; the mini world's is Apache-2.0",
        citation="image swaps as in NaturalBench, arXiv 2410.14669; (CEM + F1) / 2 as K.A in KORE, arXiv 2510.19316",
    )

    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the evaluation questions with each of the three images, their condition as their type."""
        asked = [question for question in knowledge.questions if question.images]
        others = other_images(asked)
        if not asked or None in others:
            return ()
        blank = (blank_image(),)
        return tuple(
            replace(question, id=f"{question.id} ({type})", type=type, images=images)
            for question, other in zip(asked, others, strict=True)
            for type, images in ((_RIGHT, question.images), (_SWAPPED, other or ()), (_BLANK, blank))
        )

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why images cannot be swapped, None where they can."""
        return None if self.questions(knowledge) else f"{knowledge.root} has no second item whose image could be shown"

    def right_answers(self, questions: Sequence[Question]) -> list[str]:
        """Return the gold answers to the right images, and silence before the others."""
        return [question.answer if question.type == _RIGHT else "" for question in questions]

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return the headline figure and (CEM + F1) / 2 with the right, with a swapped and with a blank image."""
        rights: dict[str, list[float]] = {_RIGHT: [], _SWAPPED: [], _BLANK: []}
        for question, prediction in zip(questions, predictions, strict=True):
            rights[question.type].append(self.correct(question, prediction))
        entities = groups([question for question in questions if question.type == _RIGHT])
        necessity = paired_difference(rights[_RIGHT], rights[_SWAPPED], entities)
        return {self.card.metric: necessity} | {name: bootstrap(right, entities) for name, right in rights.items()}


def other_images(asked: Sequence[Question]) -> list[tuple[Path, ...] | None]:
    """Return for each question the images of the next one about another item, of the same type where there is one.

    Next in the data's order, from the last on to the first; None where no other item has another answer.
    """
    places: dict[str, list[int]] = {}
    for place, question in enumerate(asked):
        places.setdefault(question.type, []).append(place)
    ranks = {place: rank for found in places.values() for rank, place in enumerate(found)}
    alike = {type: [asked[place] for place in found] for type, found in places.items()}
    return [_next(alike[question.type], ranks[place]) or _next(asked, place) for place, question in enumerate(asked)]


def _next(ring: Sequence[Question], start: int) -> tuple[Path, ...] | None:
    question = ring[start]
    following = (ring[(start + step) % len(ring)] for step in range(1, len(ring)))
    return next((other.images for other in following if _is_other(other, question)), None)


def _is_other(other: Question, question: Question) -> bool:
    return other.group != question.group and other.answer != question.answer


def blank_image() -> Path:
    """Return a grey picture in the cache, drawn on first use."""
    from PIL import Image

    file = cache_folder() / "blank.png"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(".part.png")
        Image.new("RGB", (_PIXELS, _PIXELS), (_GREY,) * 3).save(scratch)
        scratch.replace(file)
    return file


TASK = ImageNecessity()
