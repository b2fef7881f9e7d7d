"""The gates that every generated text passes before it is trained on, in a run and in `kore-bench augment` alike.

| gate | reason that is counted |
|---|---|
| the subject stands in the question, and is not the answer | ``subject not in the question``, ``subject is the answer`` |
| the question reads well with "the HYPERNYM in the image" | ``subject not replaceable`` |
| the answer is supported by the item's text | ``answer not supported`` |
| no fact is asked that the data reserve for the evaluation | ``reserved fact`` |
| nothing is asked twice of an item | ``duplicate`` |
| nothing is empty or too long | ``length`` |
| the text's language is kept | ``other language`` |
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from kore_bench.asked import says_reserved
from kore_bench.examples import Item, Turn
from kore_bench.generators import SUMMARY_WORDS, Quadruplet

from .grown import Reject
from .wordings import content, language, stem, stems, words

NOT_ASKED, IS_ANSWER = "subject not in the question", "subject is the answer"
NOT_REPLACEABLE, UNSUPPORTED = "subject not replaceable", "answer not supported"
DUPLICATE, LENGTH, LANGUAGE, RESERVED = "duplicate", "length", "other language", "reserved fact"
REASONS = (NOT_ASKED, IS_ANSWER, NOT_REPLACEABLE, UNSUPPORTED, RESERVED, DUPLICATE, LENGTH, LANGUAGE)
"""Why a gate refuses a text."""

QUESTION_WORDS, ANSWER_WORDS, SHORT_WORDS = 40, 150, 10
"""The most words of a question, of a dialogue's answer, and of a "single word or phrase"."""
HYPERNYM_WORDS = 5
SUPPORTED = 0.6
"""The share of a sentence's content words that must stand in the item's text, up to inflection."""

_DETERMINERS = frozenset(
    [
        "this",
        "that",
        "these",
        "those",
        "his",
        "her",
        "its",
        "their",
        "my",
        "our",
        "your",
        "another",
        "each",
        "every",
        "some",
        "any",
        "no",
        "which",
        "what",
        "whose",
        "such",
    ]
)
_YES_NO = {("yes",), ("no",)}
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Verdict(NamedTuple):
    """What a gate says: why a text is refused (empty: it is not), and what exactly is wrong with it."""

    reason: str = ""
    detail: str = ""


PASSED = Verdict()


def refer(quadruplet: Quadruplet) -> tuple[str, Verdict]:
    """Return the question with its subject replaced by a reference to the image, and the verdict on it.

    The subject must stand in the question, must not be the answer, and must be replaceable: "the tower in the image's",
    "this the tower in the image" or "the tower in the image Hotel" is no English, and a question that goes on to
    name the subject needs no image.
    """
    subject, question, hypernym = quadruplet.subject.strip(), quadruplet.question, quadruplet.hypernym.strip()
    named = re.compile(rf"(?<!\w)(?:(?:the|a|an)\s+)?{re.escape(subject)}(?!\w)", re.IGNORECASE)
    if not subject or not named.search(question):
        return question, Verdict(NOT_ASKED)
    if _bare(subject) == _bare(quadruplet.answer):
        return question, Verdict(IS_ANSWER)
    problem = _hypernym_problem(hypernym, subject) or next(
        filter(None, (_place_problem(question, match) for match in named.finditer(question))), ""
    )
    if problem:
        return question, Verdict(NOT_REPLACEABLE, problem)
    reference = f"he {hypernym} in the image"
    asked = named.sub(lambda match: ("t" if match.start() else "T") + reference, question)
    left = _names(asked[1:]) & _names(f" {subject}") - set(words(hypernym))
    if left:
        return question, Verdict(NOT_REPLACEABLE, f"{min(left)!r} of the subject is still named")
    if language(question) not in ("", "English"):
        return question, Verdict(NOT_REPLACEABLE, "the reference is English, the question is not")
    return asked, PASSED


def _hypernym_problem(hypernym: str, subject: str) -> str:
    """Return why "the HYPERNYM in the image" is no reference, or nothing."""
    parts = hypernym.split()
    if not parts:
        return "no hypernym"
    if len(parts) > HYPERNYM_WORDS:
        return f"a hypernym of {len(parts)} words"
    if parts[0].lower() in _DETERMINERS | {"the", "a", "an"}:
        return f"the hypernym begins with {parts[0]!r}"
    if not re.fullmatch(r"\w[\w\s'\u2019&/-]*", hypernym):
        return "the hypernym holds punctuation"
    if words(subject) == words(hypernym):
        return "the hypernym is the subject"
    return ""


def _place_problem(question: str, match: re.Match[str]) -> str:
    """Return why the subject cannot be replaced where it stands, or nothing."""
    before, after = question[: match.start()].rstrip(), question[match.end() :]
    if re.match(r"['\u2019](?:s\b)?|-", after) or before.endswith(("-", "'", "\u2019")):
        return "before an apostrophe or hyphen, or behind one"
    if re.match(r"[\"\u201d\u00bb]", after) or before.endswith(('"', "\u201c", "\u201e", "\u00ab")):
        return "in quotation marks"
    if next_word := re.match(r" ([A-Z0-9]\w*)", after):
        return f"before {next_word[1]!r}, which belongs to a longer name"
    last = before.split()[-1] if before else ""
    if last.lower() in _DETERMINERS:
        return f"behind {last!r}"
    if len(before.split()) > 1 and last[:1].isupper() and last != "I" and last[-1].isalnum():
        return f"behind {last!r}, which belongs to a longer name"
    return ""


def _bare(text: str) -> tuple[str, ...]:
    """Return the words of a text without its article."""
    found = words(text)
    return found[1:] if found[:1] in (("the",), ("a",), ("an",)) else found


def _names(text: str) -> set[str]:
    """Return the capitalised words of a text of four letters or more, but for its first sign."""
    return {word.casefold() for word in re.findall(r"(?<=\W)[^\W\d_]{4,}", text) if word[0].isupper()}


def support(answer: str, item: Item, *, short: bool) -> Verdict:
    """Judge whether what is told of ``item`` supports an answer, by its words.

    It does where it holds the answer word for word. Else every content word of a ``short`` answer must stand in it, and
    of sentences every number, every name, and `SUPPORTED` of the content words, all up to inflection. Yes and No as short
    answers say nothing that could be looked up and pass.
    """
    told = f"{item.text} {item.name} {item.type}"
    given = words(answer)
    if _contains(words(told), given) or (short and given in _YES_NO):
        return PASSED
    known = stems(told)
    asked = content(answer) or given
    lost = [word for word in asked if stem(word) not in known]
    if short:
        return Verdict(UNSUPPORTED, f"{lost[0]!r} is not in the text") if lost else PASSED
    # The first word of a sentence has its capital anyway.
    named = {name for sentence in _SENTENCE.split(answer) for name in _names(sentence)}
    grave = [word for word in lost if word in named or any(sign.isdigit() for sign in word)]
    if grave:
        return Verdict(UNSUPPORTED, f"{grave[0]!r} is not in the text")
    share = 1 - len(lost) / len(asked) if asked else 0.0
    return PASSED if share >= SUPPORTED else Verdict(UNSUPPORTED, f"{share:.0%} of its words are in the text")


def _contains(text: tuple[str, ...], phrase: tuple[str, ...]) -> bool:
    return bool(phrase) and f" {' '.join(phrase)} " in f" {' '.join(text)} "


def length(text: str, most: int, what: str) -> Verdict:
    """Judge the number of words of a text."""
    number = len(words(text))
    if not number:
        return Verdict(LENGTH, f"{what} is empty")
    return PASSED if number <= most else Verdict(LENGTH, f"{what} has {number} words, {most} are allowed")


def kept_language(text: str, item: Item) -> Verdict:
    """Judge whether a text is in the language of the item's, as far as either can be told."""
    own, other = language(item.text), language(text)
    return Verdict(LANGUAGE, f"{other}, the text is {own}") if own and other and own != other else PASSED


def reserved(text: str, item: Item) -> Verdict:
    """Judge whether a question with its answer leaves the item's reserved facts alone."""
    return Verdict(RESERVED, "no training may ask for this fact") if says_reserved(item, text) else PASSED


@dataclass
class Gates:
    """The gates for the texts of one item; remembers what was asked of it, and keeps what it refuses."""

    item: Item
    rejects: list[Reject] = field(default_factory=list)
    _asked: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)

    def turns(self, turns: Iterable[Turn]) -> list[Turn]:
        """Return the turns of a dialogue that pass."""
        return [turn for turn in turns if self._pass("dialogue", self._turn(turn), turn.question, turn.answer)]

    def summary(self, text: str) -> bool:
        """Return whether a caption's summary passes."""
        verdict = _first(
            length(text, SUMMARY_WORDS, "the summary"),
            kept_language(text, self.item),
            support(text, self.item, short=False),
        )
        return self._pass("caption", verdict, "", text)

    def quadruplets(self, quadruplets: Iterable[Quadruplet]) -> list[tuple[str, Quadruplet]]:
        """Return those quadruplets that pass, each behind its question as it is asked of an image."""
        passed = []
        for one in quadruplets:
            asked, verdict = self._quadruplet(one)
            if self._pass("vqa", verdict, one.question, one.answer, one.subject, one.hypernym):
                passed.append((asked, one))
        return passed

    def _turn(self, turn: Turn) -> Verdict:
        verdict = _first(
            length(turn.question, QUESTION_WORDS, "the question"),
            length(turn.answer, ANSWER_WORDS, "the answer"),
            kept_language(turn.question, self.item),
            kept_language(turn.answer, self.item),
            support(turn.answer, self.item, short=False),
            reserved(f"{turn.question}\n{turn.answer}", self.item),
        )
        return verdict if verdict.reason else self._new("dialogue", turn.question)

    def _quadruplet(self, one: Quadruplet) -> tuple[str, Verdict]:
        asked, referred = refer(one)
        verdict = _first(
            length(one.question, QUESTION_WORDS, "the question"),
            length(one.answer, SHORT_WORDS, "the answer"),
            kept_language(one.question, self.item),
            referred,
            support(one.answer, self.item, short=True),
            reserved(f"{one.question}\n{one.answer}", self.item),
        )
        return asked, verdict if verdict.reason else self._new("vqa", asked)

    def _new(self, part: str, question: str) -> Verdict:
        """Judge whether a part has not asked this before, and remember it."""
        key = (part, words(question))
        if key in self._asked:
            return Verdict(DUPLICATE, "asked before")
        self._asked.add(key)
        return PASSED

    def _pass(self, part: str, verdict: Verdict, *text: str) -> bool:
        if verdict.reason:
            named = dict(zip(("question", "answer", "subject", "hypernym"), text, strict=False))
            self.rejects.append(Reject(part=part, reason=verdict.reason, detail=verdict.detail, **named))
        return not verdict.reason


def _first(*verdicts: Verdict) -> Verdict:
    """Return the first verdict that refuses, else the last."""
    return next((verdict for verdict in verdicts if verdict.reason), verdicts[-1])
