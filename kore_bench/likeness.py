"""What tells covariances of one layer's inputs on several data sets apart: small pictures of them, and how alike they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PIXELS = 32
"""Rows and columns of a picture (paper, figures 4c, 8 and 9)."""


def shrunk(covariance: Tensor, pixels: int = PIXELS) -> Tensor:
    """Return ``[pixels, pixels]``: means of |C_ij| over equal parts, relative to the largest (narrower inputs stay as wide).

    Magnitudes, because entries of either sign would cancel in a mean. All zero for a covariance of zeros.
    """
    size = min(pixels, len(covariance))
    means = torch.nn.functional.adaptive_avg_pool2d(covariance.abs()[None], size)[0]
    return means / means.max().clamp(min=torch.finfo(means.dtype).tiny)


def cosines(covariances: Sequence[Tensor]) -> Tensor:
    """Return ``[s, s]``: <C_a, C_b> / (||C_a|| ||C_b||) in the Frobenius inner product, from 0 to 1.

    1 where two sets excite the same directions in the same proportions, 0 where the directions that they excite are
    orthogonal; a covariance of zeros is like no other.
    """
    norms = torch.stack([matrix.norm() for matrix in covariances])
    products = torch.stack([torch.stack([(one * other).sum() for other in covariances]) for one in covariances])
    return products / (norms[:, None] * norms).clamp(min=torch.finfo(norms.dtype).tiny)
