"""What `kore-bench data check` finds out about a data set: counts, bad rows and images, answers, overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kore_bench.examples import Example, Knowledge, Question, name_of
from kore_bench.formats import (
    Problems,
    format_of,
    holds_knowledge,
    images_of,
    knowledge_reader,
    read_conversations,
)
from kore_bench.formats.pictures import Look, look
from kore_bench.measures import reachable

Table = Mapping[str, Mapping[str, int]]
"""Label -> number by column."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check found; ``counts`` has tables by title.

    ``problems`` are sentences that name file, line (or row) and field, ``missing`` of them about images that are not
    there; ``broken`` maps images by name to what is wrong with them. Of the questions, ``paired`` are known to belong to
    an item, and the gold answer of those in ``unreachable`` is covered by no prediction. ``overlaps`` are pairs of an
    injected and an asked image with the same bytes.
    """

    format: str
    counts: Mapping[str, Table]
    images: int
    problems: tuple[str, ...] = ()
    missing: int = 0
    broken: Mapping[str, str] = field(default_factory=dict)
    questions: int = 0
    paired: int = 0
    unreachable: tuple[Question, ...] = ()
    overlaps: tuple[tuple[str, str], ...] = ()

    @property
    def sound(self) -> bool:
        """Whether every row and every image can be used."""
        return not self.problems and not self.broken


def check(path: Path) -> Checked:
    """Read a data set to its end and decode every image; raises UserError where a file of it cannot be read at all."""
    return _check_knowledge(path) if holds_knowledge(path) else _check_conversations(path)


def _check_knowledge(path: Path) -> Checked:
    problems = Problems(collect=True)
    knowledge = knowledge_reader(path, problems).knowledge()
    looks = _looks(images_of(knowledge))
    return Checked(
        format=format_of(path),
        counts=_knowledge_counts(knowledge),
        images=len(looks),
        problems=tuple(map(str, problems.found)),
        missing=len(problems.missing),
        broken=_broken(looks, (knowledge.root, *knowledge.unpacked)),
        questions=len(knowledge.questions),
        paired=sum(bool(question.context) for question in knowledge.questions),
        unreachable=tuple(question for question in knowledge.questions if not reachable(question.answer)),
        overlaps=_overlaps(knowledge, looks),
    )


def _check_conversations(path: Path) -> Checked:
    problems = Problems(collect=True)
    found = read_conversations(path, problems)
    looks = _looks([image for example in found.examples for image in example.images])
    return Checked(
        format=format_of(path),
        counts={"set": _conversation_counts(found.examples)},
        images=len(looks),
        problems=tuple(map(str, problems.found)),
        missing=len(problems.missing),
        broken=_broken(looks, (found.root, *found.unpacked)),
    )


def _looks(images: Sequence[Path]) -> dict[Path, Look]:
    """Look at every image that is there, once."""
    return {found.path: found for found in look(path for path in dict.fromkeys(images) if path.is_file())}


def _broken(looks: Mapping[Path, Look], folders: Sequence[Path]) -> dict[str, str]:
    return {name_of(path, folders): found.problem for path, found in looks.items() if found.problem}


def _overlaps(knowledge: Knowledge, looks: Mapping[Path, Look]) -> tuple[tuple[str, str], ...]:
    injected: dict[str, Path] = {}
    for item in knowledge.items:
        for image in (item.image, *item.retrieved):
            if image in looks:
                injected.setdefault(looks[image].digest, image)
    asked = dict.fromkeys(image for question in knowledge.questions for image in question.images if image in looks)
    return tuple(
        (knowledge.name_of(injected[looks[image].digest]), knowledge.name_of(image))
        for image in asked
        if looks[image].digest in injected
    )


def _knowledge_counts(knowledge: Knowledge) -> dict[str, Table]:
    tables = {
        title: _side_by_side(
            items=Counter(getattr(item, title) for item in knowledge.items),
            questions=Counter(getattr(question, title) for question in knowledge.questions),
        )
        for title in ("kind", "type")
    }
    old = {skill: len(examples) for skill, examples in knowledge.old.items()}
    more = _side_by_side(questions=Counter(question.type for question in knowledge.retention), old=Counter(old))
    if more:
        tables["retention"] = more
    if knowledge.old_facts:
        tables["old facts"] = {"all": {"questions": len(knowledge.old_facts)}}
    if knowledge.probes:
        tables["probes"] = {sort: {"questions": len(questions)} for sort, questions in knowledge.probes.items()}
    return tables


def _side_by_side(**columns: Counter[str]) -> Table:
    """Return a table with a row a label, the most frequent first."""
    total: Counter[str] = sum(columns.values(), Counter())
    ordered = sorted(total, key=lambda label: (-total[label], label))
    return {label: {name: column[label] for name, column in columns.items()} for label in ordered}


def _conversation_counts(examples: Sequence[Example]) -> Table:
    def row(chosen: Sequence[Example]) -> dict[str, int]:
        return {"conversations": len(chosen), "turns": sum(len(example.turns) for example in chosen)}

    groups = {
        "one turn": [example for example in examples if len(example.turns) == 1],
        "several turns": [example for example in examples if len(example.turns) > 1],
        "no image": [example for example in examples if not example.images],
        "several images": [example for example in examples if len(example.images) > 1],
    }
    return {"all": row(examples), **{label: row(chosen) for label, chosen in groups.items() if chosen}}
