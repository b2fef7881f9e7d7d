"""How a run's cells are trained and watched: choices that no figure depends on, and so no cell's key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kore_bench.component import Adapter, Component
from kore_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from kore_bench.registry import Composition

STRATEGIES = ("ddp", "fsdp2")
REPORTERS = ("tensorboard", "wandb")
"""Programs that training rows can go to; each goes by the name of its Python package."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The processes of a cell, and who hears of its training.

    ``gpus_per_cell`` processes share a cell: each holds the whole model (``strategy`` ``ddp``), or while training a
    part of every parameter (``fsdp2``). ``report_to`` names the programs that training rows go to beside the log.
    ``parts`` is in how many parts a batch is read, one after the other, where memory was too small for the whole.
    """

    gpus_per_cell: int = 1
    strategy: str = "ddp"
    report_to: tuple[str, ...] = ()
    parts: int = 1

    @property
    def sharded(self) -> bool:
        """Return whether parameters are held in parts while training."""
        return self.strategy == "fsdp2" and self.gpus_per_cell > 1

    def check(self, methods: Sequence[Composition]) -> None:
        """Raise UserError for a name that is not known, a package that is not there, or a method that cannot shard."""
        if self.strategy not in STRATEGIES:
            raise UserError(f"--strategy {self.strategy} is not known: {nearest(self.strategy, STRATEGIES)}")
        for name in self.report_to:
            _check_reporter(name)
        if self.strategy == "fsdp2" and self.gpus_per_cell == 1:
            raise UserError("--strategy fsdp2 shards a cell over several GPUs: add --gpus-per-cell 2 or more")
        for method in methods if self.sharded else ():
            if whole := needs_whole(method):
                raise UserError(
                    f"{whole[0]} (in {method.name}) is not written for shards, which is all that --strategy fsdp2 "
                    "holds: use --strategy ddp, or leave the method out"
                )


ALONE = Launch()
"""One process a cell."""


def _check_reporter(name: str) -> None:
    """Raise UserError where rows cannot go to ``name``; a cell has nobody to ask for a key."""
    if name not in REPORTERS:
        raise UserError(f"--report-to {name} is not known: {nearest(name, REPORTERS)}")
    if find_spec(name) is None:
        raise UserError(f"--report-to {name} needs a package that is not installed: pip install {name}")
    if name == "wandb" and os.environ.get("WANDB_MODE") not in ("offline", "disabled"):
        import wandb

        if not wandb.login(prompt=False, verify=False):
            raise UserError("--report-to wandb finds no key: set WANDB_API_KEY, or WANDB_MODE=offline to send nothing")


def needs_whole(method: Composition) -> list[str]:
    """Return the names of a method's components that work on whole parameters only, so that it cannot be sharded."""
    return [part.name for part in method.components if _meets_shards(part) and not part.sharded]


def _meets_shards(part: Component) -> bool:
    kind = type(part)
    return isinstance(part, Adapter) or kind.penalty is not Component.penalty or kind.step is not Component.step
