"""What `kore-bench analyze co-svd` does: weights lose their least components, three ways, and the model is scored."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from kore_bench.analysis import DECOMPOSITIONS, Point, Removals
from kore_bench.cache import cached_tensors, digest
from kore_bench.calibration import old_pools, seen_skills
from kore_bench.covariance import old_samples
from kore_bench.errors import UserError
from kore_bench.evaluation import Evaluator, Phase
from kore_bench.examples import Example, Knowledge
from kore_bench.grid import card_key, shared_key, versions
from kore_bench.lmm import LMM, layer_shapes
from kore_bench.plan import Plan, Request, check_chat, make_plan, model_name, preflight
from kore_bench.registry import digest_files
from kore_bench.removal import components, decompose, mean_magnitudes, without
from kore_bench.session import resumable
from kore_bench.spectra import by_block, samples_digest, without_labels
from kore_bench.statistics import Counting, Inputs

FILE = "co-svd.json"
_EIGHTHS_BY_DEFAULT = (1, 2, 4, 6)
"""Of the narrowest layer's components; the paper removes up to two of a 7B model's."""
_SOURCES = ("removal.py", "statistics.py", "spectra.py", "lmm.py")


@dataclass(frozen=True, kw_only=True)
class _Todo:
    """One point: a decomposition (empty: the untouched model), how many components go, and what decides its scores."""

    decomposition: str
    removed: int
    key: str

    @property
    def name(self) -> str:
        return f"{self.decomposition or 'base'}-{self.removed}--{self.key[:10]}"

    @property
    def title(self) -> str:
        if not self.decomposition:
            return "untouched"
        return f"{DECOMPOSITIONS[self.decomposition]} without {self.removed}"


@resumable
def co_svd_session(request: Request, remove: str, runs: Path, name: str, *, seed: int, out: Console) -> int:
    """Score a model without the least components of its weights, and write a table and a figure.

    ``remove`` holds the numbers of components, with commas (empty: 1/8 to 3/4 of the narrowest layer's). Points that
    were scored before are not scored again. Return the exit code: 1 where a task of some point failed. Raises
    UserError before a model loads where something is amiss.
    """
    folder = runs / (name or f"{model_name(request)}-co-svd")
    with out.status("checking names, settings and data"):
        plan = make_plan(request)
        counts, held = removals(remove, layer_shapes(plan.card))
        knowledge = preflight(plan, folder)
        samples = old_samples(plan, seed)
        check_chat(plan)
    points = _points(plan, knowledge, samples, counts, seed)
    record = Removals(
        model=plan.card.name, data=knowledge.root.name, samples=len(samples), seed=seed, components=held,
        pools=tuple(sorted(old_pools(knowledge, plan.old, seed))),
        metrics={task.card.name: task.card.metric for task in plan.tasks if not task.skip(knowledge)},
        points=tuple(point.name for point in points),
    )  # fmt: skip
    record.write(folder / FILE)
    todo = [point for point in points if not _done(folder, point)]
    out.print(
        f"{plan.card.name}: {len(points)} points, {len(points) - len(todo)} scored already, in {folder}",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    failed = _score(plan, knowledge, samples, todo, counts[-1], folder, seed, out) if todo else []
    for line in failed:
        out.print(line, soft_wrap=True, markup=False)
    if failed:
        return 1
    for file in plan.registry.find("analyses", "co-svd").build(folder):
        out.print(str(file), soft_wrap=True, markup=False)
    return 0


def removals(text: str, layers: Mapping[str, tuple[int, int]]) -> tuple[tuple[int, ...], int]:
    """Return the numbers of components to remove, ascending, and how many the narrowest layer has.

    Raises UserError for what is no number, below 1, named twice, or more than that layer holds.
    """
    narrowest = min(layers, key=lambda name: components(layers[name]))
    held = components(layers[narrowest])
    if not text:
        return tuple(sorted({held * part // 8 for part in _EIGHTHS_BY_DEFAULT} - {0})), held
    counts: list[int] = []
    for part in (part.strip() for part in text.split(",")):
        if not part.isdecimal() or int(part) < 1:
            raise UserError(
                f"--remove {text}: {part!r} is no number of components: use whole numbers, such as 16,32,64"
            )
        if int(part) > held:
            raise UserError(f"--remove {part}: {narrowest} has {held} components: remove {held} at most")
        if int(part) in counts:
            raise UserError(f"--remove {text} names {part} twice")
        counts.append(int(part))
    return tuple(sorted(counts)), held


def least_components(
    model: LMM, samples: Sequence[Example], count: int, progress: Callable[[int, int], None]
) -> dict[str, Tensor]:
    """Return ``LAYER/DECOMPOSITION`` -> directions ``[m, count]`` (float32) and ``.../change`` ``[count]``, from the cache.

    They are found block by block, each of them a file of the cache.
    """
    key = {
        "model": card_key(model.card), "max length": model.chat.max_length, "samples": samples_digest(samples),
        "source": digest_files([Path(__file__).with_name(name) for name in _SOURCES]), "versions": versions(),
    }  # fmt: skip
    linears = model.linears()

    def magnitudes() -> dict[str, Tensor]:
        return mean_magnitudes(model.model, linears, without_labels(model, samples))

    magnitude = cached_tensors({**key, "statistic": "mean magnitudes"}, magnitudes)

    def reduce(inputs: Inputs) -> dict[str, Tensor]:
        return {
            f"{name}/{what}": found.float()
            for name in inputs.names
            for what, found in decompose(linears[name].weight, inputs, magnitude[name], count).items()
        }

    own = {**key, "statistic": "least components", "count": count}
    return by_block(model, samples, reduce, Counting(), own, cached_tensors, progress)


class Surgery:
    """A model whose linear layers lose components and get them back; the untouched weights are kept on the CPU."""

    def __init__(self, model: LMM, found: Mapping[str, Tensor]) -> None:
        self.linears, self.found = model.linears(), found
        self.whole = {name: linear.weight.detach().cpu().clone() for name, linear in self.linears.items()}

    @torch.no_grad()
    def remove(self, decomposition: str, count: int) -> None:
        """Write every weight without its ``count`` least components (0: as it was)."""
        for name, linear in self.linears.items():
            weight = self.whole[name].to(linear.weight.device)
            if count:
                weight = without(weight, self.found[f"{name}/{decomposition}"][:, :count])
            linear.weight.copy_(weight)

    def change(self, decomposition: str, count: int) -> float:
        """Return the relative change of the layers' outputs on the calibration inputs, the median over layers."""
        changes = (self.found[f"{name}/{decomposition}/change"][count - 1] for name in self.linears)
        return statistics.median(map(float, changes)) if count else 0.0


def _points(
    plan: Plan, knowledge: Knowledge, samples: Sequence[Example], counts: Sequence[int], seed: int
) -> list[_Todo]:
    shared = {
        **shared_key(plan, knowledge), "seed": seed, "max length": plan.train.max_length,
        "samples": samples_digest(samples), "removal": digest_files([Path(__file__).with_name("removal.py")]),
    }  # fmt: skip
    chosen = [("", 0), *((name, count) for count in counts for name in DECOMPOSITIONS)]
    return [
        _Todo(decomposition=name, removed=count, key=digest({**shared, "decomposition": name, "removed": count}))
        for name, count in chosen
    ]


def _done(folder: Path, point: _Todo) -> bool:
    try:
        return Point.read(folder / "points" / point.name / "point.json").key == point.key
    except UserError:
        return False


def _score(
    plan: Plan, knowledge: Knowledge, samples: Sequence[Example], todo: Sequence[_Todo], largest: int, folder: Path,
    seed: int, out: Console,
) -> list[str]:  # fmt: skip
    """Score the points that are left; return a sentence for each task that failed."""
    with out.status(f"loading {plan.card.name}"):
        model = LMM.load(plan.card, plan.train.max_length)
    found: dict[str, Tensor] = {}
    if any(point.removed for point in todo):
        with _doing(out, f"decomposing the weights on {len(samples)} samples, block") as progress:
            found = least_components(model, samples, largest, progress)
    surgery, failed, skills = Surgery(model, found), [], seen_skills(knowledge, plan.old, seed)
    for number, point in enumerate(todo, 1):
        begin, place = time.monotonic(), folder / "points" / point.name
        place.mkdir(parents=True, exist_ok=True)
        surgery.remove(point.decomposition, point.removed)
        evaluator = Evaluator(model=model, knowledge=knowledge, folder=place, in_context=False, seen_skills=skills)
        evaluation = evaluator.evaluate(plan.tasks, _phases(out, point.title), None)
        scored = Point(
            key=point.key, decomposition=point.decomposition, removed=point.removed,
            change=surgery.change(point.decomposition, point.removed), scores=evaluation.scores,
        )  # fmt: skip
        lost = [f"{point.title}: {task}: {it.reason}" for task, it in evaluation.tasks.items() if it.status == "failed"]
        if not lost:
            scored.write(place / "point.json")
        failed += lost
        line = f"[{number}/{len(todo)}] {point.title}: {_words(plan, scored)} ({time.monotonic() - begin:.0f} s)"
        out.print(line, soft_wrap=True, markup=False)
    return failed


def _words(plan: Plan, point: Point) -> str:
    figures = []
    for task in plan.tasks:
        if task.card.name in point.scores:
            score = point.scores[task.card.name][task.card.metric]
            figures.append(f"{task.card.name} {task.card.metric} {score.value:.1f} (n {score.n:,})")
    return ", ".join(figures) or "no task was scored"


def _phases(out: Console, title: str) -> Phase:
    return lambda _: _doing(out, f"{title}, question")


@contextmanager
def _doing(out: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal what is being done, and how much of it is."""
    with out.status(what) as status:
        yield lambda done, total: status.update(f"{what} {done:,} of {total:,}")
