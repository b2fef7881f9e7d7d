"""What to do where memory is too small for a cell's training: the same batches, read in more parts."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from kore_bench.distributed import world
from kore_bench.launch import Launch

T = TypeVar("T")

MOST_PARTS = 16
"""Of a batch; memory that does not suffice for a sixteenth of it is the model's own need."""


def with_less(launch: Launch, batch_size: int, run: Callable[[Launch], T]) -> T:
    """Return ``run(launch)``, tried again in twice as many parts of a batch each time that it runs out of memory.

    The effective batch stays: losses and gradients add up over the parts. Processes that share a cell wait for each
    other, so that one alone cannot begin again: there, and where no smaller part is left, the error passes on.
    """
    while True:
        try:
            return run(launch)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            parts = 2 * launch.parts
            if not out_of_memory(error) or world() > 1 or parts > min(MOST_PARTS, batch_size):
                raise
        launch = replace(launch, parts=parts)
        gc.collect()  # the frames that held the tensors are gone with the error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory, of a GPU or of this machine, did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(
        error
    )  # of PyTorch's allocator on the CPU
