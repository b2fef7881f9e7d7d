"""Which generators the methods of a run write with, and whether what they write with is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from kore_bench.errors import UserError

if TYPE_CHECKING:
    from kore_bench.registry import Composition, Registry


def check_chosen(registry: Registry, methods: Sequence[Composition]) -> None:
    """Raise UserError where a generator lacks its language model, or a language model its generator.

    Asks no endpoint and loads no model.
    """
    chosen, llm = _chosen(methods), registry.writing.llm
    asking = [name for name in chosen if registry.entry("generators", name).value.language_model]
    if asking and not llm:
        name = asking[0]
        raise UserError(f"{chosen[name]}.generator={name} needs a language model: give it by --llm NAME")
    if llm and not asking:
        raise UserError(
            f"--llm {llm}: no method writes with a language model: let one, such as by "
            "--set kore-augmentation.generator=openai"
        )
    for name in chosen:
        registry.find("generators", name)  # which checks its settings


def check_ready(registry: Registry, methods: Sequence[Composition]) -> None:
    """Raise UserError where what a generator writes with is not there, such as its endpoint."""
    for name in _chosen(methods):
        registry.find("generators", name).preflight()


def writing_key(registry: Registry, method: Composition) -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Return the part of a cell's key that its generators add beside their sources: nothing where none has settings."""
    keys = {name: registry.find("generators", name).key() for name in _chosen([method])}
    keys = {name: key for name, key in keys.items() if key}
    return {"generators": keys} if keys else {}


def _chosen(methods: Collection[Composition]) -> dict[str, str]:
    """Return the names of the generators, each with a component that writes with it."""
    parts = [part for method in methods for part in method.components]
    return {name: part.name for part in parts for kind, name in part.uses() if kind == "generators"}
