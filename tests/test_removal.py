"""Components by SVD, ASVD and CO-SVD against the definitions written out, and the likeness of covariances by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kore_bench.likeness import cosines, shrunk
from kore_bench.removal import ASVD_POWER, decompose, least_directions, mean_magnitudes, output_change, without
from kore_bench.statistics import Inputs

SHAPES = [(24, 40), (40, 24), (32, 32)]


def problem(m: int, n: int, tokens: int = 200) -> tuple[Tensor, Tensor]:
    """Return a weight ``[m, n]`` and inputs ``[n, tokens]`` whose channels differ much in size and are correlated."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(n, n, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, n, dtype=torch.float64)
    inputs = mix @ torch.randn(n, tokens, generator=generator, dtype=torch.float64)
    return torch.randn(m, n, generator=generator, dtype=torch.float64), inputs


def written_out(weight: Tensor, scale: Tensor, r: int) -> Tensor:
    """Return U Sigma V^T S^-1 without its r smallest components, as the papers have it."""
    left, singular, right = torch.linalg.svd(weight @ scale, full_matrices=False)
    kept = len(singular) - r
    remaining: Tensor = (left[:, :kept] * singular[:kept]) @ right[:kept] @ torch.linalg.inv(scale)
    return remaining


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("r", [1, 7, 24])
def test_all_three_are_the_written_out_decompositions(shape: tuple[int, int], r: int) -> None:
    weight, x = problem(*shape)
    covariance, magnitude = x @ x.T, x.abs().mean(dim=1)
    found = decompose(weight, Inputs(names=("w",), covariance=covariance, tokens=200, eps=1e-16), magnitude, r)
    scales = {
        "svd": torch.eye(shape[1], dtype=torch.float64), "asvd": (magnitude**ASVD_POWER).diag(), "co-svd": covariance,
    }  # fmt: skip
    for name, scale in scales.items():
        torch.testing.assert_close(without(weight, found[name]), written_out(weight, scale, r), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_no_component_the_weight_is_what_it_was(dtype: torch.dtype) -> None:
    weight = problem(24, 40)[0].to(dtype)
    assert torch.equal(without(weight, least_directions(weight, None, 0)), weight)
    everything = without(weight.double(), least_directions(weight, None, 24))
    assert float(everything.abs().max()) < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_co_svd_changes_old_outputs_less_than_plain_svd_and_asvd(shape: tuple[int, int]) -> None:
    weight, x = problem(*shape)
    inputs = Inputs(names=("w",), covariance=x @ x.T, tokens=200, eps=1e-16)
    found = decompose(weight, inputs, x.abs().mean(dim=1), 12)
    lost = {name: float(((weight - without(weight, found[name])) @ x).norm()) for name in ("svd", "asvd", "co-svd")}
    assert lost["co-svd"] < 0.5 * lost["svd"]
    assert lost["co-svd"] < lost["asvd"]


def test_the_output_change_is_that_of_the_outputs() -> None:
    weight, x = problem(24, 40)
    left = least_directions(weight, None, 9)
    expected = [float(((weight - without(weight, left[:, :r])) @ x).norm() / (weight @ x).norm()) for r in range(1, 10)]
    torch.testing.assert_close(output_change(weight, left, x @ x.T), torch.tensor(expected, dtype=torch.float64))


def test_a_singular_covariance_needs_no_inverse() -> None:
    weight, x = problem(24, 40, tokens=10)
    lost = (weight - without(weight, least_directions(weight, x @ x.T, 14))) @ x
    assert float(lost.norm()) < 1e-9 * float((weight @ x).norm())  # ten tokens have ten directions of outputs


def test_a_weight_has_no_more_components_than_its_smaller_side() -> None:
    with pytest.raises(ValueError, match="24 components, not 25"):
        least_directions(problem(24, 40)[0], None, 25)


class Masked(nn.Module):
    """A model of one layer, called as the real ones are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Tensor:
        """Return the layer's outputs on inputs made of the ids."""
        out: Tensor = self.layer(torch.stack([input_ids, -2 * input_ids, 0 * input_ids], dim=-1).float())
        return out


def test_mean_magnitudes_leave_padding_out() -> None:
    model = Masked()
    batches = [
        {"input_ids": torch.tensor([[1, 3, 99]]), "attention_mask": torch.tensor([[1, 1, 0]])},
        {"input_ids": torch.tensor([[5]]), "attention_mask": torch.tensor([[1]])},
    ]
    found = mean_magnitudes(model, {"layer": model.layer}, batches)
    assert found["layer"].tolist() == [3.0, 6.0, 0.0]
    assert not model.layer._forward_pre_hooks


def test_cosines_by_hand() -> None:
    one, other = torch.tensor([[2.0, 0], [0, 0]]), torch.tensor([[1.0, 1], [1, 1]])
    away = torch.tensor([[0.0, 0], [0, 7]])
    found = cosines([one, other, away])
    assert found.diagonal().tolist() == pytest.approx([1, 1, 1])
    assert found[0].tolist() == pytest.approx([1, 0.5, 0])
    assert torch.equal(found, found.T)
    assert cosines([one, 3 * one])[0, 1] == pytest.approx(1)
    assert cosines([one, torch.zeros(2, 2)])[0, 1] == 0


def test_shrunk_averages_magnitudes_over_tiles() -> None:
    matrix = torch.zeros(64, 64, dtype=torch.float64)
    matrix[0, 1], matrix[1, 0], matrix[63, 63] = -4, -4, 2
    small = shrunk(matrix)
    assert small.shape == (32, 32)
    assert small[0, 0] == 1
    assert small[31, 31] == 0.25
    assert float(small.sum()) == 1.25
    assert shrunk(torch.eye(5)).shape == (5, 5)
    assert float(shrunk(torch.zeros(40, 40)).sum()) == 0
    assert shrunk(torch.ones(100, 100)).shape == (32, 32)
