"""Checkpoints of a cell's training: what was trained, what the components remember, and which one is whole."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kore_bench.cache import file_digest
from kore_bench.distributed import first, whole
from kore_bench.results import write_text

PREFIX = "checkpoint-"
_TRAINED = "trained.safetensors"
_STATES = "states.safetensors"
_TREE = "states.json"
_SEAL = "seal.json"
_SHARE = 20  # saving takes at most a twentieth of the time


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is: the cell's ``key``, optimizer steps, samples, tokens, the last loss, and wall seconds.

    ``finished`` says that no step is left; such a checkpoint holds no optimizer.
    """

    key: str
    step: int
    samples: int
    tokens: int
    loss: float
    seconds: float
    finished: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are all there, byte by byte."""

    folder: Path
    progress: Progress


def newest(folder: Path, key: str) -> Checkpoint | None:
    """Return the latest whole checkpoint below ``folder`` of the cell with ``key``; damaged ones are passed over."""
    found = sorted(folder.glob(f"{PREFIX}*"), key=lambda path: int(path.name.removeprefix(PREFIX)), reverse=True)
    for candidate in found:
        progress = _unseal(candidate)
        if progress is not None and progress.key == key:
            return Checkpoint(candidate, progress)
    return None


def seal(folder: Path, progress: Progress) -> None:
    """Mark a checkpoint as whole: its seal names every file with its SHA-256. Older checkpoints beside it go."""
    files = {file.name: file_digest(file) for file in sorted(folder.iterdir()) if file.name != _SEAL}
    write_text(folder / _SEAL, json.dumps({"progress": asdict(progress), "files": files}, indent=1) + "\n")
    for other in folder.parent.glob(f"{PREFIX}*"):
        if other != folder:
            shutil.rmtree(other)


def save_trained(folder: Path, model: nn.Module, states: Mapping[str, Any]) -> None:
    """Write the parameters that are trained, and what the components remember (``CellRun.states``).

    Each process of the cell must call it; the first one writes.
    """
    trained: dict[str, torch.Tensor] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            full = whole(value.detach())
            if first():
                trained[name] = _own(full)
    if not first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file(trained, folder / _TRAINED)
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(states, "", tensors)
    save_file(tensors, folder / _STATES)
    write_text(folder / _TREE, json.dumps(tree) + "\n")


@torch.no_grad()
def load_trained(folder: Path, model: nn.Module, states: dict[str, Any]) -> None:
    """Put back what `save_trained` wrote: parameters into ``model`` in place, ``states`` replaced whole.

    Raises KeyError where ``model`` trains a parameter that the checkpoint does not hold.
    """
    trained = load_file(folder / _TRAINED)
    for name, value in model.named_parameters():
        if value.requires_grad:
            value.copy_(trained[name])
    tree = json.loads((folder / _TREE).read_text(encoding="utf-8"))
    states.clear()
    states.update(_unpack(tree, load_file(folder / _STATES)))


class Due:
    """Says when a checkpoint is due: ``interval`` seconds after the last one, later where saving takes long."""

    def __init__(self, interval: float) -> None:
        self.interval, self.cost, self.last = interval, 0.0, time.monotonic()

    def __call__(self) -> bool:
        """Return whether the next checkpoint is due."""
        return time.monotonic() - self.last >= max(self.interval, _SHARE * self.cost)

    def saved(self, seconds: float) -> None:
        """Note that a checkpoint was written just now, in ``seconds``."""
        self.cost, self.last = seconds, time.monotonic()


def _pack(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return ``value`` as JSON, its tensors moved to ``tensors`` and named by their path."""
    if isinstance(value, torch.Tensor):
        tensors[path] = _own(value)
        return {"tensor": path, "device": str(value.device)}
    if isinstance(value, Mapping):
        return {"map": [[name, _pack(part, f"{path}/{name}", tensors)] for name, part in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_pack(part, f"{path}/{index}", tensors) for index, part in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(
        f"a component remembers a {type(value).__name__} ({path[1:]}): only tensors and plain values are kept"
    )


def _unpack(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    match tree:
        case {"tensor": path, "device": device}:
            # In memory of its own: products round otherwise where a tensor begins off the file's alignment.
            return tensors[path].clone().to(device)
        case {"map": pairs}:
            return {name: _unpack(part, tensors) for name, part in pairs}
        case {"list": parts}:
            return [_unpack(part, tensors) for part in parts]
        case {"value": value}:
            return value
    raise ValueError(f"not a component's state: {tree!r}")


def _own(value: torch.Tensor) -> torch.Tensor:
    """Return a copy on the CPU that shares no memory with another tensor, as safetensors wants it."""
    return value.detach().cpu().clone().contiguous()


def _unseal(folder: Path) -> Progress | None:
    try:
        mark = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        whole = all(file_digest(folder / name) == digest for name, digest in mark["files"].items())
        return Progress(**mark["progress"]) if whole else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
