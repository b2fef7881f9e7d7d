"""One cell on several processes: who this process is, and the few things that processes tell each other."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class PeerError(Exception):
    """Another process of the cell has failed at what all of them do together; its traceback is a note of this one."""


@dataclass(frozen=True)
class _Failure:
    """What a process that has failed tells the others in place of the value that they wait for."""

    sentence: str
    trace: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process's place among those that share a cell: ``rank`` of ``world``, and the GPUs that the cell may see.

    ``devices`` are indices into the GPUs of the machine (empty: leave what the environment says); ``port`` is where
    the processes meet on this machine.
    """

    rank: int = 0
    world: int = 1
    devices: tuple[int, ...] = ()
    port: int = 0

    def enter(self) -> None:
        """Take the place: called once, before anything touches a GPU. Blocks until all processes of the cell are up."""
        if self.devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, visible(self.devices)))
        if self.world == 1:
            return
        os.environ |= {
            "RANK": str(self.rank), "LOCAL_RANK": str(self.rank), "WORLD_SIZE": str(self.world),
            "LOCAL_WORLD_SIZE": str(self.world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port),
        }  # fmt: skip
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())  # joins the process group and takes this rank's GPU


def visible(devices: Sequence[int]) -> list[str]:
    """Return the names of GPUs for CUDA_VISIBLE_DEVICES, counted among those that the variable shows already."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in given.split(",") if name.strip()]
    return [names[index] if names else str(index) for index in devices]


def free_port() -> int:
    """Return a port of this machine that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rank() -> int:
    """Return this process's number among those of its cell; 0 writes what the cell leaves."""
    return _group().get_rank() if _together() else 0


def world() -> int:
    """Return how many processes run this cell together."""
    return _group().get_world_size() if _together() else 1


def first() -> bool:
    """Return whether this process writes what the cell leaves."""
    return rank() == 0


def wait_for_all() -> None:
    """Wait until every process of the cell is here; raises PeerError as `everyone` does."""
    everyone(None)


def everyone(value: T) -> list[T]:
    """Return every process's ``value``, by rank; each process must call it.

    Raises PeerError where another process has failed meanwhile (see `attempt`) and gives none.
    """
    gathered = _gathered(value)
    for number, other in enumerate(gathered):
        if isinstance(other, _Failure):
            error = PeerError(f"in process {number} of the cell: {other.sentence}")
            error.add_note(other.trace)
            raise error
    return gathered


def attempt(work: Callable[[], T], sentence: Callable[[Exception], str] = repr) -> T | Exception:
    """Return what ``work`` gives, or the error that ended it: an error in all processes of the cell where one had any.

    Each process must call it, and all go on together afterwards. A process that fails tells the others, who hear of it
    where they next exchange something, at the latest when they are done, and give their ``work`` up: so nobody waits
    for a process that is not coming. Within ``work`` they must meet through this module alone. ``sentence`` says to
    the others what an error was. Raises what the exchange raises where a process of the cell is gone.
    """
    try:
        value = work()
    except PeerError as error:  # that process has told all
        return error
    except Exception as error:  # noqa: BLE001 (whatever it was, the others must hear of it)
        _gathered(_Failure(sentence(error), "".join(traceback.format_exception(error))))
        return error
    try:
        wait_for_all()
    except PeerError as error:
        return error
    return value


def _gathered(value: Any) -> list[Any]:
    if not _together():
        return [value]
    gathered: list[Any] = [None] * world()
    _group().all_gather_object(gathered, value)
    return gathered


def the_first(value: T) -> T:
    """Return the first process's ``value``; each process must call it."""
    return everyone(value)[0]


def summed(values: Mapping[str, float]) -> dict[str, float]:
    """Return every name's sum over the processes, which must all have the same names."""
    parts = everyone(dict(values))
    return {name: sum(part[name] for part in parts) for name in values}


def whole(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor as it is, or gathered where the processes hold shards of it; each process must call it."""
    full: torch.Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return full


def _together() -> bool:
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _group() -> Any:
    import torch.distributed

    return torch.distributed
