"""Training in shards (FSDP2): while a cell trains, each of its processes holds a part of every parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Placement, distribute_tensor

from kore_bench.distributed import first, whole, world

if TYPE_CHECKING:
    from kore_bench.lmm import LMM

_MARKS = ("_is_fsdp_managed_module", "_fsdp_use_orig_params")


@contextmanager
def in_shards(model: LMM) -> Iterator[None]:
    """Hold every parameter in shards inside, and whole again afterwards: the same parameters, with their new values.

    The language model's blocks are gathered one at a time, everything else at once. Inside, parameters and gradients
    are DTensors, and a plain tensor that meets one (an anchor, a Fisher matrix) counts as the same on every process.
    After an error nothing is gathered, for the other processes may never come.
    """
    from torch.distributed.tensor.experimental import implicit_replication  # takes long to import

    root = model.model
    wrapped = {module: type(module) for module in (*model.blocks(), root)}
    places = [
        (module, name, value) for module in root.modules() for name, value in module.named_parameters(recurse=False)
    ]
    assert not any(value._backward_hooks for value in root.parameters()), "shards would lose a parameter's hooks"
    mesh = init_device_mesh(model.device.type, (world(),))
    for module in wrapped:
        held = [value for value in module.parameters() if not isinstance(value, DTensor)]
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        for value in held:
            value.data = value.data.new_empty(0)
    for value in root.parameters():
        assert isinstance(value, DTensor), "FSDP2 left a parameter whole"
        if value.requires_grad:
            value.register_hook(partial(_as_placed, value.placements))  # type: ignore[no-untyped-call]
    with implicit_replication():
        yield
    for module in wrapped:
        module.reshard()
    for module, name, value in places:
        if not value.numel():
            value.data = _taken(getattr(module, name))
        setattr(module, name, value)
    for module, kind in wrapped.items():
        _release(module, kind)
    for module in root.modules():
        for mark in _MARKS:
            module.__dict__.pop(mark, None)


def _as_placed(placements: Sequence[Placement], gradient: torch.Tensor) -> torch.Tensor:
    """Return a penalty's gradient in the shards of its parameter: operations between DTensors choose their own."""
    assert isinstance(gradient, DTensor)
    return gradient.redistribute(placements=placements)


def _taken(shard: DTensor) -> torch.Tensor:
    """Return the whole of a parameter, and free what this process held of it."""
    value = whole(shard.detach())
    shard.to_local().untyped_storage().resize_(0)
    return value


def _release(module: nn.Module, kind: type[nn.Module]) -> None:
    """Take FSDP's hooks off a module, for which PyTorch has no function."""
    state = fully_shard.state(module)  # type: ignore[attr-defined]
    state._pre_forward_hook_handle.remove()
    state._post_forward_hook_handle.remove()
    module.__class__ = kind


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's state with every tensor whole and on the CPU.

    Each process of the cell must call it; those that are not the first get no tensors.
    """
    state = optimizer.state_dict()
    slots = {
        index: {name: _on_cpu(value) if isinstance(value, torch.Tensor) else value for name, value in slot.items()}
        for index, slot in state["state"].items()
    }
    return {**state, "state": slots}


def _on_cpu(value: torch.Tensor) -> torch.Tensor | None:
    gathered = whole(value)
    return gathered.cpu() if first() else None


def load_whole_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put back what `whole_state` returned, in shards where the parameters are."""
    parameters = [value for group in optimizer.param_groups for value in group["params"]]  # as the state counts them
    slots = {
        index: {name: _shared_like(value, parameters[index]) for name, value in slot.items()}
        for index, slot in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": slots})


def _shared_like(value: Any, parameter: torch.Tensor) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
