"""What `kore-bench analyze covariance` does: the covariances of chosen layers on several sets, small, and how alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from kore_bench.analysis import CovarianceMaps
from kore_bench.cache import cached_tensors, digest
from kore_bench.calibration import check_pictures, read_pools
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Example, Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.grid import card_key, versions
from kore_bench.likeness import cosines, shrunk
from kore_bench.lmm import LMM, layer_shapes
from kore_bench.plan import Plan, Request, check_chat, make_plan, model_name
from kore_bench.registry import digest_files
from kore_bench.session import resumable
from kore_bench.spectra import samples_digest, without_labels
from kore_bench.statistics import Walk, layers_by_block

FILE = "covariance.json"
INJECTION = "injection"
"""The set of the items to inject, beside those of the old samples' skills."""
_SOURCES = ("likeness.py", "statistics.py", "spectra.py", "lmm.py")
Sets = Mapping[str, Sequence[Example]]


@resumable
def covariance_maps_session(
    request: Request, sets: Sequence[str], layers: Sequence[str], runs: Path, name: str, *, samples: int, seed: int,
    out: Console,
) -> int:  # fmt: skip
    """Compare the covariances of ``layers`` on ``sets``, at most ``samples`` of each, and write figures and tables.

    Raises UserError before a model loads where a set or a layer is unknown, or a picture cannot be read.
    """
    folder = runs / (name or f"{model_name(request)}-covariance")
    with out.status("checking names, settings and data"):
        plan = make_plan(request)
        chosen = choose_layers(layers, list(layer_shapes(plan.card)))
        drawn = draw_sets(plan, read_knowledge(plan.knowledge_folder()), sets, samples, seed)
        check_chat(plan)
    with out.status(f"loading {plan.card.name}"):
        model = LMM.load(plan.card, plan.train.max_length)
    with out.status(f"reading {len(drawn)} sets") as status:
        found = compare(
            model, drawn, chosen, lambda block: status.update(f"reading {len(drawn)} sets in block {block}")
        )
    record = CovarianceMaps(
        model=plan.card.name, data=plan.knowledge_folder().name, seed=seed,
        samples={name: len(examples) for name, examples in drawn.items()},
        tokens={name: int(count) for name, count in zip(drawn, found["tokens"], strict=True)},
        maps={
            layer: {name: found[f"{layer}/maps"][place].tolist() for place, name in enumerate(drawn)}
            for layer in chosen
        },
        similarity={layer: found[f"{layer}/cosines"].tolist() for layer in chosen},
    )  # fmt: skip
    record.write(folder / FILE)
    out.print(_table(record))
    out.print("cosine of two sets' covariances, mean over the layers", soft_wrap=True, markup=False)
    for file in plan.registry.find("analyses", "covariance").build(folder):
        out.print(str(file), soft_wrap=True, markup=False)
    return 0


def choose_layers(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the layers whose names are, or end in, those ``wanted``, in the model's order.

    By default: of the first, middle and last block the first layer (it reads what query, key and value read) and the
    last one. Raises UserError with the nearest name for one that no layer ends in.
    """
    if not wanted:
        return _default_layers(known)
    for text in wanted:
        if not any(_is(name, text) for name in known):
            raise UserError(
                f"--layers {text}: no linear layer ends so: {nearest(text, {_short(name) for name in known})}"
            )
    return [name for name in known if any(_is(name, text) for text in wanted)]


def draw_sets(
    plan: Plan, knowledge: Knowledge, names: Sequence[str], samples: int, seed: int
) -> dict[str, list[Example]]:
    """Return at most ``samples`` of each set, drawn under ``seed``: all skills and the injection where none is named.

    Another name is a task's or a path, as for ``--calibration``. Raises UserError for an unknown one, fewer than two
    sets, an empty set, or a picture that cannot be read.
    """
    own: dict[str, Sequence[Example]] = dict(knowledge.old)
    if knowledge.items:
        own[INJECTION] = [item.example() for item in knowledge.items]
    drawn = {}
    for name in names or own:
        label, found = (name, own[name]) if name in own else _elsewhere(plan, knowledge, name, samples, own)
        if label in drawn:
            raise UserError(f"--sets {','.join(names)}: two sets are called {label}")
        stream, pool = random.Random(digest([seed, "covariance", label])), list(found)
        drawn[label] = stream.sample(pool, samples) if len(pool) > samples else pool
    if len(drawn) < 2:
        raise UserError(f"--sets: a comparison needs two sets, and here is {', '.join(drawn) or 'none'}")
    check_pictures([example for examples in drawn.values() for example in examples])
    return drawn


def compare(model: LMM, sets: Sets, layers: Sequence[str], progress: Callable[[int], None]) -> dict[str, Tensor]:
    """Return ``LAYER/maps`` ``[s, p, p]`` and ``LAYER/cosines`` ``[s, s]`` for each layer, and ``tokens`` ``[s]``.

    The sets go through the blocks side by side, so that one block's chosen covariances of all sets are in memory. Each
    block is a file of the cache.
    """
    linears = {name: layer for name, layer in model.linears().items() if name in layers}
    blocks = model.blocks()
    walks = [Walk(model.model, blocks, linears, without_labels(model, examples)) for examples in sets.values()]
    key = {
        "statistic": "likeness", "model": card_key(model.card), "max length": model.chat.max_length,
        "sets": [samples_digest(examples) for examples in sets.values()], "layers": list(layers),
        "source": digest_files([Path(__file__).with_name(file) for file in _SOURCES]), "versions": versions(),
    }  # fmt: skip

    def block(index: int) -> dict[str, Tensor]:
        read = [walk.read(index, lambda inputs: (inputs.covariance, inputs.tokens)) for walk in walks]
        result = {"tokens": torch.tensor([next(iter(inputs.values()))[1] for inputs in read])}
        for name in read[0]:
            covariances = [inputs[name][0] for inputs in read]
            result[f"{name}/maps"] = torch.stack([shrunk(matrix) for matrix in covariances])
            result[f"{name}/cosines"] = cosines(covariances)
        return result

    found: dict[str, Tensor] = {}
    for index, inside in enumerate(layers_by_block(blocks, linears)):
        if inside:
            progress(index)
            found |= cached_tensors({**key, "block": index}, lambda index=index: block(index))  # type: ignore[misc]
    return found


def _elsewhere(
    plan: Plan, knowledge: Knowledge, name: str, samples: int, own: Mapping[str, object]
) -> tuple[str, Sequence[Example]]:
    """Return the label and the samples of a task or a path."""
    tasks = plan.registry.all("tasks")
    if name not in tasks and ":" not in name and not Path(name).exists():
        raise UserError(f"--sets {name} is no skill, task or path: {nearest(name, {*own, *tasks})}")
    asked = replace(plan, old=replace(plan.old, calibration=name, samples=samples))
    try:
        return next(iter(read_pools(asked, knowledge)[0].items()))
    except UserError as error:
        raise UserError(f"--sets {name}: {error}") from None


def _default_layers(known: Sequence[str]) -> list[str]:
    blocks: dict[str, list[str]] = {}
    for name in known:
        number = next(part for part in name.split(".") if part.isdecimal())
        blocks.setdefault(number, []).append(name)
    inside = list(blocks.values())
    chosen = {0: inside[0], len(inside) // 2: inside[len(inside) // 2], len(inside) - 1: inside[-1]}
    return [name for _, names in sorted(chosen.items()) for name in dict.fromkeys((names[0], names[-1]))]


def _is(name: str, text: str) -> bool:
    return name == text or name.endswith(f".{text}")


def _short(name: str) -> str:
    """Return a layer's name from its block's number on."""
    parts = name.split(".")
    return ".".join(parts[next((place for place, part in enumerate(parts) if part.isdecimal()), 0) :])


def _table(record: CovarianceMaps) -> Table:
    names = list(record.samples)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in names:
        table.add_column(Text(name), justify="right")
    mean = torch.tensor(list(record.similarity.values())).mean(dim=0)
    for name, row in zip(names, mean.tolist(), strict=True):
        table.add_row(Text(f"{name} (n {record.samples[name]})"), *(f"{value:.3f}" for value in row))
    return table
