"""Measures the null spaces of a model's inputs alone, ahead of any run: what a run then finds in the cache."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from kore_bench.cache import cache_folder
from kore_bench.calibration import calibrated, check_old, check_pictures, draw_old, names_task, read_pools
from kore_bench.component import Component, Defaults, fold
from kore_bench.errors import UserError
from kore_bench.examples import Example, Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM, layer_shapes
from kore_bench.plan import Plan, Request, check_chat, make_plan
from kore_bench.session import resumable
from kore_bench.spectra import spectra
from kore_bench.spectrum import Spectrum, nullity
from kore_bench.statistics import Counting

LEGEND = (
    "worst block of each; nullity: directions without energy that rounding does not hide; null {rank}: share of the "
    "energy along the {rank} directions that have the least"
)


@resumable
def covariance_session(request: Request, *, seed: int, out: Console) -> int:
    """Measure what the request's methods read of the old samples of ``seed``, and print a table; return the exit code.

    A call that was stopped goes on at the block where it stopped; blocks that were measured before, by any run or
    call on the same model and samples, are read. Raises UserError before a model loads where something is amiss.
    """
    with out.status("checking names, settings, data and ranks"):
        plan = make_plan(request)
        samples = old_samples(plan, seed)
        rank = _largest_rank(plan)
        _check_reads(plan)
        check_chat(plan)
    begin = time.monotonic()
    with out.status(f"loading {plan.card.name}"):
        model = LMM.load(plan.card, plan.train.max_length)
    pictures = sum(len(sample.images) for sample in samples)
    line = f"{plan.card.name}: {len(samples)} samples with {pictures} pictures, {len(model.blocks())} blocks"
    out.print(line, soft_wrap=True, markup=False)
    for counting in _countings(plan, model):
        found = _measure(model, samples, counting, rank, out)
        out.print(spectra_table(found, rank))
        for remark in (LEGEND.format(rank=rank), *remarks(found)):
            out.print(remark, soft_wrap=True, markup=False)
    out.print(f"kept in {cache_folder()} ({time.monotonic() - begin:.0f} s)", soft_wrap=True, markup=False)
    return 0


def old_samples(plan: Plan, seed: int) -> list[Example]:
    """Return the samples that a run of ``plan`` calibrates on under ``seed``, checked.

    The knowledge folder is read only where its old samples, or the questions of a task, are wanted.
    """
    if plan.old.calibration and not names_task(plan):
        pools, _ = read_pools(plan, None)
        knowledge = Knowledge(root=plan.knowledge_folder(), digest="", items=(), questions=(), old=pools)
    else:
        knowledge = calibrated(plan, read_knowledge(plan.knowledge_folder()))
        if not knowledge.old:
            raise UserError(f"{knowledge.root} has no old.json to calibrate on: name other data with --calibration")
    check_old(plan.old, knowledge.old, str(knowledge.root))
    samples = draw_old(knowledge, plan.old, seed)
    check_pictures(samples)
    return samples


def spectra_table(found: Mapping[str, Spectrum], rank: int) -> Table:
    """Return a row for each kind of input: its width, and what was found in the worst of its blocks."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("input of")
    for name in ("blocks", "width", "tokens", "nullity", "condition", f"null {rank}"):
        table.add_column(name, justify="right", no_wrap=True)
    for names, spectra_ in _kinds(found).items():
        table.add_row(
            Text(names), str(len(spectra_)), str(len(spectra_[0].values)), f"{spectra_[0].tokens:,}",
            str(max(nullity(item.values, item.eps) for item in spectra_)),
            f"{max(map(condition, spectra_)):.0e}",
            f"{max(energy_share(item, rank) for item in spectra_):.1e}",
        )  # fmt: skip
    return table


def energy_share(item: Spectrum, rank: int) -> float:
    """Return which share of the inputs' energy lies along the ``rank`` directions that have the least."""
    return max(0.0, float(item.values[:rank].sum() / item.values.sum()))


def condition(item: Spectrum) -> float:
    """Return lambda_max over the smallest eigenvalue that rounding does not hide."""
    zero = nullity(item.values, item.eps)
    return float(item.values[-1] / item.values[zero]) if zero < len(item.values) else math.inf


def remarks(found: Mapping[str, Spectrum]) -> list[str]:
    """Return in sentences which inputs have more channels than tokens, so that the samples leave directions unseen."""
    wide = [names for names, spectra_ in _kinds(found).items() if spectra_[0].tokens < len(spectra_[0].values)]
    return [f"fewer tokens than channels in the input of {names}: take more samples" for names in wide]


def _measure(
    model: LMM, samples: Sequence[Example], counting: Counting, rank: int, out: Console
) -> dict[str, Spectrum]:
    columns = (TextColumn("covariances and eigenvectors"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("blocks"), console=out, transient=True) as bar:
        task = bar.add_task("", total=len(model.blocks()))
        return spectra(model, samples, counting, rank, lambda done, total: bar.update(task, completed=done))


def _countings(plan: Plan, model: LMM) -> list[Counting]:
    given = (part.counting(model) for method in plan.methods for part in method.components)
    return list(dict.fromkeys(counting for counting in given if counting is not None))


def _check_reads(plan: Plan) -> None:
    """Raise UserError where no method reads covariances."""
    components = (component for method in plan.methods for component in method.components)
    if all(type(component).counting is Component.counting for component in components):
        raise UserError(f"no part of {', '.join(method.name for method in plan.methods)} reads covariances")


def _largest_rank(plan: Plan) -> int:
    layers, defaults = layer_shapes(plan.card), Defaults(rank=plan.card.rank, dropout=plan.card.dropout)
    return max(fold(method.components, layers, defaults).rank for method in plan.methods)


def _kinds(found: Mapping[str, Spectrum]) -> dict[str, list[Spectrum]]:
    """Return the distinct spectra by their layers' last names, which blocks have in common."""
    kinds: dict[str, dict[int, Spectrum]] = {}
    for item in found.values():
        kinds.setdefault(", ".join(name.rsplit(".", 1)[-1] for name in item.names), {})[id(item)] = item
    return {names: list(items.values()) for names, items in kinds.items()}
