"""KORE-Constraint's mathematics on tensors alone: the null space of old inputs, its controls, and how good it is.

Notation: C ``[n, n]`` is the covariance of a layer's old inputs, U ``[n, r]`` orthonormal columns, A ``[r, n]`` the
frozen factor within them (`kore_bench.subspace`). Source: arXiv 2510.19316, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kore_bench.errors import UserError
from kore_bench.spectrum import EPS32, eigenpairs, nullity

EPS64 = torch.finfo(torch.float64).eps
_TINY_GAP = 1.001


@dataclass(frozen=True, kw_only=True)
class NullBasis:
    """The r directions of a layer's input in which old inputs have the least energy."""

    vectors: Tensor
    """Orthonormal columns ``[n, r]``, ascending in energy, float64."""
    values: Tensor
    """Their eigenvalues ``[r]``: the energy (sum of squares over the tokens) along each direction."""
    nullity: int
    """How many of all n eigenvalues cannot be told from zero."""
    gap: float
    """lambda_(r+1) / max(lambda_r, floor), floor = r eps64 lambda_max; infinite where r = n."""

    @property
    def rank(self) -> int:
        """Return r."""
        return self.vectors.shape[1]

    @property
    def remark(self) -> str:
        """Return what a record should say about the choice of directions; empty where nothing is to be said."""
        if self.nullity > self.rank:
            return (
                f"{self.nullity} directions carry no energy that rounding does not hide and {self.rank} are wanted: "
                "those with the smallest computed eigenvalues were taken, an arbitrary choice within that space"
            )
        if self.gap < _TINY_GAP:
            return (
                f"the eigenvalues on the two sides of rank {self.rank} are nearly equal (ratio {self.gap:.6f}): "
                "the last directions are not determined by the data"
            )
        return ""


def null_basis(covariance: Tensor, rank: int, *, eps: float = EPS32) -> NullBasis:
    """Return the eigenvectors of the ``rank`` smallest eigenvalues of ``covariance`` (paper: U_hat).

    ``covariance`` is symmetric ``[n, n]``, solved in fp64 where it lies. ``eps`` is the machine precision of the
    products that were summed into it (`Inputs.eps`); it decides what counts as zero. Raises UserError where the
    rank does not fit, ValueError where the matrix is no covariance.
    """
    _check_rank(rank, len(covariance))
    values, vectors = eigenpairs(covariance, rank)
    return cut(values, vectors, rank, eps=eps)


def cut(values: Tensor, vectors: Tensor, rank: int, *, eps: float = EPS32) -> NullBasis:
    """Return the basis from a solved spectrum: all eigenvalues ``[n]`` and at least ``rank`` bottom vectors ``[n, k]``.

    Raises UserError where the rank is beyond the vectors that were kept.
    """
    _check_rank(rank, vectors.shape[1])
    floor = _floor(values, rank)
    following = max(float(values[rank]), 0.0) if rank < len(values) else float("inf")
    return NullBasis(
        vectors=vectors[:, :rank].double(),
        values=values[:rank],
        nullity=nullity(values, eps),
        gap=following / max(float(values[rank - 1]), floor),
    )


def top_basis(covariance: Tensor, rank: int) -> Tensor:
    """Return the eigenvectors ``[n, rank]`` of the largest eigenvalues: the control that meets old inputs head on."""
    _check_rank(rank, len(covariance))
    return eigenpairs(covariance, rank, largest=True)[1]


def random_basis(n: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return ``rank`` orthonormal columns ``[n, rank]`` in float64, uniform over all subspaces: the other control."""
    _check_rank(rank, n)
    gaussian = torch.randn(n, rank, generator=generator, device=generator.device, dtype=torch.float64)
    orthonormal: Tensor = torch.linalg.qr(gaussian)[0]
    return orthonormal


def energy(A: Tensor, covariance: Tensor) -> float:
    """Return tr(A C A^T): the sum over tokens of ||A x||^2, which is what the frozen A lets through."""
    a = A.detach().double()
    return float((a @ covariance.to(a.device, torch.float64) * a).sum())


def scale_to_energy(A: Tensor, covariance: Tensor, target: float) -> float:
    """Return the factor f for which tr(fA C (fA)^T) = ``target``, so that a control learns from as much energy.

    ``covariance`` is of the new data's inputs. Raises ValueError where A lets nothing through or target is negative.
    """
    present = energy(A, covariance)
    if present <= 0 or target < 0:
        raise ValueError(f"an energy of {present:.3g} cannot be scaled to {target:.3g}")
    return float((target / present) ** 0.5)


def held_out_tail_share(A: Tensor, covariance: Tensor) -> float:
    """Return which share of the inputs' energy passes through A: r tr(A C A^T) / (||A||_F^2 tr C).

    For orthonormal rows (at any common norm) this is the share of the energy that lies in A's row space, from 0 to 1;
    a random A has r / n. On the calibration inputs it is optimistic; ``covariance`` should be of others.
    """
    a = A.detach().double()
    total = float(a.square().sum()) * float(covariance.diagonal().double().sum())
    return len(a) * energy(a, covariance) / total


def excess(covariance: Tensor, vectors: NullBasis | Tensor, values: Tensor | None = None) -> float:
    """Return how much more old energy a basis lets through than the best one of its rank; 1 is optimal.

    max(tr(U^T C U), floor) / max(sum of the k smallest eigenvalues, floor) with floor = k eps64 lambda_max and U an
    orthonormal basis of the span of ``vectors`` ``[n, r]``, found in fp64; k is the dimension of that span. For a
    factor as it is used, pass ``A.T`` as rounded to the training dtype: what is measured is its row space, whatever
    its rows' norms. ``values``: all eigenvalues of the covariance, ascending, where they are known already.
    """
    given = (vectors.vectors if isinstance(vectors, NullBasis) else vectors).detach().to(covariance.device).double()
    norms = given.norm(dim=0)
    columns, sizes, _ = torch.linalg.svd(given[:, norms > 0] / norms[norms > 0], full_matrices=False)
    columns = columns[:, sizes > len(given) * EPS64 * sizes.max()]
    k = columns.shape[1]
    values = eigenpairs(covariance, 1)[0] if values is None else values
    floor = _floor(values, k)
    return max(energy(columns.T, covariance), floor) / max(float(values[:k].sum()), floor)


def _floor(values: Tensor, rank: int) -> float:
    """Return what fp64 can resolve in a sum of ``rank`` eigenvalues; positive also for a covariance of zeros."""
    return max(rank * EPS64 * float(values[-1]), torch.finfo(torch.float64).tiny)


def _check_rank(rank: int, limit: int) -> None:
    if not isinstance(rank, int) or not 1 <= rank <= limit:
        nearest = min(max(rank, 1), limit) if isinstance(rank, int) else limit
        raise UserError(f"rank {rank} is out of range: choose a whole number from 1 to {limit} (nearest: {nearest})")
