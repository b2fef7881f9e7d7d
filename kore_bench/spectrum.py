"""Eigenvalues and eigenvectors of covariances, exact to fp64 rounding, and the part of them that is worth keeping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from kore_bench.statistics import Inputs

EPS32 = torch.finfo(torch.float32).eps
_SYMMETRY = 1e-5  # relative to the largest entry: what a product in fp32 may leave, and no more


def eigenpairs(matrix: Tensor, count: int, *, largest: bool = False) -> tuple[Tensor, Tensor]:
    """Return all eigenvalues ``[n]``, ascending, and the eigenvectors ``[n, count]`` of the smallest (largest) ones.

    ``matrix`` is symmetric ``[n, n]`` and positive semi-definite up to fp32 rounding; the work is done, and the
    result given, in fp64. On the CPU one tridiagonal reduction serves all eigenvalues (QR iteration) and the
    ``count`` vectors (bisection and inverse iteration); this takes a half to a third of the full solver's time. On a
    GPU the full solver is used where its memory is free, see `solver_memory`, and else the CPU's. Vectors are in
    ascending order of eigenvalue. Raises ValueError where the matrix is not a covariance.
    """
    covariance = _checked(matrix)
    n = len(covariance)
    if not 1 <= count <= n:
        raise ValueError(f"count must be from 1 to {n}, not {count}")
    first = n - count if largest else 0
    values, vectors = _on_gpu(covariance, first, count) if covariance.is_cuda else _on_cpu(covariance, first, count)
    if values[0] < -n * EPS32 * values[-1].abs():
        raise ValueError(f"a covariance has no negative eigenvalue, this matrix has {values[0]:.3g}")
    return values, vectors


def solver_memory(n: int, count: int, *, gpu: bool) -> int:
    """Return how many bytes `eigenpairs` needs beside its argument ``[n, n]``.

    A matrix that is symmetric only up to rounding is copied once. On a GPU cuSOLVER's divide and conquer (``syevd``)
    overwrites its matrix with all vectors and works in 2 n^2 more; on the CPU the reduction overwrites one copy, and
    the ``count`` vectors are held three times while the reduction is undone.
    """
    return 8 * (4 * n * n if gpu else 2 * n * n + 3 * n * count + 64 * n)


def nullity(values: Tensor, eps: float) -> int:
    """Return how many of all ``n`` eigenvalues cannot be told from zero: those up to ``n eps lambda_max``.

    ``eps`` is the machine precision of the products that were summed into the covariance.
    """
    return int((values <= len(values) * eps * values.max()).sum())


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """What is kept of one covariance: every eigenvalue, and the eigenvectors of the smallest ones."""

    names: tuple[str, ...]
    """The linear layers that share this input."""
    tokens: int
    """How many tokens were summed."""
    eps: float
    """Machine precision of the products in the sum."""
    values: Tensor
    """All eigenvalues ``[n]``, ascending, float64."""
    vectors: Tensor
    """Eigenvectors ``[n, k]`` of the k smallest eigenvalues, ascending, float64."""


def spectrum(inputs: Inputs, keep: int = 512) -> Spectrum:
    """Reduce one input's covariance to its spectrum with the bottom ``keep`` eigenvectors (fewer where n is).

    They lie on the CPU: those of all layers of a 7B model would take 3 GB of a GPU.
    """
    values, vectors = eigenpairs(inputs.covariance, min(keep, len(inputs.covariance)))
    return Spectrum(
        names=inputs.names, tokens=inputs.tokens, eps=inputs.eps, values=values.cpu(), vectors=vectors.cpu()
    )


def pack(spectra: Mapping[str, Spectrum]) -> dict[str, Tensor]:
    """Return spectra (linear layer -> spectrum) as flat tensors for safetensors; a shared one is packed once."""
    tensors: dict[str, Tensor] = {}
    for item in spectra.values():
        key = ",".join(item.names)
        tensors[f"{key}/values"], tensors[f"{key}/vectors"] = item.values, item.vectors
        tensors[f"{key}/tokens"] = torch.tensor(item.tokens)
        tensors[f"{key}/eps"] = torch.tensor(item.eps, dtype=torch.float64)
    return tensors


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Spectrum]:
    """Return what `pack` was given: linear layer -> spectrum, one object for layers that share their input."""
    spectra: dict[str, Spectrum] = {}
    for key in (name.removesuffix("/values") for name in tensors if name.endswith("/values")):
        names = tuple(key.split(","))
        item = Spectrum(
            names=names,
            tokens=int(tensors[f"{key}/tokens"]),
            eps=float(tensors[f"{key}/eps"]),
            values=tensors[f"{key}/values"],
            vectors=tensors[f"{key}/vectors"],
        )
        spectra |= dict.fromkeys(names, item)
    return spectra


def _checked(matrix: Tensor) -> Tensor:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"a covariance is a square matrix, not of shape {tuple(matrix.shape)}")
    covariance = matrix.detach().double()
    if torch.equal(covariance, covariance.T) and bool(covariance.sum().isfinite()):
        return covariance  # as `Gram` makes them; the general checks cost a tenth of the solver
    largest = max(abs(float(covariance.min())), abs(float(covariance.max())))
    if not np.isfinite(largest):
        raise ValueError("the covariance holds values that are not finite")
    difference = covariance - covariance.T
    if max(-float(difference.min()), float(difference.max())) > _SYMMETRY * largest:
        raise ValueError("a covariance is symmetric, this matrix is not")
    return torch.add(covariance, covariance.T, out=difference).div_(2)


def _on_gpu(matrix: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    try:
        return _full(matrix, first, count)
    except torch.OutOfMemoryError:  # beside a model and the block's other covariances
        torch.cuda.empty_cache()
    return _on_cpu(matrix.cpu(), first, count)


def _on_cpu(matrix: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    if len(matrix) < 3:
        return _full(matrix, first, count)
    try:
        return _subset(matrix, first, count)
    except np.linalg.LinAlgError:  # inverse iteration did not converge; divide and conquer always does
        return _full(matrix, first, count)


def _full(matrix: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors[:, first : first + count].clone()


def _subset(matrix: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Q T Q^T by Householder reflections, then all values and ``count`` vectors of the tridiagonal T, then Q times."""
    lapack = scipy.linalg.lapack
    # A symmetric matrix in C order is itself in Fortran order: its transpose needs no copy but this one to overwrite.
    work = matrix.clone().numpy().T
    size = int(lapack.dsytrd_lwork(len(work), lower=1)[0])
    work, diagonal, off, tau, _ = lapack.dsytrd(work, lower=1, lwork=size, overwrite_a=1)
    values = scipy.linalg.eigh_tridiagonal(diagonal, off, eigvals_only=True)
    chosen = (first, first + count - 1)
    _, vectors = scipy.linalg.eigh_tridiagonal(diagonal, off, select="i", select_range=chosen, lapack_driver="stebz")
    # LAPACK's own dormtr is dormqr on all rows but the first, where the reflectors lie under the diagonal.
    vectors[1:], _, _ = lapack.dormqr("L", "N", work[1:, :-1], tau, vectors[1:], 64 * count)
    return torch.from_numpy(values), torch.from_numpy(np.ascontiguousarray(vectors))
