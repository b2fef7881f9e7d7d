"""The nouns of the data: knowledge items, their facts, training conversations and evaluation questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One exchange of a conversation; the loss is taken on the answer's tokens only."""

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training conversation about zero or more images.

    The images stand in front of the first question, in order; ``source`` says where the example comes from
    ("injection", "replay", "kore/dialogue", or the skill of an old-knowledge sample). ``item`` is the id of the item that
    it is about, empty where that is none in particular.
    """

    id: str
    images: tuple[Path, ...]
    turns: tuple[Turn, ...]
    source: str
    item: str = ""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One structured fact of an item: ``subject`` (a ``hypernym``) has ``relation`` ``value``.

    ``questions`` are wordings that may be trained on; each contains the subject's name. A ``reserved`` fact is stated in
    the item's text and asked in the evaluation, and no training asks for it: what reading alone gives.
    """

    subject: str
    hypernym: str
    relation: str
    value: str
    questions: tuple[str, ...]
    reserved: bool = False


@dataclass(frozen=True, kw_only=True)
class Item:
    """One piece of knowledge to inject: an image and a text about it.

    ``prompt`` is the human turn of the injection file (without the image mark); ``retrieved`` are further images
    that an image search for the item's name would find; ``facts`` is empty where no sidecar gives them.
    """

    id: str
    image: Path
    prompt: str
    text: str
    name: str = ""
    type: str = ""
    kind: str = ""
    retrieved: tuple[Path, ...] = ()
    facts: tuple[Fact, ...] = ()

    def example(self) -> Example:
        """Return the plain training conversation of the injection file."""
        turn = Turn(question=self.prompt, answer=self.text)
        return Example(id=self.id, images=(self.image,), turns=(turn,), source="injection", item=self.id)


@dataclass(frozen=True, kw_only=True)
class Question:
    """One evaluation query; ``text`` holds the question and its instruction.

    ``group`` is what answers depend on jointly (the entity, or the question itself): intervals resample groups.
    ``type`` is EVOKE's fine-grained type or a retention dimension, ``kind`` is ``news`` or ``wiki`` or empty.
    ``context`` is the paragraph that the in-context reference reads first. ``fact`` names what is asked, the same for
    every wording of one question. ``asked`` says whether the training that is measured asks for the answer, or states it in
    texts alone; None where that is not known (`kore_bench.asked`).
    """

    id: str
    images: tuple[Path, ...]
    text: str
    answer: str
    type: str = ""
    kind: str = ""
    group: str = ""
    context: str = ""
    fact: str = ""
    asked: bool | None = None


PROBES: Mapping[str, str] = {
    "paraphrase": "an evaluation question in other words",
    "by-name": "a fact, asked by the item's name without an image",
    "naming": "the item's name, asked of its image",
    "hop": "what follows from an injected fact and an old one",
    "look-alike": "a fact of something that was not injected but looks like an item, whose own value is the answer",
}
"""Sorts of further questions about what is injected, and what each asks."""


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """All that one run injects and measures, read from one folder.

    ``old`` maps each skill to samples of old knowledge for calibration, Fisher information and replay; ``retention``
    and ``old_facts`` are empty where the folder has no such file; ``probes`` are further questions about what is injected,
    by their sort (``PROBES``). ``digest`` is the SHA-256 over the folder's files.
    ``unpacked`` are folders outside of ``root`` that hold images, such as those of its archives.
    """

    root: Path
    digest: str
    items: tuple[Item, ...]
    questions: tuple[Question, ...]
    retention: tuple[Question, ...] = ()
    old_facts: tuple[Question, ...] = ()
    probes: Mapping[str, tuple[Question, ...]] = field(default_factory=dict)
    old: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    unpacked: tuple[Path, ...] = ()

    def name_of(self, image: Path) -> str:
        """Return the name of an image in the folder, as a record gives it."""
        return name_of(image, (self.root, *self.unpacked))


def name_of(image: Path, folders: Iterable[Path]) -> str:
    """Return an image's path below the first of ``folders`` that holds it; its bare name where none does."""
    inside = next((folder for folder in folders if image.is_relative_to(folder)), image.parent)
    return image.relative_to(inside).as_posix()
