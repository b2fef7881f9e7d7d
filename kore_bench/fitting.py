"""Shows what a run would cost, and refuses what does not fit a GPU, with the option that would make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kore_bench.architecture import Architecture, read_architecture
from kore_bench.calibration import plan_knowledge
from kore_bench.errors import UserError
from kore_bench.estimate import GIB, USABLE, UTILISATION, Estimate, estimate_method, estimate_plan
from kore_bench.gpus import GPUS, Gpu, find_gpu
from kore_bench.launch import ALONE, Launch, needs_whole
from kore_bench.plan import Plan
from kore_bench.registry import Composition

PHASES = ("measure", "train", "answer")
_NODE = 8  # GPUs of one machine


def show_costs(plan: Plan, gpu: str, out: Console, launch: Launch = ALONE) -> None:
    """Print what a cell of every method would take; raises UserError where ``gpu`` is named and cannot hold one."""
    found = find_gpu(gpu) if gpu else None
    estimates = estimate_plan(plan, plan_knowledge(plan), launch)
    out.print(estimate_table(plan, estimates, found))
    out.print(assumptions(found), soft_wrap=True, markup=False)
    if found:
        check_fits(plan, estimates, found, launch)


def estimate_table(plan: Plan, estimates: Sequence[Estimate], gpu: Gpu | None) -> Table:
    """Return a row a method: what one of its cells would take, with hours where a GPU is named."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("one cell of", no_wrap=True)
    for name in ("params", "rank", "samples", "PFLOP", "C", "measure", "train", "answer", *(["hours"] if gpu else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for estimate in estimates:
        memory = [_gib(estimate.memory[phase]) if phase in estimate.memory else "" for phase in PHASES]
        row = [
            f"{estimate.trainable / 1e6:,.1f}",
            str(estimate.rank) if estimate.rank else "",
            f"{estimate.samples:,}",
            _short(sum(estimate.flops.values()) / 1e15),
            _gib(estimate.covariances) if estimate.covariances else "",
            *memory,
        ]
        if gpu:
            row.append(_short(estimate.hours(gpu, plan.card.dtype)) if estimate.fits(gpu) else "too big")
        table.add_row(Text(estimate.method), *row)
    return table


def assumptions(gpu: Gpu | None) -> str:
    """Return in a sentence what the figures rest on."""
    hours = ""
    if gpu:
        shares = ", ".join(f"{share:.0%} ({kind})" for kind, share in UTILISATION.items())
        hours = f"; hours on {gpu.name} assume {shares} of the maker's peak figures"
    return (
        "params: millions that are trained; C: GiB of one block's covariances; measure, train, answer: GiB of one GPU "
        "at that phase's peak. Estimated "
        f"from the configuration alone, at four characters a token, not measured{hours}"
    )


def check_fits(plan: Plan, estimates: Sequence[Estimate], gpu: Gpu, launch: Launch = ALONE) -> None:
    """Raise UserError naming what does not fit ``gpu``, and the option that would make each method fit."""
    sizes = read_architecture(plan.card)
    reasons = []
    for method, estimate in zip(plan.methods, estimates, strict=True):
        if not estimate.fits(gpu):
            phase = max(estimate.memory, key=lambda name: estimate.memory[name])
            remedy = _remedy(plan, method, sizes, estimate, gpu, launch)
            reasons.append(f"{method.name} needs {_gib(estimate.peak)} GiB to {phase} ({remedy})")
    if reasons:
        raise UserError(f"{gpu.name} has {gpu.memory:g} GiB, and {'; '.join(reasons)}")


def _remedy(plan: Plan, method: Composition, sizes: Architecture, estimate: Estimate, gpu: Gpu, launch: Launch) -> str:
    """Return the first change of settings, from the cheapest, that would make a method fit; else more or larger GPUs."""

    def fitting(choices: Sequence[tuple[str, Plan]], launch: Launch) -> str | None:
        for options, changed in choices:
            even = changed.train.batch_size % launch.gpus_per_cell == 0
            if even and estimate_method(changed, method, estimate.load, sizes, launch).fits(gpu):
                return options
        return None

    smaller = list(_smaller(plan, evaluation=estimate.memory["answer"] > USABLE * gpu.memory * GIB))
    if options := fitting(smaller, launch):
        return f"use {options}"
    ways = []
    for count in range(max(2, launch.gpus_per_cell), _NODE + 1) if not needs_whole(method) else ():
        shards = replace(launch, gpus_per_cell=count, strategy="fsdp2")
        if (options := fitting([("", plan), *smaller], shards)) is not None:
            ways.append(f"--gpus-per-cell {count} --strategy fsdp2 {options}".rstrip())
            break
    ways += [f"--gpu {other.name}" for other in GPUS if estimate.fits(other)][:1]
    if ways:
        return f"no setting makes it fit{' one GPU' if launch.gpus_per_cell == 1 else ''}: use {' or '.join(ways)}"
    rather = "a low-rank method" if method.adapter.kind == "full" else "a smaller model"
    return f"neither a setting nor a GPU known here makes it fit: use {rather}"


def _smaller(plan: Plan, *, evaluation: bool) -> Iterator[tuple[str, Plan]]:
    """Yield ever smaller plans of the same training, with the options that make them."""
    train, card, options = plan.train, plan.card, []
    if not train.gradient_checkpointing:
        train = replace(train, gradient_checkpointing=True)
        options.append("--set train.gradient-checkpointing=true")
        yield " ".join(options), replace(plan, train=train)
    while train.batch_size > 1 or (evaluation and card.evaluation_batch_size > 1):
        size = next(
            (size for size in range(train.batch_size // 2, 0, -1) if train.batch_size % size == 0), train.batch_size
        )
        train = replace(train, batch_size=size, accumulation=train.accumulation * train.batch_size // size)
        made = [*options, f"--set train.batch-size={size} --set train.accumulation={train.accumulation}"]
        if evaluation:
            card = replace(card, evaluation_batch_size=max(1, card.evaluation_batch_size // 2))
            made.append(f"--set model.evaluation-batch-size={card.evaluation_batch_size}")
        yield " ".join(made), replace(plan, train=train, card=card)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _gib(memory: float) -> str:
    return f"{memory / GIB:.1f}"
