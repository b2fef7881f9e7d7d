"""The sizes of a model that memory and time depend on, read from its configuration alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from kore_bench.anatomy import block_linears, check_adaptable, decoder_blocks, projector, vision_tower
from kore_bench.card import ModelCard
from kore_bench.component import Layers
from kore_bench.source import read_config, skeleton

_AFTER_ATTENTION = ("o_proj", "out_proj", "dense", "wo")
_GUESSED_IMAGE_TOKENS = 576


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Counts are of parameters; ``hidden``, ``vocabulary`` and ``key_value`` are widths.

    ``language`` is the decoder with embeddings and head, ``head`` the head alone (counted where it is tied, too),
    ``vision`` the vision tower without the projector, which some classes put into it.
    ``layers`` are the linear layers of the blocks, ``inputs`` the widths of one block's distinct inputs, of which each
    has a covariance. ``image_tokens`` is what a picture takes in the language model, ``patches`` in the vision tower.
    """

    total: int
    language: int
    projector: int
    vision: int
    head: int
    blocks: int
    hidden: int
    vocabulary: int
    key_value: int
    layers: Layers
    inputs: tuple[int, ...]
    image_tokens: int
    patches: int

    @property
    def block_weights(self) -> int:
        """Return how many weights the linear layers of all blocks have."""
        return sum(out * width for out, width in self.layers.values())

    @property
    def block_widths(self) -> tuple[int, int]:
        """Return the sums of one block's linear layers' output and input widths."""
        outs, ins = zip(*self.layers.values(), strict=True)
        return sum(outs) // self.blocks, sum(ins) // self.blocks


def read_architecture(card: ModelCard) -> Architecture:
    """Return a model's sizes from its configuration; no weights are read. Raises UserError as `read_config` does."""
    config = read_config(card)
    model: Any = skeleton(card)
    check_adaptable(model)
    root, blocks = decoder_blocks(model)
    linears: dict[str, Any] = block_linears(model)
    layers = {name: (linear.out_features, linear.in_features) for name, linear in linears.items()}
    head, text = model.get_output_embeddings(), config.get_text_config()
    tokens, patches = _picture(card, config)
    joined = _own(projector(model))
    decoder = set(model.get_decoder().parameters()) | set(head.parameters())
    return Architecture(
        total=_count(model.parameters()), language=_count(decoder), projector=_count(joined),
        vision=_count(_own(vision_tower(model)) - joined), head=head.weight.numel(), blocks=len(blocks), hidden=text.hidden_size,
        vocabulary=text.vocab_size, key_value=_key_value(text), layers=layers, inputs=_distinct_inputs(layers, root),
        image_tokens=tokens, patches=patches,
    )  # fmt: skip


def _distinct_inputs(layers: Layers, root: str) -> tuple[int, ...]:
    """Return the widths of the first block's distinct inputs: layers side by side in a module share theirs."""
    groups: dict[tuple[str, int, str], int] = defaultdict(int)
    for name, (_, width) in layers.items():
        parent, leaf = name.rsplit(".", 1)
        if name.startswith(f"{root}.0."):
            groups[parent, width, leaf if leaf in _AFTER_ATTENTION else ""] = width
    return tuple(groups.values())


def _picture(card: ModelCard, config: Any) -> tuple[int, int]:
    """Return how many tokens a picture takes in the language model and in the vision tower.

    A tower of fixed size says so; one of any size is taken at the card's largest picture.
    """
    vision = getattr(config, "vision_config", None)
    patch, merge = getattr(vision, "patch_size", None), getattr(vision, "spatial_merge_size", None)
    if card.max_pixels and isinstance(patch, int):
        patches = card.max_pixels // patch**2
        return patches // (merge or 1) ** 2, patches
    size = getattr(vision, "image_size", None)
    if isinstance(size, int) and isinstance(patch, int):
        patches = (size // patch) ** 2
        given = getattr(config, "image_seq_length", None) or getattr(config, "mm_tokens_per_image", None)
        return int(given or patches), patches
    return _GUESSED_IMAGE_TOKENS, _GUESSED_IMAGE_TOKENS * (merge or 1) ** 2


def _key_value(text: Any) -> int:
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return int(width * (getattr(text, "num_key_value_heads", None) or heads))


def _own(module: nn.Module | None) -> set[nn.Parameter]:
    return set(module.parameters()) if module is not None else set()


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(value.numel() for value in parameters)
