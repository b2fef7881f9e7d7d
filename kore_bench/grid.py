"""Cells (model x method x seed): their settings and the keys that say whether one is done."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kore_bench.cache import digest, fingerprint
from kore_bench.card import ModelCard, TrainSettings
from kore_bench.examples import Knowledge
from kore_bench.generators.chosen import writing_key
from kore_bench.plan import REFERENCES, Plan
from kore_bench.registry import Composition, digest_files, digest_sources
from kore_bench.results import cell_name
from kore_bench.task import Task

_PACKAGES = ("kore-bench", "torch", "transformers", "peft", "accelerate")
_IN_CELLS = (
    "anatomy.py", "augmentation.py", "benchmarks.py", "calibration.py", "card.py", "chat.py", "checkpoint.py", "component.py", "distillation.py", "earlier.py", "evaluation.py", "examples.py", "fisher.py", "frontier.py", "grid.py", "lmm.py",
    "measures.py", "plan.py", "recipe.py", "rows.py", "runner.py", "sharding.py", "source.py", "spectra.py", "spectrum.py", "statistics.py", "subspace.py", "task.py", "training.py",
    "vqa_normalisation.json", "augment/*.py", "forgetting/*.py", "formats/*.py", "generators/*.py", "generators/llm/*.py", "generators/prompts/*.yaml", "models/*.py", "vlmevalkit/*.py",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model x method x seed with every setting decided; plain values, so that it can be sent to a worker.

    ``method`` may be a reference (``base``, ``in-context``), which trains nothing. ``settings`` are the tuned
    ``component.field`` values; ``tuned`` says in words where the learning rate came from. ``unjudged`` is the name of
    the same cell in a run without a judge (empty: this one has none, or no task that one grades).
    """

    model: str
    method: str
    seed: int
    key: str
    learning_rate: float = 0.0
    settings: Mapping[str, str] = field(default_factory=dict)
    tuned: str = ""
    unjudged: str = ""

    @property
    def name(self) -> str:
        """Return the name of the cell's folder."""
        return cell_name(self.model, self.method, self.seed, self.key)

    @property
    def reference(self) -> bool:
        """Return whether the cell trains nothing."""
        return self.method in REFERENCES


def list_cells(plan: Plan, knowledge: Knowledge, drawn: Mapping[int, Knowledge] | None = None) -> list[Cell]:
    """Return the references and then every method, seed by seed within each.

    ``drawn`` is the knowledge of the seeds that have their own, see `kore_bench.calibration.draws`.
    """
    cells = _list_cells(plan, knowledge, drawn or {})
    if not any(judged(task) for task in plan.tasks):
        return cells
    without: dict[str, Any] = {"judge": ""}
    tasks = tuple(replace(task, **without) if judged(task) else task for task in plan.tasks)
    others = _list_cells(replace(plan, tasks=tasks), knowledge, drawn or {})
    return [replace(cell, unjudged=other.name) for cell, other in zip(cells, others, strict=True)]


def judged(task: Task) -> bool:
    """Return whether a task has a judge that grades its answers."""
    return task.card.judge and bool(getattr(task, "judge", ""))


def _list_cells(plan: Plan, knowledge: Knowledge, drawn: Mapping[int, Knowledge]) -> list[Cell]:
    shared = {seed: shared_key(plan, drawn.get(seed, knowledge)) for seed in plan.request.seeds}
    cells = []
    for name in REFERENCES:
        if name == "in-context" and not all(question.context for question in knowledge.questions):
            continue  # questions that name no item have no paragraph to read
        for seed in plan.request.seeds:
            key = digest({**shared[seed], "method": name, "seed": seed})
            cells.append(Cell(model=plan.card.name, method=name, seed=seed, key=key))
    for method in plan.methods:
        for seed in plan.request.seeds:
            cells.append(method_cell(plan, method, seed, shared[seed]))
    return cells


def shared_key(plan: Plan, knowledge: Knowledge) -> dict[str, Any]:
    """Return the part of a key that all cells of a plan share."""
    return {
        "base": base_key(plan),
        "data": knowledge.digest,
        "tasks": {task.card.name: task.key() for task in plan.tasks},
        "engine": engine_digest(plan),
        "versions": versions(),
        "old": asdict(plan.old),
    }


def method_cell(
    plan: Plan, method: Composition, seed: int, shared: Mapping[str, Any], trial: Mapping[str, str] | None = None
) -> Cell:
    """Return the cell of a method: its rate is the one given, else the tuned one, else the card's.

    ``trial`` holds the ``component.field`` values of a tuning trial, in place of tuned ones.
    """
    rate, settings, tuned = decide_rate(plan, method)
    settings = settings if trial is None else dict(trial)
    composed = plan.method(method.name, settings)
    key = digest(
        {
            **shared,
            "method": method.name,
            "settings": composed.settings(),
            "source": composed.digest(),
            **writing_key(plan.registry, composed),
            "train": asdict(replace(plan.train, learning_rate=rate)),
            "seed": seed,
        }
    )
    return Cell(
        model=plan.card.name, method=method.name, seed=seed, key=key, learning_rate=rate, settings=settings, tuned=tuned
    )


def decide_rate(plan: Plan, method: Composition) -> tuple[float, dict[str, str], str]:
    """Return a method's learning rate, its tuned settings, and in words where they come from."""
    entry = plan.tuned(method.name)
    tuned = {key: str(value) for key, value in entry["chosen"]["settings"].items()} if entry else {}
    if plan.train.learning_rate:
        return plan.train.learning_rate, {}, "given"
    if entry is None:
        return plan.card.learning_rates[method.adapter.kind], {}, "untuned"
    if entry["model"] != plan.card.name:
        return float(entry["chosen"]["learning_rate"]), tuned, f"tuned on {entry['model']}"
    same = plan.method(method.name, tuned).settings() == plan.registry.compose(
        entry["method"], tuned
    ).settings() and entry.get("conditions") == tuning_conditions(plan)
    return float(entry["chosen"]["learning_rate"]), tuned, "tuned" if same else "tuned at other settings"


def tuning_conditions(plan: Plan) -> dict[str, Any]:
    """Return what a tuned rate holds for, beside model, method and budget: data, training and old samples."""
    train = {name: value for name, value in asdict(plan.train).items() if name != "learning_rate"}
    # Rates were tuned before there was a calibration: where none is named, the conditions are those.
    old = {name: value for name, value in asdict(plan.old).items() if value != ""}
    world = {} if plan.world.main else {"world": asdict(plan.world)}
    return {"data": plan.request.data, "train": train, "old": old, **world}


def base_key(plan: Plan) -> dict[str, Any]:
    """Return what identifies the base model: a folder's content or a hub id's commit, and how it is read."""
    return card_key(plan.card)


def card_key(card: ModelCard) -> dict[str, Any]:
    """Return what identifies a card's model, see `base_key`."""
    return {
        "model": card.name, "content": model_content(card), "dtype": card.dtype, "weights": card.weights,
        "chat template": card.chat_template, "image padding": card.image_padding, "max pixels": card.max_pixels,
    }  # fmt: skip


def model_content(card: ModelCard) -> str:
    """Return the fingerprint of a card's folder, or the commit of its hub id."""
    folder = Path(card.path)
    if folder.is_dir():
        return fingerprint(folder)
    from kore_bench.source import resolve_revision

    return resolve_revision(card)


def engine_digest(plan: Plan) -> str:
    """Return the SHA-256 over the sources that can change a figure: the engine's, the tasks' and the model's card.

    Of tasks all that are ours count, as one may use another's scorer; of other packages' only those of the plan.
    """
    folder = Path(__file__).parent
    files = [file for pattern in _IN_CELLS for file in sorted(folder.glob(pattern))]
    roots = {plan.registry.entry("tasks", task.card.name).root for task in plan.tasks}
    roots |= {found.root for found in plan.registry.all("tasks").values() if found.built_in}
    cards = plan.registry.all("models")  # a model that was given by its path has none
    roots |= {cards[plan.card.name].root} if plan.card.name in cards else set()
    return digest([digest_files(files), digest_sources(roots)])


def versions() -> dict[str, str]:
    """Return the versions of the packages that the figures rest on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # an uninstalled checkout
            from kore_bench import __version__

            found[package] = __version__
    return found


def cell_settings(plan: Plan, cell: Cell) -> tuple[Composition, TrainSettings]:
    """Return the composition and the training settings that a cell runs with."""
    return plan.method(cell.method, cell.settings), replace(plan.train, learning_rate=cell.learning_rate)
