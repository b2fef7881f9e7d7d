"""The null space's mathematics: exactness against known spectra, factors, controls and measures of quality."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from kore_bench import spectrum
from kore_bench.errors import UserError
from kore_bench.methods.kore.null_space import (
    EPS64,
    cut,
    energy,
    excess,
    held_out_tail_share,
    null_basis,
    random_basis,
    scale_to_energy,
    top_basis,
)
from kore_bench.subspace import factors_within

N = 96


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def covariance_of(values: Tensor, seed: int = 0) -> Tensor:
    """Return a covariance with these eigenvalues, and random eigenvectors."""
    q = torch.linalg.qr(normal(len(values), len(values), seed=seed))[0]
    c: Tensor = (q * values) @ q.T
    return (c + c.T) / 2


def decaying(n: int = N, condition: float = 1e8) -> Tensor:
    return torch.logspace(0, -math.log10(condition), n, dtype=torch.float64)


def deficient(n: int = N, rank: int = N // 2, seed: int = 3) -> Tensor:
    x = normal(rank, n, seed=seed)
    return x.T @ x


# ---- eigenpairs


@pytest.mark.parametrize("n", [1, 2, 3, 40])
@pytest.mark.parametrize("largest", [False, True])
def test_eigenpairs_are_the_reference_solvers(n: int, largest: bool) -> None:
    matrix = covariance_of(torch.linspace(1, 2, n, dtype=torch.float64))
    count = (n + 1) // 2
    reference = torch.linalg.eigvalsh(matrix)
    values, vectors = spectrum.eigenpairs(matrix, count, largest=largest)
    torch.testing.assert_close(values, reference)
    chosen = reference[n - count :] if largest else reference[:count]
    torch.testing.assert_close(matrix @ vectors, vectors * chosen)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(count, dtype=torch.float64))


def test_a_failed_inverse_iteration_falls_back_to_the_full_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError

    matrix = covariance_of(decaying())
    expected = null_basis(matrix, 5)
    monkeypatch.setattr(scipy.linalg, "eigh_tridiagonal", fail)
    torch.testing.assert_close(null_basis(matrix, 5).values, expected.values)


def test_the_solver_leaves_its_argument_alone() -> None:
    matrix = covariance_of(decaying())
    before = matrix.clone()
    null_basis(matrix, 4)
    assert torch.equal(matrix, before)


# ---- null_basis


def test_basis_is_exact_at_condition_1e8() -> None:
    values = decaying(256)
    basis = null_basis(covariance_of(values), 32)
    assert basis.vectors.dtype == basis.values.dtype == torch.float64
    assert basis.vectors.shape == (256, 32)
    torch.testing.assert_close(basis.values, values.flip(0)[:32], rtol=1e-6, atol=0)
    torch.testing.assert_close(basis.vectors.T @ basis.vectors, torch.eye(32, dtype=torch.float64), atol=1e-13, rtol=0)
    assert excess(covariance_of(values), basis) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("condition", [1e4, 1e12])
@pytest.mark.parametrize("spread", [0.0, 1e-10, 1e-3])
def test_basis_is_exact_where_eigenvalues_cluster_at_the_cut(spread: float, condition: float) -> None:
    values = decaying(N, condition)
    values[N - 24 : N - 8] = values[N - 16] * (1 + spread * torch.linspace(-1, 1, 16, dtype=torch.float64))
    c = covariance_of(values)
    basis = null_basis(c, 16)
    assert excess(c, basis) == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(basis.vectors.T @ basis.vectors, torch.eye(16, dtype=torch.float64), atol=1e-12, rtol=0)


def test_a_matrix_symmetric_up_to_rounding_is_solved_as_the_symmetric_one() -> None:
    c = covariance_of(decaying())
    skewed = c + 1e-7 * normal(N, N).triu(1)
    values, vectors = spectrum.eigenpairs(skewed, 5)
    expected = torch.linalg.eigh((skewed + skewed.T) / 2)
    torch.testing.assert_close(values, expected[0], atol=1e-14, rtol=0)
    torch.testing.assert_close(
        (vectors.T @ expected[1][:, :5]).abs(), torch.eye(5, dtype=torch.float64), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("rank", [N // 4, N // 2, 3 * N // 4])
def test_basis_is_exact_where_the_covariance_is_deficient(rank: int) -> None:
    c = deficient()
    basis = null_basis(c, rank)
    assert basis.nullity == N // 2
    assert excess(c, basis) <= 1.01
    torch.testing.assert_close(
        basis.vectors.T @ basis.vectors, torch.eye(rank, dtype=torch.float64), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("make", [torch.zeros, torch.ones])
def test_degenerate_covariances_still_give_an_orthonormal_basis(make: type) -> None:
    basis = null_basis(make(N, N), 7)
    torch.testing.assert_close(basis.vectors.T @ basis.vectors, torch.eye(7, dtype=torch.float64))
    assert basis.nullity >= N - 1
    assert excess(make(N, N), basis) == 1


def test_dead_and_doubled_channels_are_null() -> None:
    x = normal(400, N)
    x[:, 10] = 0
    x[:, 20] = x[:, 21]
    basis = null_basis(x.T @ x, 2)
    assert basis.nullity == 2
    assert float((x @ basis.vectors).abs().max()) < 1e-12
    assert basis.gap > 1e10


def test_nullity_counts_by_the_given_precision() -> None:
    values = torch.ones(N, dtype=torch.float64)
    values[:5] = 1e-6  # under n eps32 = 1.1e-5, over eps32 itself and over n eps64
    assert null_basis(covariance_of(values), 8).nullity == 5
    assert null_basis(covariance_of(values), 8, eps=EPS64).nullity == 0


def test_gap_is_the_ratio_at_the_cut_over_the_floor() -> None:
    values = torch.cat([torch.full((4,), 0.25), torch.full((N - 4,), 1.0)]).double()
    assert null_basis(covariance_of(values), 4).gap == pytest.approx(4)
    assert null_basis(covariance_of(values), N).gap == math.inf
    c = deficient(rank=N - 6)
    values = torch.linalg.eigvalsh(c)
    assert null_basis(c, 6).gap == pytest.approx(float(values[6] / (6 * EPS64 * values[-1])), rel=1e-6)


def test_remark_says_when_the_choice_is_arbitrary() -> None:
    assert null_basis(covariance_of(decaying()), 8, eps=EPS64).remark == ""
    assert "48 directions" in null_basis(deficient(), 8).remark
    equal = torch.cat([torch.full((4,), 0.25), torch.full((N - 4,), 1.0)]).double()
    assert "nearly equal" in null_basis(covariance_of(equal), 2).remark
    assert null_basis(covariance_of(equal), 4).remark == ""


@pytest.mark.parametrize(("rank", "nearest"), [(0, 1), (-3, 1), (N + 1, N), (2.5, N)])
def test_a_rank_out_of_range_is_the_users_mistake(rank: int, nearest: int) -> None:
    with pytest.raises(UserError, match=rf"rank {rank} is out of range.* 1 to {N} \(nearest: {nearest}\)"):
        null_basis(torch.eye(N), rank)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(3, 4), "square"),
        (torch.ones(3), "square"),
        (torch.full((3, 3), torch.nan), "finite"),
        (torch.full((3, 3), torch.inf), "finite"),
        (torch.eye(3) * torch.nan, "finite"),
        (torch.ones(3, 3).triu(), "symmetric"),
        (-torch.eye(3), "negative"),
    ],
)
def test_what_is_no_covariance_is_refused(matrix: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        null_basis(matrix, 1)


def test_a_kept_spectrum_gives_the_same_basis() -> None:
    c = covariance_of(decaying())
    values, vectors = spectrum.eigenpairs(c, 20)
    direct, kept = null_basis(c, 12), cut(values, vectors, 12)
    torch.testing.assert_close(kept.vectors @ kept.vectors.T, direct.vectors @ direct.vectors.T)
    assert (kept.nullity, kept.rank) == (direct.nullity, direct.rank)
    assert kept.gap == pytest.approx(direct.gap)
    with pytest.raises(UserError, match="from 1 to 20"):
        cut(values, vectors, 21)


# ---- factors


@pytest.mark.parametrize("orthonormal", [False, True])
@pytest.mark.parametrize("m", [150, 40, 5])  # r = 12 is below and above the layer's outputs
def test_factors_are_the_weight_within_the_basis(m: int, orthonormal: bool) -> None:
    weight, basis = normal(m, N, seed=1), null_basis(covariance_of(decaying()), 12)
    a, b0 = factors_within(weight, basis.vectors, orthonormal=orthonormal)
    assert a.shape == (12, N)
    assert b0.shape == (m, 12)
    projector = basis.vectors @ basis.vectors.T
    torch.testing.assert_close(b0 @ a, weight @ projector)
    torch.testing.assert_close(a @ projector, a)  # A's rows lie in the basis
    gram = a @ a.T
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()))
    assert float(gram.diagonal().min()) > 0  # no row is dead
    assert excess(covariance_of(decaying()), a.T) == pytest.approx(1, abs=1e-6)


def test_the_papers_form_is_that_of_the_full_svd() -> None:
    weight, basis = normal(150, N, seed=1), null_basis(covariance_of(decaying()), 12)
    a, b0 = factors_within(weight, basis.vectors)
    u, s, vh = torch.linalg.svd(weight @ basis.vectors @ basis.vectors.T, full_matrices=False)
    signs = torch.sign((u[:, :12] * b0).sum(0))
    torch.testing.assert_close(a, s[:12].sqrt()[:, None] * vh[:12] * signs[:, None])
    torch.testing.assert_close(b0, u[:, :12] * s[:12].sqrt() * signs)


@pytest.mark.parametrize("m", [150, 5])
def test_orthonormal_rows_have_one_norm_and_the_papers_energy(m: int) -> None:
    weight, basis = normal(m, N, seed=1), null_basis(covariance_of(decaying()), 12)
    paper, _ = factors_within(weight, basis.vectors)
    a, _ = factors_within(weight, basis.vectors, orthonormal=True)
    torch.testing.assert_close(a.norm(), paper.norm())
    torch.testing.assert_close(a @ a.T, torch.eye(12, dtype=torch.float64) * (paper.norm() ** 2 / 12))


def test_factors_of_low_precision_weights_and_of_a_zero_weight_are_finite() -> None:
    basis = null_basis(covariance_of(decaying()), 4)
    weight = normal(20, N).bfloat16()
    a, b0 = factors_within(weight, basis.vectors)
    torch.testing.assert_close(b0 @ a, weight.double() @ basis.vectors @ basis.vectors.T)
    for factor in factors_within(torch.zeros(20, N), basis.vectors):
        assert torch.equal(factor, torch.zeros_like(factor))


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="do not share their input"):
        factors_within(torch.ones(4, 5), torch.ones(6, 2))


# ---- controls


def test_top_basis_is_the_other_end() -> None:
    values = decaying()
    top = top_basis(covariance_of(values), 6)
    torch.testing.assert_close(energy(top.T, covariance_of(values)), float(values[:6].sum()))
    with pytest.raises(UserError, match="rank 0"):
        top_basis(torch.eye(4), 0)


def test_random_basis_is_orthonormal_and_the_generators() -> None:
    basis = random_basis(N, 6, generator(5))
    torch.testing.assert_close(basis.T @ basis, torch.eye(6, dtype=torch.float64))
    assert torch.equal(basis, random_basis(N, 6, generator(5)))
    assert not torch.allclose(basis, random_basis(N, 6, generator(6)))


def test_energy_is_the_outputs_sum_of_squares() -> None:
    x, a = normal(300, N), normal(7, N, seed=1)
    assert energy(a.float(), x.T @ x) == pytest.approx(float((x @ a.T).square().sum()), rel=1e-6)


def test_a_scaled_control_has_the_target_energy() -> None:
    c, a = covariance_of(decaying()), normal(7, N, seed=1)
    assert energy(scale_to_energy(a, c, 3.5) * a, c) == pytest.approx(3.5)
    with pytest.raises(ValueError, match="cannot be scaled"):
        scale_to_energy(torch.zeros(7, N), c, 3.5)


# ---- quality


def test_tail_share_is_the_share_of_energy_in_the_row_space() -> None:
    values = decaying()
    c, basis = covariance_of(values), null_basis(covariance_of(values), 12)
    share = float(values.flip(0)[:12].sum() / values.sum())
    assert held_out_tail_share(basis.vectors.T, c) == pytest.approx(share)
    assert held_out_tail_share(7 * basis.vectors.T, 100 * c) == pytest.approx(share)
    assert held_out_tail_share(torch.eye(N), c) == pytest.approx(1)
    assert held_out_tail_share(normal(12, N), torch.eye(N)) == pytest.approx(12 / N)


def test_tail_share_is_optimistic_in_sample() -> None:
    x = normal(2 * N, N)
    a = null_basis(x[:N].T @ x[:N], 12).vectors.T
    assert held_out_tail_share(a, x[N:].T @ x[N:]) > 10 * held_out_tail_share(a, x[:N].T @ x[:N])


def test_excess_is_a_ratio_of_energies() -> None:
    values = decaying()
    c = covariance_of(values)
    best = float(values.flip(0)[:6].sum())
    assert excess(c, top_basis(c, 6)) == pytest.approx(float(values[:6].sum()) / best)
    assert excess(c, null_basis(c, 6), torch.linalg.eigvalsh(c)) == pytest.approx(1)


def test_excess_measures_the_row_space_whatever_the_rows() -> None:
    c, a = covariance_of(decaying()), normal(6, N)
    mixed = torch.diag(torch.logspace(-9, 9, 6, dtype=torch.float64)) @ torch.linalg.qr(normal(6, 6))[0] @ a
    assert excess(c, mixed.T) == pytest.approx(excess(c, a.T), rel=1e-6)
    padded = torch.cat([a, torch.zeros(2, N, dtype=torch.float64), a[:1]])  # spans the same six directions
    assert excess(c, padded.T) == pytest.approx(excess(c, a.T), rel=1e-6)


def test_excess_shows_what_rounding_does_to_a_factor() -> None:
    c = covariance_of(decaying(256))
    a, _ = factors_within(normal(256, 256, seed=1), null_basis(c, 8).vectors)
    assert excess(c, a.T.float()) == pytest.approx(1, abs=1e-4)
    assert excess(c, a.T.bfloat16()) > 2


def test_excess_has_a_floor() -> None:
    c = deficient()
    basis = null_basis(c, 8)
    assert excess(c, basis) == 1
    turned = basis.vectors + 1e-3 * normal(N, 8)
    values = torch.linalg.eigvalsh(c)
    q = torch.linalg.qr(turned)[0]
    assert excess(c, turned) == pytest.approx(energy(q.T, c) / float(8 * EPS64 * values[-1]), rel=1e-6)
