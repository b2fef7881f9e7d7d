"""Likelihood: whether the right answer is still the likeliest of a closed set, whatever form free answers have taken."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from kore_bench.examples import Knowledge, Question
from kore_bench.formats import DIMENSIONS
from kore_bench.measures import Score, bootstrap, bootstrap_mean_of_means
from kore_bench.task import Card, ChoiceTask, Task, draw, groups

OLD_FACTS = "old-facts"
_LIST = re.compile(r"^options:\s*(\S.*?)\.?$", re.IGNORECASE | re.MULTILINE)
_LETTERED = re.compile(r"^\(?([A-Z])[.):]\s+(\S.*)$", re.MULTILINE)


def listed(question: Question) -> tuple[str, ...]:
    """Return the options that a question lists with its answer among them; none where it lists none.

    They stand in one line behind ``Options:`` with commas, or one a line behind ``A.``, ``A)`` or ``(A)``; then the
    answer is a letter or an option's text.
    """
    lettered = _LETTERED.findall(question.text)
    in_line = [part.strip() for line in _LIST.findall(question.text) for part in line.split(",")]
    for found in ([letter for letter, _ in lettered], [text.strip() for _, text in lettered], in_line):
        if question.answer in found and len(set(found)) > 1:
            return tuple(dict.fromkeys(found))
    return ()


@dataclass(frozen=True, kw_only=True)
class Likelihood(ChoiceTask):
    """Asks a sample of the retention questions and old facts whose answers form a closed set.

    Options are those that a question lists, or else the different gold answers of its dimension where these repeat (at
    most half as many as questions); of an old fact the values of all facts, old and injected. ``a_skill`` is how many
    questions of each dimension are asked, and how many old facts.
    """

    a_skill: int = 40

    card: ClassVar[Card] = Card(
        name="likelihood",
        title="Retention by likelihood",
        source="retention.jsonl and old_facts.jsonl of the knowledge folder",
        metric="K.R by likelihood",
        licence="that of the knowledge folder; the mini world's is Apache-2.0",
        citation="likelihood of options by token, GPT-3, arXiv 2005.14165, section 2.4; superficial against essential "
        "forgetting, arXiv 2505.02486",
    )

    def questions(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return the retention questions with options, then the old facts, whose type is ``old-facts``."""
        closed = closed_sets(knowledge.retention)
        retained = [
            one for one in knowledge.retention if one.type in DIMENSIONS and (one.type in closed or listed(one))
        ]
        facts = [replace(one, id=f"{OLD_FACTS} {one.id}", type=OLD_FACTS) for one in knowledge.old_facts]
        return (*retained, *facts) if retained else ()

    def asked(self, knowledge: Knowledge) -> tuple[Question, ...]:
        """Return ``a_skill`` questions of each type, by whole groups; fewer where there is a limit."""
        questions = self.questions(knowledge)
        types = dict.fromkeys(question.type for question in questions)
        share = min(self.a_skill, self.limit // len(types)) if self.limit and types else self.a_skill
        kept: set[str] = set()
        for type in types:
            own = [question for question in questions if question.type == type]
            kept |= {question.id for question in draw(own, groups(own), share)}
        return tuple(question for question in questions if question.id in kept)

    def options(self, knowledge: Knowledge, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """Return each question's options."""
        closed = closed_sets(knowledge.retention)
        closed[OLD_FACTS] = tuple(sorted({one.answer for one in (*knowledge.old_facts, *knowledge.questions)}))
        return [listed(question) or closed[question.type] for question in questions]

    def skip(self, knowledge: Knowledge) -> str | None:
        """Return why nothing can be asked, None where something can."""
        if not knowledge.retention:
            return f"{knowledge.root} has no questions for {self.card.name}: no retention.jsonl"
        return None if self.questions(knowledge) else f"{knowledge.root}: {self.note(knowledge)}"

    def note(self, knowledge: Knowledge) -> str:
        """Return which dimensions are not available, and why."""
        asked = {question.type for question in self.questions(knowledge)}
        counts = Counter(question.type for question in knowledge.retention if question.type not in asked)
        answers = {type: len({one.answer for one in knowledge.retention if one.type == type}) for type in counts}
        return "; ".join(
            f"{type} is not available: {answers[type]} different answers to {count} questions are no closed set of options"
            for type, count in counts.items()
        )

    def correct(self, question: Question, prediction: str) -> float:
        """Return 1 where the right option was chosen, else 0."""
        return float(prediction == question.answer)

    def score(
        self, questions: Sequence[Question], predictions: Sequence[str], *, seen_skills: frozenset[str] = frozenset()
    ) -> dict[str, Score]:
        """Return the mean of the dimensions, each one's share of right choices, that of old facts, and chances."""
        rights: dict[str, list[float]] = {}
        for question, prediction in zip(questions, predictions, strict=True):
            rights.setdefault(question.type, []).append(self.correct(question, prediction))
        present = {name: rights[name] for name in DIMENSIONS if name in rights}
        scores = {self.card.metric: bootstrap_mean_of_means(present)}
        scores |= {f"{name} by likelihood": bootstrap_mean_of_means({name: right}) for name, right in present.items()}
        if facts := [question for question in questions if question.type == OLD_FACTS]:
            scores[f"{OLD_FACTS} by likelihood"] = bootstrap(rights[OLD_FACTS], groups(facts))
        return scores | {f"{name} by likelihood chance": chance(questions, name) for name in rights}


def closed_sets(questions: Sequence[Question]) -> dict[str, tuple[str, ...]]:
    """Return dimension -> its different answers, where these are two at least and at most half the questions."""
    answers: dict[str, list[str]] = {}
    for question in questions:
        answers.setdefault(question.type, []).append(question.answer)
    return {type: tuple(sorted({*all})) for type, all in answers.items() if 2 <= len({*all}) <= len(all) / 2}


def chance(questions: Sequence[Question], type: str) -> Score:
    """Return, in percent, what the best constant choice scores, or a random one where the options are listed."""
    own = [question for question in questions if question.type == type]
    constant = max(Counter(question.answer for question in own).values()) / len(own)
    random = sum(1 / len(options) for question in own if (options := listed(question))) / len(own)
    value = 100 * max(constant, random)
    return Score(value=value, low=value, high=value, n=len(own))


TASK: Task = Likelihood()
