"""Which old samples calibrate a run: the knowledge folder's own, or other data sets and tasks (``--calibration``)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kore_bench.cache import digest
from kore_bench.component import Component
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Example, Knowledge, Turn
from kore_bench.task import Task, ToolkitTask

if TYPE_CHECKING:
    from kore_bench.plan import OldSettings, Plan

LEAST = 2
"""Samples that a calibration needs: the covariance of one picture and its text is that of no knowledge."""
_HELD_OUT_PER_SKILL = 32


@dataclass(frozen=True)
class Source:
    """One part of a calibration set: a task's name or a path, and how many samples it gives (0: an equal part)."""

    name: str
    samples: int = 0


def parse_calibration(text: str) -> tuple[Source, ...]:
    """Return the sources of ``NAME,NAME`` or ``NAME:SAMPLES,NAME:SAMPLES``; raises UserError for another form.

    The part behind the last colon is a number of samples only where it is a whole number, so that names may have
    colons (``toolkit:benchmark``).
    """
    sources: list[Source] = []
    for part in (part.strip() for part in text.split(",")):
        name, _, number = part.rpartition(":")
        source = Source(name, int(number)) if name and number.isdecimal() else Source(part)
        if not source.name:
            raise UserError(f"--calibration {text}: a name is missing: use PATH, or PATH:64,PATH:64")
        if source.name != part and source.samples < 1:
            raise UserError(f"--calibration {part}: take at least 1 sample")
        if source.name in {other.name for other in sources}:
            raise UserError(f"--calibration {text} names {source.name} twice")
        sources.append(source)
    if 0 < sum(source.samples > 0 for source in sources) < len(sources):
        raise UserError(f"--calibration {text}: give a number of samples to every source or to none")
    return tuple(sources)


def sources_of(old: OldSettings) -> tuple[Source, ...]:
    """Return the sources of the settings' calibration, none where it is the data's own old samples."""
    return parse_calibration(old.calibration) if old.calibration else ()


def settle(old: OldSettings, *, samples_given: bool) -> OldSettings:
    """Return settings whose ``samples`` and ``skills`` are what the calibration's sources say.

    Raises UserError where the numbers of ``--calibration`` and ``old.samples`` contradict each other.
    """
    if not old.calibration:
        return old
    sources = sources_of(old)
    total = sum(source.samples for source in sources)
    if total and samples_given and total != old.samples:
        raise UserError(f"--calibration {old.calibration} takes {total} samples, and old.samples is {old.samples}")
    return replace(old, samples=total or old.samples, skills=len(sources))


def shares(old: OldSettings, names: list[str]) -> list[int]:
    """Return how many samples each of the sorted pool ``names`` gives: its own number, or an equal part."""
    if not names:
        return []
    sources = {_label(source.name): source for source in sources_of(old)}
    if any(source.samples for source in sources.values()):
        return [sources[name].samples for name in names]
    return [old.samples // len(names) + (index < old.samples % len(names)) for index in range(len(names))]


def plan_knowledge(plan: Plan, seed: int | None = None) -> Knowledge:
    """Return what a plan injects under ``seed`` (None: its first); old samples are those of a ``--calibration``.

    Raises UserError naming the file and the line, or the source, that cannot be used.
    """
    from kore_bench.formats import read_knowledge

    return calibrated(plan, read_knowledge(plan.knowledge_folder(seed)))


def draws(plan: Plan) -> dict[int, Knowledge]:
    """Return the knowledge of every seed where each injects something of its own, nothing where all share one."""
    if plan.world.draws == "fixed":
        return {}
    return {seed: plan_knowledge(plan, seed) for seed in plan.request.seeds}


def calibrated(plan: Plan, knowledge: Knowledge) -> Knowledge:
    """Return ``knowledge`` with the plan's calibration pools as its old samples; the digest covers their content."""
    if not plan.old.calibration:
        return knowledge
    pools, content = read_pools(plan, knowledge)
    return replace(knowledge, old=pools, digest=digest([knowledge.digest, content]))


def read_pools(plan: Plan, knowledge: Knowledge | None) -> tuple[dict[str, tuple[Example, ...]], list[str]]:
    """Return the samples of every source of ``--calibration`` by its label, and a digest of each one's content.

    ``knowledge`` holds the questions of tasks; it may be None where no source asks of it, see `names_task`. Of a
    toolkit's task the pool holds a source's share and some more, to hold out. Raises UserError for a source that is not
    there or empty, and for two of one label.
    """
    pools: dict[str, tuple[Example, ...]] = {}
    digests = []
    sources = sources_of(plan.old)
    for source in sources:
        label = _label(source.name)
        if label in pools:
            raise UserError(f"--calibration {plan.old.calibration}: two sources are called {label}: rename one file")
        task = _task(plan, source.name)
        if isinstance(task, ToolkitTask):
            share = source.samples or -(-plan.old.samples // len(sources))
            found, content = _of_toolkit(task, share + _HELD_OUT_PER_SKILL)
        elif task and knowledge:
            found, content = _asked(task, knowledge)
        else:
            found, content = _read(source.name, plan)
        if not found:
            raise UserError(f"--calibration {source.name} holds no samples")
        pools[label] = found
        digests.append(content)
    return pools, digests


def names_task(plan: Plan) -> str:
    """Return the first source of ``--calibration`` that is a task about the knowledge; empty where there is none."""
    return next((source.name for source in sources_of(plan.old) if _is_own(_task(plan, source.name))), "")


def seen_questions(plan: Plan, knowledge: Knowledge, read: Sequence[Example]) -> dict[str, int]:
    """Return how many questions of each task of the plan are among the old samples that were ``read``.

    Holds only tasks that have some: their scores are of questions whose answers were there to calibrate on.
    """
    counts = {}
    ids, sources = {sample.id for sample in read}, {source.name for source in sources_of(plan.old)}
    for task in plan.tasks:
        if isinstance(task, ToolkitTask):
            counts[task.card.name] = sum(sample.source == task.own_source for sample in read)
        elif task.card.name in sources:
            counts[task.card.name] = len(ids & {question.id for question in task.asked(knowledge)})
    return {name: count for name, count in counts.items() if count}


def check_training(plan: Plan, knowledge: Knowledge) -> None:
    """Raise UserError where a method would train on answers that a task asks for.

    A task about the knowledge may never be trained on, a toolkit's where the run asks it too.
    """
    every = [sample for pool in knowledge.old.values() for sample in pool]
    task = names_task(plan) or next(iter(seen_questions(plan, knowledge, every) if plan.old.calibration else ()), "")
    for method in plan.methods:
        if task and any(_trains_on_old(part) for part in method.components):
            raise UserError(
                f"{method.name} trains on the old samples, and --calibration {task} would let it train on answers that "
                "a task asks for: leave it out, or calibrate on other data"
            )


def check_old(old: OldSettings, pools: Mapping[str, tuple[Example, ...]], where: str) -> None:
    """Raise UserError where the pools have too few samples for the settings, or the settings ask for too few."""
    if old.samples < LEAST:
        raise UserError(
            f"{old.samples} sample to calibrate on says next to nothing about what a model knows: take {LEAST} at least"
        )
    if old.skills > len(pools):
        raise UserError(f"--set old.skills={old.skills}: {where} has old samples of {len(pools)} skills")
    names = sorted(pools)
    wanted = shares(old, names if old.calibration else names[: old.skills])
    if not old.calibration:
        smallest = min(map(len, pools.values()))
        if max(wanted) > smallest:
            raise UserError(
                f"--set old.samples={old.samples}: {old.skills} skills of {where} have {smallest * old.skills} "
                "samples in equal parts"
            )
        return
    for name, count in zip(names, wanted, strict=True):
        if count > len(pools[name]):
            raise UserError(
                f"--calibration: {name} has {len(pools[name])} samples, not {count}: ask for fewer "
                f"(--calibration NAME:{len(pools[name])}, or --set old.samples=N for all sources together)"
            )


def old_pools(knowledge: Knowledge, old: OldSettings, seed: int) -> list[str]:
    """Return the pools that old samples may come from under ``seed``: a window that moves by one a seed."""
    names = list(knowledge.old)
    return [names[(seed + offset) % len(names)] for offset in range(min(old.skills, len(names)))]


def seen_skills(knowledge: Knowledge, old: OldSettings, seed: int) -> frozenset[str]:
    """Return the skills whose old samples may be read under ``seed``."""
    return frozenset(sample.source for name in old_pools(knowledge, old, seed) for sample in knowledge.old[name])


def draw_old(knowledge: Knowledge, old: OldSettings, seed: int) -> list[Example]:
    """Draw the run's old samples without replacement from the seed's pools.

    A pool that is taken whole stays in its order, so that every seed shares what is measured on it.
    """
    stream = random.Random(digest([seed, "old samples"]))
    names = sorted(old_pools(knowledge, old, seed))
    drawn: list[Example] = []
    for name, share in zip(names, shares(old, names), strict=True):
        pool = knowledge.old[name]
        drawn += stream.sample(list(pool), share) if share < len(pool) else pool
    return drawn


def draw_held_out(knowledge: Knowledge, calibration: Sequence[Example], seed: int) -> list[Example]:
    """Draw old samples of the skills that ``calibration`` has none of (of every skill where it has of all)."""
    stream = random.Random(digest([seed, "held-out samples"]))
    seen, taken = {example.source for example in calibration}, set(calibration)
    drawn: list[Example] = []
    for skill, pool in sorted(knowledge.old.items()):
        if skill in seen and seen != set(knowledge.old):
            continue
        left = [example for example in pool if example not in taken]
        drawn += stream.sample(left, min(_HELD_OUT_PER_SKILL, len(left)))
    return drawn


def check_pictures(samples: Sequence[Example]) -> None:
    """Raise UserError for the first picture of ``samples`` that cannot be decoded, naming its sample."""
    from kore_bench.formats.pictures import look

    asked = {image: sample for sample in samples for image in sample.images}
    for found in look(asked):
        if found.problem:
            sample = asked[found.path]
            raise UserError(f"--calibration: sample {sample.id!r}: image {str(found.path)!r} {found.problem}")


def _task(plan: Plan, name: str) -> Task | None:
    """Return the task that a source names: a registered one, or a toolkit's unless it is a path that is there."""
    known = plan.registry.all("tasks")
    if name in known:
        return plan.task(name)
    family = any(name.startswith(f"{family.prefix}:") for family in plan.registry.families())
    return plan.task(name) if family and not Path(name).exists() else None


def _is_own(task: Task | None) -> bool:
    return task is not None and not isinstance(task, ToolkitTask)


def _trains_on_old(part: Component) -> bool:
    return part.uses_old_samples() and type(part).data is not Component.data


def _label(name: str) -> str:
    return Path(name).name or name


def _of_toolkit(task: ToolkitTask, count: int) -> tuple[tuple[Example, ...], str]:
    from kore_bench.cache import file_digest

    found = task.samples(count)
    content = [
        [
            sample.id,
            *((turn.question, turn.answer) for turn in sample.turns),
            *(file_digest(image) for image in sample.images),
        ]
        for sample in found
    ]
    return found, digest(content)


def _asked(task: Task, knowledge: Knowledge) -> tuple[tuple[Example, ...], str]:
    """Return a task's questions with their right answers: the paper's specific constraints."""
    samples = tuple(
        Example(
            id=question.id,
            images=question.images,
            turns=(Turn(question=task.prompt(question), answer=question.answer),),
            source=question.type or task.card.name,
        )
        for question in task.questions(knowledge)
    )
    return samples, task.card.name


def _read(name: str, plan: Plan) -> tuple[tuple[Example, ...], str]:
    from kore_bench.formats import holds_knowledge, read_conversations, read_knowledge
    from kore_bench.formats.digests import content_digest

    path = Path(name)
    if not path.exists():
        known = [*plan.registry.all("tasks"), *(f"{family.prefix}:NAME" for family in plan.registry.families())]
        raise UserError(f"--calibration {name} is neither a file, a folder nor a task: {nearest(name, known)}")
    if holds_knowledge(path):
        knowledge = read_knowledge(path)
        old = tuple(sample for pool in knowledge.old.values() for sample in pool)
        return old or tuple(item.example() for item in knowledge.items), knowledge.digest
    found = read_conversations(path)
    samples = tuple(replace(example, source=_label(name)) for example in found.examples)
    images = {str(image): image for sample in samples for image in sample.images}
    return samples, content_digest({**images, found.file.name: found.file})
