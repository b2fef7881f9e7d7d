"""Programs that hear of a cell's training beside its log: TensorBoard and Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from transformers import TrainerCallback


@contextmanager
def reporters(names: Sequence[str], cell: Path, step: int) -> Iterator[list[TrainerCallback]]:
    """Yield the Trainer's callbacks that write training rows to ``names``, and close what they opened.

    What they leave on disk lies in the folder of the ``cell``. ``step`` is the one that training goes on after.
    """
    with ExitStack() as stack:
        callbacks = []
        if "tensorboard" in names:
            callbacks.append(_tensorboard(cell, step, stack))
        if "wandb" in names:
            callbacks.append(_wandb(cell, stack))
        yield callbacks


def _tensorboard(cell: Path, step: int, stack: ExitStack) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    # Rows after the checkpoint are written again: the earlier ones are to be dropped.
    writer = SummaryWriter(log_dir=str(cell / "tensorboard"), purge_step=step + 1 if step else None)
    stack.callback(writer.close)
    return TensorBoardCallback(writer)  # type: ignore[no-untyped-call]


def _wandb(cell: Path, stack: ExitStack) -> TrainerCallback:
    """Open a run of its own: the callback would go on with that of the process's cell before."""
    import wandb
    from transformers.integrations.integration_utils import WandbCallback

    cell.mkdir(parents=True, exist_ok=True)
    wandb.init(
        project=os.environ.get("WANDB_PROJECT", "kore-bench"), group=cell.parent.parent.name, name=cell.name, dir=cell
    )
    stack.callback(wandb.finish)
    return WandbCallback()  # type: ignore[no-untyped-call]
