"""What the tests of LoRA's neighbours share: a prepared method, the base's weights, and its layers' inputs."""

from __future__ import annotations

from typing import Any

import torch

from kore_bench.conformance.prepared import Prepared, mini_card
from kore_bench.examples import Knowledge
from kore_bench.lmm import LMM
from kore_bench.registry import Registry

REGISTRY = Registry()


def prepare(knowledge: Knowledge, method: str, **settings: str) -> Prepared:
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return Prepared(knowledge, REGISTRY.compose(method, given))


def base_weights() -> dict[str, torch.Tensor]:
    return {name: linear.weight.detach().double() for name, linear in LMM.load(mini_card()).linears().items()}


def inputs_of(model: LMM, batches: Any, chosen: str) -> dict[str, torch.Tensor]:
    """Return layer -> inputs ``[tokens, n]`` (float64) at the places where ``chosen`` of the batch is positive."""
    seen: dict[str, list[torch.Tensor]] = {}
    hooks = []
    for name, linear in model.linears().items():

        def read(module: torch.nn.Module, args: tuple[torch.Tensor], name: str = name) -> None:
            seen.setdefault(name, []).append(args[0].detach()[places].double())

        hooks.append(linear.register_forward_pre_hook(read))
    for batch in batches:
        labels = batch.pop("labels")
        places = (labels >= 0) if chosen == "answers" else batch["attention_mask"] > 0
        with torch.inference_mode():
            model.model(**batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}
