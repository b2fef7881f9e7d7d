"""Contamination: what of generated samples stands in the evaluation already, by text and by image, and without it.

A question is the same where its normalised words are and it is asked of the same item or has the same answer; "What is
the height of the tower in the image?" is another question of another tower. It is nearly so where `CONTAINED` of the
evaluation question's n-grams stand in it and the answer is the same: other words in one place ask for something else.
An image is the same where its bytes are, and nearly so where its perceptual hash is within `NEAR` bits and its colours
agree part by part (`same_colours`). The item's own image and text are the data's, not generated: an overlap of the own
image is reported and stays.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kore_bench.examples import Example, Knowledge, Question

from .grown import KnowledgeTree
from .journal import Entry, Picture
from .phash import BITS, NEAR, same_colours
from .wordings import words

GRAM = 4
"""Words of an n-gram; a shorter question is one n-gram."""
CONTAINED = 0.8
SAME_QUESTION, NEAR_QUESTION, SAME_IMAGE, NEAR_IMAGE = "same question", "near question", "same image", "near image"
OWN_IMAGE = "own image"
KINDS = (SAME_QUESTION, NEAR_QUESTION, SAME_IMAGE, NEAR_IMAGE, OWN_IMAGE)
"""Ways in which a sample overlaps with the evaluation; ``own image`` is the data's own and never removed."""

_ONES = np.array([number.bit_count() for number in range(2**16)], dtype=np.uint8)
_INSTRUCTION = re.compile(r"\s*\b(?:Answer|Give|Reply|Respond)\b[^?]*\Z|\s*\n.*\Z", re.DOTALL)
Words = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """One turn or image of a ``sample`` that ``question`` of the evaluation or of a sort of probes (``asked``) has too.

    ``turn`` is -1 for an image; ``score`` is the share of n-grams contained, or of equal bits of the two hashes.
    """

    item: str
    sample: str
    kind: str
    asked: str
    question: str
    turn: int = -1
    score: float = 1.0


def asked_in(knowledge: Knowledge) -> tuple[tuple[str, Question], ...]:
    """Return all that is asked about the items, each question behind where it is asked."""
    tables = {"evaluation": knowledge.questions, **knowledge.probes}
    return tuple((name, question) for name, questions in tables.items() for question in questions)


class Guard:
    """Looks for overlaps with the evaluation questions and probes of ``knowledge`` and their images."""

    def __init__(self, knowledge: Knowledge, pictures: Mapping[Path, Picture]) -> None:
        self.questions = asked_in(knowledge)
        self._asked = [words(asked_of(question.text)) for _, question in self.questions]
        self._answers = [words(question.answer) for _, question in self.questions]
        self._by_words, self._by_gram = defaultdict[Words, list[int]](list), defaultdict[Words, list[int]](list)
        for number, asked in enumerate(self._asked):
            self._by_words[asked].append(number)
            for gram in grams(asked):
                self._by_gram[gram].append(number)
        self._shown: dict[Path, int] = {}
        for number, (_, question) in enumerate(self.questions):
            for image in question.images:
                self._shown.setdefault(image, number)
        self._digests = {pictures[image].digest: number for image, number in self._shown.items()}
        self._images = list(self._shown)
        self._hashes = np.array([pictures[image].hash for image in self._images], dtype=np.uint64)

    def overlaps(self, entry: Entry, own: Path) -> Iterator[Overlap]:
        """Yield what the samples of an item, whose own image is ``own``, have in common with the evaluation."""
        for example in entry.tree.examples():
            for number, turn in enumerate(example.turns):
                if number or not example.source.endswith("dialogue"):  # the first turn is the item's text
                    yield from self._of_turn(example, number, words(asked_of(turn.question)), words(turn.answer))
            for image in example.images:
                yield from self._of_image(example, image, entry.pictures[image], is_own=image == own)

    def _of_turn(self, example: Example, turn: int, asked: Words, answer: Words) -> Iterator[Overlap]:
        for number in self._by_words.get(asked, ()):
            if self.questions[number][1].group == example.item or self._answers[number] == answer:
                yield self._overlap(example, SAME_QUESTION, number, turn=turn)
                return
        hits = Counter(found for gram in grams(asked) for found in self._by_gram.get(gram, ()))
        shares = {found: count / len(grams(self._asked[found])) for found, count in hits.items()}
        near = [found for found, share in shares.items() if share >= CONTAINED and self._answers[found] == answer]
        if near:
            nearest = min(near, key=lambda found: (-shares[found], found))
            yield self._overlap(example, NEAR_QUESTION, nearest, turn=turn, score=shares[nearest])

    def _of_image(self, example: Example, image: Path, picture: Picture, *, is_own: bool) -> Iterator[Overlap]:
        if (same := self._digests.get(picture.digest)) is not None:
            yield self._overlap(example, OWN_IMAGE if is_own else SAME_IMAGE, same)
            return
        distances = _bits(self._hashes ^ np.uint64(picture.hash))
        # The hash does not look at colours.
        near = (place for place in np.flatnonzero(distances <= NEAR) if same_colours(image, self._images[place]))
        if (place := min(near, key=lambda place: (distances[place], place), default=None)) is not None:
            kind, share = OWN_IMAGE if is_own else NEAR_IMAGE, 1 - int(distances[place]) / BITS
            yield self._overlap(example, kind, self._shown[self._images[place]], score=share)

    def _overlap(self, example: Example, kind: str, number: int, *, turn: int = -1, score: float = 1.0) -> Overlap:
        asked, question = self.questions[number]
        return Overlap(
            item=example.item, sample=example.id, kind=kind, asked=asked, question=question.id, turn=turn,
            score=round(score, 4),
        )  # fmt: skip


def _bits(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return how many bits of each 64-bit number are set."""
    ones: NDArray[np.int64] = _ONES[numbers.view(np.uint16)].reshape(len(numbers), 4).sum(axis=1, dtype=np.int64)
    return ones


def asked_of(text: str) -> str:
    """Return a question without the instruction behind it."""
    return _INSTRUCTION.sub("", text) or text


def grams(asked: Words) -> frozenset[Words]:
    """Return the n-grams of a question."""
    return frozenset(asked[start : start + GRAM] for start in range(max(1, len(asked) - GRAM + 1)))


def decontaminated(tree: KnowledgeTree, overlaps: Iterable[Overlap]) -> KnowledgeTree:
    """Return a tree without what overlaps: turns of the dialogue, other samples whole; own images stay."""
    taken = [overlap for overlap in overlaps if overlap.kind != OWN_IMAGE]
    samples = {overlap.sample for overlap in taken}
    turns = {overlap.turn for overlap in taken if tree.dialogue and overlap.sample == tree.dialogue.id}

    def kept(example: Example | None) -> Example | None:
        return None if example is None or example.id in samples else example

    trunk = tree.dialogue and replace(
        tree.dialogue, turns=tuple(turn for number, turn in enumerate(tree.dialogue.turns) if number not in turns)
    )
    return replace(
        tree,
        dialogue=trunk,
        recognition=kept(tree.recognition),
        caption=kept(tree.caption),
        vqa=tuple(example for example in tree.vqa if example.id not in samples),
    )
