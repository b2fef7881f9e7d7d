"""The part of a weight that lies in a subspace of its input, as the two factors that a low-rank adapter starts from."""

from __future__ import annotations

import torch
from torch import Tensor


def factors_within(weight: Tensor, basis: Tensor, *, orthonormal: bool = False) -> tuple[Tensor, Tensor]:
    """Return A ``[r, n]`` and B ``[m, r]`` in float64 with B A = W U U^T: ``weight`` W ``[m, n]``, ``basis`` U ``[n, r]``.

    U has orthonormal columns. With W U = P S Q^T (thin, m x r: the n x n projector is never formed) the published form
    is A = S^(1/2) Q^T U^T and B = P S^(1/2): the factors of the SVD of W U U^T (KORE, arXiv 2510.19316, section 3.3;
    LoRA-Null, arXiv 2503.02659). A frozen A's row norms are only a learning rate for each direction; ``orthonormal``
    gives all rows one norm instead, with the same total ||A||_F, and B = P S scaled to match.

    Where r > m the weight has no more than m singular values, so the published form's other r - m rows would be zero
    and the matching columns of B could never learn. Here they hold the basis's remaining directions, with the norm of
    the smallest singular direction; their columns of B are zero, so that B A stays what it was. Raises ValueError where
    the shapes do not match.
    """
    if weight.ndim != 2 or basis.ndim != 2 or weight.shape[1] != basis.shape[0]:
        raise ValueError(f"weight {tuple(weight.shape)} and basis {tuple(basis.shape)} do not share their input")
    vectors = basis.to(weight.device, torch.float64)
    m, r = len(weight), vectors.shape[1]
    left, singular, right = torch.linalg.svd(weight.detach().double() @ vectors, full_matrices=r > m)
    norms = torch.cat([singular, singular[-1:].expand(max(r - m, 0))]).sqrt()
    if orthonormal:
        norms = norms.square().mean().sqrt().expand(r)
    b = weight.new_zeros(m, r, dtype=torch.float64)
    # Divide the singular values rather than take their roots, so that B A is exact for either choice of norms.
    b[:, : len(singular)] = left * (singular / norms[: len(singular)]).nan_to_num(nan=0.0)
    return norms[:, None] * (vectors @ right.T).T, b
