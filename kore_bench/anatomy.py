"""The parts of an image-text model, found in the model itself: decoder blocks, their linear layers, the projector."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from kore_bench.errors import UserError

PROJECTORS = (
    "multi_modal_projector", "merger", "connector", "aligner", "projector", "mm_projector", "embed_vision",
    "vision_projection", "language_projection",
)  # fmt: skip
"""What the classes of transformers call the module between the vision tower and the language model."""

_MOSTLY = 0.9
_INSIDE_ADAPTER = re.compile(r"\.(base_layer|lora_\w+|osf_\w+)(\.|$)")


def decoder_blocks(model: Any) -> tuple[str, nn.ModuleList]:
    """Return the name and the list of the language model's blocks.

    The list is the decoder's ``layers``, or its outermost one where its class calls it otherwise. Raises UserError
    where there is none.
    """
    decoder = model.get_decoder()
    lists = (module for module in decoder.modules() if isinstance(module, nn.ModuleList))
    blocks = decoder.layers if isinstance(getattr(decoder, "layers", None), nn.ModuleList) else next(lists, None)
    if blocks is None:
        raise UserError(f"{type(model).__name__} has no list of decoder blocks, which adapters need")
    return next(name for name, module in model.named_modules() if module is blocks), blocks


def block_linears(model: Any) -> dict[str, nn.Module]:
    """Return the linear layers of the blocks, or the adapters around them, by the untouched model's names."""
    return {name: module for name, module in _block_modules(model) if isinstance(module, (nn.Linear, BaseTunerLayer))}


def projector_name(model: Any) -> str:
    """Return the name of the module between the vision tower and the language model; empty where there is none."""
    root = decoder_blocks(model)[0]
    outside = [name for name, _ in model.named_modules() if not name.startswith(root)]
    return next((name for leaf in PROJECTORS for name in outside if name.rsplit(".", 1)[-1] == leaf), "")


def projector(model: Any) -> nn.Module | None:
    """Return the module between the vision tower and the language model, or None where the model has none."""
    name = projector_name(model)
    return cast(nn.Module, model.get_submodule(name)) if name else None


def vision_tower(model: Any) -> nn.Module | None:
    """Return the vision tower, or None where the model has none of its own."""
    tower = model.get_encoder(modality="image")
    return None if tower is model or tower is model.base_model else cast(nn.Module, tower)


def check_adaptable(model: Any) -> None:
    """Raise UserError where most of the blocks' weights are not in linear layers (a mixture of experts, say)."""
    total = sum(value.numel() for value in decoder_blocks(model)[1].parameters())
    linear = sum(cast(nn.Linear, layer).weight.numel() for layer in block_linears(model).values())
    if linear < _MOSTLY * total:
        raise UserError(
            f"{type(model).__name__}: only {linear / total:.0%} of its blocks' weights lie in linear layers, which are "
            "all that the methods here adapt"
        )


def _block_modules(model: Any) -> Iterator[tuple[str, nn.Module]]:
    root, blocks = decoder_blocks(model)
    for name, module in blocks.named_modules():
        if not _INSIDE_ADAPTER.search(name):
            yield f"{root}.{name}", module
