"""Runs one cell: load the base, make the data, measure, adapt, start, train, finish, evaluate; leaves a record."""

from __future__ import annotations

import contextlib
import gc
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from kore_bench.asked import with_asked
from kore_bench.cache import cache_folder, cached_tensors, digest
from kore_bench.calibration import draw_held_out, draw_old, seen_questions, seen_skills
from kore_bench.card import TrainSettings
from kore_bench.checkpoint import newest
from kore_bench.component import AdapterSpec, Budget, Component, Defaults, fold
from kore_bench.distributed import first, the_first, wait_for_all, world
from kore_bench.evaluation import Evaluator
from kore_bench.examples import Example, Item, Knowledge, name_of
from kore_bench.forgetting import Reference
from kore_bench.forgetting.recovery import LIKELIHOOD, RETENTION, recover
from kore_bench.frontier import FOLDER, trace_cell
from kore_bench.grid import Cell, base_key, cell_settings, engine_digest, versions
from kore_bench.integrity import damages
from kore_bench.launch import ALONE, Launch
from kore_bench.lmm import LMM
from kore_bench.plan import Plan
from kore_bench.registry import Composition, Registry
from kore_bench.results import CHECKPOINTS, FRONTIER, Cost, Record, whole_lines, write_lines
from kore_bench.training import Keeping, Trained, train

Listener = Callable[[str, int, int], None]
"""Called with the phase's name, and what of it is done and in all (0, 0 where that is unknown)."""

ADAPTER_FOLDER = "adapter"
"""What a cell's training leaves, within the cell's folder."""
_PROBES = 2
_TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


class BrokenContractError(Exception):
    """A method did what the contract forbids (changed the base while measuring, moved the outputs in `adapt`, ...)."""


@dataclass(kw_only=True)
class CellRun:
    """What a cell offers to its components; see `kore_bench.component.Run`."""

    seed: int
    items: Sequence[Item]
    calibration: Sequence[Example]
    held_out: Sequence[Example]
    budget: Budget
    spec: AdapterSpec
    train_projector: bool
    base: Mapping[str, Any]
    embed: Callable[[Sequence[Path]], np.ndarray]
    registry: Registry = field(default_factory=Registry)
    examples: Sequence[Example] = ()
    diagnostics: dict[str, Any] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)

    def rng(self, component: Component) -> random.Random:
        """Return a fresh stream that depends on the seed and the component's name alone."""
        return random.Random(digest([self.seed, component.name]))

    def state(self, component: Component) -> dict[str, Any]:
        """Return what the component remembers."""
        return self.states.setdefault(component.name, {})

    def cache(self, key: Mapping[str, Any], compute: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Return ``compute()``, shared across cells and runs by the base model and ``key``."""
        return cached_tensors({"base": self.base, **key}, compute)

    def find(self, kind: str, name: str) -> Any:
        """Return another plug-in by its kind and name."""
        return self.registry.find(kind, name)

    def log(self, name: str, value: Any) -> None:
        """Keep a value for the record's diagnostics."""
        self.diagnostics[name] = value


class _Clock:
    """Wall time by phase, told to the listener as phases begin."""

    def __init__(self, listener: Listener) -> None:
        self.seconds: dict[str, float] = {}
        self.listener = listener

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[int, int], None]]:
        self.listener(name, 0, 0)
        begin = time.perf_counter()
        yield lambda done, total: self.listener(name, done, total)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


def run_cell(
    plan: Plan, cell: Cell, knowledge: Knowledge, folder: Path, listener: Listener, earlier: Record | None = None,
    launch: Launch = ALONE,
) -> Record:  # fmt: skip
    """Run one cell, leaving predictions, the training log and the adapter in ``folder``; returns its record.

    A cell that was stopped goes on from what it left in ``folder``: the last checkpoint of its training, the answers
    already given. Where ``earlier``, its record of the time before, has tasks that failed, they alone are asked again
    if the trained weights are still there, in a checkpoint or as the adapter that was saved. The record is not written
    here: a cell is done when the caller has written it. Raises UserError for the user's mistakes and BrokenContractError for a method's.
    """
    _reset_peak_memory()
    clock = _Clock(listener)
    record = _scored(plan, cell, knowledge, folder, clock, earlier, launch)
    if not plan.request.frontier or cell.reference or record.status != "done":
        return record
    gc.collect()  # the trained model leaves its room to the base
    with clock.phase(FOLDER) as progress:
        skills = seen_skills(knowledge, plan.old, cell.seed)
        facts = trace_cell(plan, knowledge, folder, folder / ADAPTER_FOLDER, skills, progress)
    spent = record.cost.seconds.get(FOLDER, 0.0) + clock.seconds[FOLDER]
    seconds = {**record.cost.seconds, FOLDER: round(spent, 3)}
    return replace(
        record, diagnostics={**record.diagnostics, **facts},
        cost=replace(record.cost, seconds=seconds, peak_memory=max(record.cost.peak_memory, _peak_memory())),
    )  # fmt: skip


def _scored(
    plan: Plan, cell: Cell, knowledge: Knowledge, folder: Path, clock: _Clock, earlier: Record | None, launch: Launch
) -> Record:
    """Train and evaluate; nothing holds the model afterwards."""
    with clock.phase("load"):
        model = LMM.load(plan.card, plan.train.max_length)
        total = sum(value.numel() for value in model.model.parameters())
    skills = seen_skills(knowledge, plan.old, cell.seed)
    settings: dict[str, Any] = {"model": base_key(plan), "old": asdict(plan.old), "world": asdict(plan.world)}
    diagnostics: dict[str, Any] = {}
    cost: dict[str, Any] = {}
    seen: dict[str, int] = {}
    examples: Sequence[Example] = ()
    if earlier and earlier.key != cell.key:
        earlier = None
    if earlier and not cell.reference and the_first(first() and _adapter_stands(folder, earlier)):
        return _score_again(plan, cell, knowledge, model, folder, clock, earlier)
    if not cell.reference:
        composition, training = cell_settings(plan, cell)
        settings |= {"train": asdict(training), "components": composition.settings()}
        run, result, trainable, kept = _inject(
            plan, cell, knowledge, model, folder, clock, training, composition, launch
        )
        diagnostics, examples = run.diagnostics, run.examples
        read = {id for part in composition.components for id in part.old_samples(run)}
        seen = seen_questions(plan, knowledge, [sample for sample in run.calibration if sample.id in read])
        cost = {
            "trainable_parameters": trainable,
            "examples": len(run.examples),
            "samples": result.samples,
            "steps": result.steps,
            "tokens": result.tokens,
            "old_samples": len(read),
        }
        diagnostics["train/final loss"] = result.loss
        if world() > 1:
            diagnostics |= {"train/processes": world(), "train/strategy": launch.strategy}
        if launch.parts > 1:
            diagnostics["train/batch in parts"] = launch.parts
        if result.resumed_at:
            diagnostics["train/resumed at step"] = result.resumed_at
        earlier = earlier if kept else None
    knowledge, asked = with_asked(knowledge, examples)
    if not cell.reference:
        diagnostics["train/questions asked"] = asked
    evaluator = Evaluator(
        model=model, knowledge=knowledge, folder=folder, in_context=cell.method == "in-context", seen_skills=skills,
        seen_questions=seen,
    )  # fmt: skip
    found = evaluator.evaluate(plan.tasks, clock.phase, earlier)
    if not cell.reference and any(task.card.name == LIKELIHOOD for task in plan.tasks):
        with clock.phase("recover") as progress:
            task = next((one for one in plan.tasks if one.card.name == RETENTION and RETENTION in found.scores), None)
            answers = folder / "predictions" / f"{RETENTION}.jsonl"
            diagnostics |= recover(model, task, knowledge, run, skills, training, launch, answers, progress)
    if earlier:
        clock.seconds["evaluate"] = clock.seconds.get("evaluate", 0.0) + earlier.cost.seconds.get("evaluate", 0.0)
    return Record(
        key=cell.key, model=cell.model, method=cell.method, seed=cell.seed, reference=cell.reference, tuned=cell.tuned,
        status="done" if found.scores else "failed", reason="" if found.scores else "no task could be scored",
        settings=settings, scores=found.scores, tasks=found.tasks, diagnostics=diagnostics | found.diagnostics,
        cost=Cost(
            **cost, total_parameters=total, peak_memory=_peak_memory(),
            seconds={name: round(value, 3) for name, value in clock.seconds.items()},
        ),
        versions=versions(),
        data={"root": knowledge.root.name, "digest": knowledge.digest, "items": len(knowledge.items),
              "draw": plan.world.draw(cell.seed),
              "unpacked": [name_of(folder, (cache_folder(),)) for folder in knowledge.unpacked],
              "old skills": sorted(skills)},
    )  # fmt: skip


def _adapter_stands(folder: Path, earlier: Record) -> bool:
    """Return whether all that a finished cell saved of its training is there as it was, and no checkpoint beside it."""
    saved = any(name.startswith(f"{ADAPTER_FOLDER}/") for name in earlier.files)
    return saved and not newest(folder / CHECKPOINTS, earlier.key) and not any(damages(folder, earlier))


def _score_again(
    plan: Plan, cell: Cell, knowledge: Knowledge, model: LMM, folder: Path, clock: _Clock, earlier: Record
) -> Record:
    """Return ``earlier`` with the tasks that it lacks, asked of the weights that its training left."""
    composition, training = cell_settings(plan, cell)
    run = _cell_run(plan, cell, knowledge, model, training, composition)
    with clock.phase("data"):
        run.examples = _prepared(composition.components, run)
    with clock.phase("load"):
        composition.adapter.load(model, folder / ADAPTER_FOLDER)
    read = {id for part in composition.components for id in part.old_samples(run)}
    knowledge, _ = with_asked(knowledge, run.examples)
    evaluator = Evaluator(
        model=model, knowledge=knowledge, folder=folder, in_context=False,
        seen_skills=seen_skills(knowledge, plan.old, cell.seed),
        seen_questions=seen_questions(plan, knowledge, [sample for sample in run.calibration if sample.id in read]),
    )  # fmt: skip
    found = evaluator.evaluate(plan.tasks, clock.phase, earlier)
    seconds = dict(earlier.cost.seconds)
    seconds["evaluate"] = round(seconds.get("evaluate", 0.0) + clock.seconds.get("evaluate", 0.0), 3)
    return replace(
        earlier, status="done" if found.scores else "failed", reason="" if found.scores else "no task could be scored",
        scores=found.scores, tasks=found.tasks, diagnostics={**earlier.diagnostics, **found.diagnostics},
        cost=replace(earlier.cost, seconds=seconds),
    )  # fmt: skip


def _cell_run(
    plan: Plan, cell: Cell, knowledge: Knowledge, model: LMM, training: TrainSettings, composition: Composition
) -> CellRun:
    """Return what the cell offers to its components, before any of them has a hook called."""
    layers = {name: (linear.out_features, linear.in_features) for name, linear in model.linears().items()}
    calibration = draw_old(knowledge, plan.old, cell.seed)
    return CellRun(
        seed=cell.seed, items=knowledge.items, calibration=calibration,
        held_out=draw_held_out(knowledge, calibration, cell.seed),
        budget=Budget(steps=training.steps, epochs=training.epochs, batch_size=training.batch_size),
        spec=fold(composition.components, layers, Defaults(rank=plan.card.rank, dropout=plan.card.dropout)),
        base=cache_base(plan, composition, knowledge),
        train_projector=training.projector == "train", embed=model.embed, registry=plan.registry,
    )  # fmt: skip


def _inject(
    plan: Plan, cell: Cell, knowledge: Knowledge, model: LMM, folder: Path, clock: _Clock,
    training: TrainSettings, composition: Composition, launch: Launch,
) -> tuple[CellRun, Trained, int, bool]:  # fmt: skip
    """Return the run, its training, the number of trained weights, and whether these were there from before."""
    components = composition.components
    run = _cell_run(plan, cell, knowledge, model, training, composition)
    with clock.phase("measure"):
        reference = Reference.of(model, run.held_out) if first() else None
    adapt(model, components, run, clock.phase)
    trainable = sum(value.numel() for value in model.model.parameters() if value.requires_grad)
    resume = newest(folder / CHECKPOINTS, cell.key)
    wait_for_all()  # nobody writes before everybody has read
    trained = resume is not None and resume.progress.finished
    if first() and not trained:
        for stale in ("predictions", FOLDER):  # answers of weights that are not trained yet
            shutil.rmtree(folder / stale, ignore_errors=True)
        (folder / FRONTIER).unlink(missing_ok=True)
    with clock.phase("train") as progress:
        torch.manual_seed(cell.seed)
        with _training_log(folder / "train.jsonl", resume.progress.step if resume else 0) as log:
            rows = model.rows(run.examples)
            keeping = Keeping(folder=folder / CHECKPOINTS, key=cell.key, resume=resume)
            with model.full_precision():
                result = train(model, rows, training, components, run, log, progress, keeping, launch)
            run.log("train/truncated examples", len(rows.truncated))
        for component in components:
            component.finish(model, run)
    clock.seconds["train"] = result.seconds
    if reference:
        with clock.phase("measure"):
            run.diagnostics |= reference.compare(model)
    with clock.phase("save"):
        if first():
            model.save(folder / ADAPTER_FOLDER)
        wait_for_all()
    return run, result, trainable, trained


def cache_base(plan: Plan, composition: Composition, knowledge: Knowledge) -> dict[str, Any]:
    """Return what every cached statistic of a cell depends on beside its own key."""
    return {
        **base_key(plan),
        "data": knowledge.digest,
        "max length": plan.train.max_length,
        "engine": engine_digest(plan),
        "source": composition.digest(),
    }


def adapt(model: LMM, components: Sequence[Component], run: CellRun, phase: Any) -> None:
    """Call the hooks from `data` to `start`, and hold the method to the contract.

    Raises BrokenContractError where `measure` changed a weight, `adapt` moved the outputs, or a parameter would be
    trained that the adapter does not declare.
    """
    with phase("data"):
        run.examples = examples = _prepared(components, run)
    probe = next(model.batches(examples[:_PROBES], _PROBES))
    probe.pop("labels")
    before, weights = _logits(model, probe), _weight_sums(model)
    with phase("measure"):
        for component in components:
            component.measure(model, run)
        if not torch.equal(weights, _weight_sums(model)):
            raise BrokenContractError("measure changed a weight of the base model")
    with phase("adapt"):
        for component in components:
            component.adapt(model, run)
        after = _logits(model, probe)
        drift = float((after - before).abs().max() / before.abs().max())
        run.log("adapt/drift", drift)
        if drift > _TOLERANCE[model.card.dtype]:
            raise BrokenContractError(f"adapt moved the model's outputs by {drift:.1e} of their size")
        adapter = components[0]
        for name, value in model.model.named_parameters():
            if value.requires_grad and not adapter.trainable(name, run.spec):  # type: ignore[attr-defined]
                raise BrokenContractError(f"{name} would be trained, but {adapter.name} does not declare it")
        for component in components:
            component.start(model, run)


def _prepared(components: Sequence[Component], run: CellRun) -> list[Example]:
    """Return the training data after every `data` hook."""
    examples = [item.example() for item in run.items]
    for component in components:
        examples = component.data(examples, run)
    return examples


@contextmanager
def _training_log(file: Path, step: int) -> Iterator[IO[str]]:
    """Open a cell's training log to go on after ``step``: later rows, of steps that run again, are dropped."""
    if first():
        write_lines(file, [row for row in whole_lines(file) if row["step"] <= step] if step else [])
    wait_for_all()
    with file.open("a", encoding="utf-8") as log:
        yield log


@torch.inference_mode()
def _logits(model: LMM, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    model.model.eval()
    logits: torch.Tensor = model.model(**batch).logits
    return logits[batch["attention_mask"].bool()].float().cpu()


@torch.inference_mode()
def _weight_sums(model: LMM) -> torch.Tensor:
    return torch.stack([value.detach().double().sum().cpu() for value in model.base.parameters()])


def _reset_peak_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):  # Linux: a worker runs many cells, and the peak should be this cell's
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> int:
    """Return the peak in bytes: allocated GPU memory, or this process's resident set."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
