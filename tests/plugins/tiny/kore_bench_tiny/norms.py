"""Sizes of what is trained."""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    import torch


def squared_norm(model: torch.nn.Module) -> torch.Tensor:
    """Return the sum of squares over the trained parameters."""
    squares = [value.square().sum() for value in model.parameters() if value.requires_grad]
    return typing.cast("torch.Tensor", sum(squares))
