"""Contrasts named beforehand: which comparisons a run was made for, kept in its plan; every other one is exploratory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from kore_bench.errors import UserError, nearest

if TYPE_CHECKING:  # the command line names the contrasts before anything is loaded
    from kore_bench.results import RunFolder

Contrast = tuple[str, str]
"""(one method, another): the first minus the second."""

DEFAULT_CONTRASTS = ("kore/lora", "kore-null/lora", "kore-null/frozen-random", "kore/ewc", "kore-augmentation/lora")
"""The paper's claims (KORE and its two parts against LoRA, KORE against EWC) and the null space against its control."""

NONE = "none"


def contrast(text: str) -> Contrast:
    """Return the contrast that ``kore/lora`` names; raises UserError on another form."""
    one, slash, other = (part.strip() for part in text.partition("/"))
    if not (one and slash and other) or "/" in other or one == other:
        raise UserError(f"--contrasts {text} must name two methods with a slash between, such as kore/lora")
    return one, other


def check_contrasts(texts: Sequence[str], methods: Collection[str]) -> None:
    """Raise UserError for a contrast of another form, named twice, or of a method that is not among ``methods``.

    The default ones may name methods that a run lacks: they are then no part of it.
    """
    found = [contrast(text) for text in texts]
    for pair in found:
        if sum(set(pair) == set(other) for other in found) > 1:
            raise UserError(f"--contrasts names {'/'.join(pair)} twice")
    for name in (name for pair in found for name in pair) if tuple(texts) != DEFAULT_CONTRASTS else ():
        if name not in methods:
            raise UserError(f"--contrasts: {name!r} is no method of this run: {nearest(name, methods)}")


def named_beforehand(run: RunFolder, methods: Collection[str]) -> list[Contrast]:
    """Return the contrasts that the run's plan names between ``methods``; none where it was made without any."""
    texts = (run.plan().get("request") or {}).get("contrasts") or ()
    return [pair for text in texts if set(pair := contrast(str(text))) <= set(methods)]
