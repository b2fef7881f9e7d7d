"""Frontiers: the scaled change by hand, points that are kept, and retention at equal adaptation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from kore_bench.component import Defaults, fold
from kore_bench.conformance.prepared import mini_card
from kore_bench.errors import UserError
from kore_bench.frontier import change_of, frontier_session, scaled
from kore_bench.lmm import LMM
from kore_bench.measures import hars, hars_exchange
from kore_bench.registry import Registry
from kore_bench.reports.frontier_table import Point, retention_at

LAYER = "model.language_model.layers.2.mlp.down_proj"


@pytest.fixture
def model() -> LMM:
    torch.set_num_threads(1)
    return LMM.load(mini_card())


def trained_lora(folder: Path) -> torch.Tensor:
    """Save a LoRA adapter with factors that are not zero, and return what it adds to one layer."""
    model = LMM.load(mini_card())
    layers = {name: (linear.out_features, linear.in_features) for name, linear in model.linears().items()}
    model.insert_lora(fold(Registry().compose("lora").components, layers, Defaults(rank=4)), projector=False)
    for name in model.lora_layers():
        with torch.no_grad():
            model.factors(name)[1].normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    model.save(folder)
    a, b = model.factors(LAYER)
    product: torch.Tensor = model.lora_layers()[LAYER].scaling["default"] * b @ a
    return product.detach()


def test_half_of_an_adapter_is_half_of_its_product_and_the_base_comes_back(model: LMM, tmp_path: Path) -> None:
    product = trained_lora(tmp_path)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    change = change_of(model, tmp_path)
    assert len(change) == len(model.linears())
    weight = model.linears()[LAYER].weight
    with scaled(model, change, 0.5):
        torch.testing.assert_close(weight.detach(), before[f"{LAYER}.weight"] + 0.5 * product, atol=1e-6, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


def test_half_of_full_fine_tuning_lies_midway(model: LMM, tmp_path: Path) -> None:
    other = LMM.load(mini_card())
    other.unfreeze(projector=False)
    with torch.no_grad():
        for value in other.model.parameters():
            if value.requires_grad:
                value.add_(0.25)
    other.save(tmp_path)
    weight = model.linears()[LAYER].weight
    before = weight.detach().clone()
    with scaled(model, change_of(model, tmp_path), 0.5):
        torch.testing.assert_close(weight.detach(), before + 0.125)
    assert torch.equal(weight, before)


def test_retention_is_read_off_the_best_part_of_the_curve() -> None:
    points = [Point(0, 0, 90), Point(0.5, 20, 80), Point(1, 60, 40)]
    assert retention_at(points, 10) == 85
    assert retention_at(points, 20) == 80
    assert retention_at(points, 40) == 60
    assert retention_at(points, 61) is None
    turning = [Point(0, 0, 90), Point(0.5, 60, 80), Point(1, 40, 30)]
    assert retention_at(turning, 50) == pytest.approx(90 - 10 * 50 / 60)


def test_the_exchange_rate_of_hars_is_the_ratio_of_its_slopes() -> None:
    at, step = (35.96, 40.0, 7.12, 46.74), 1e-5
    here = hars(*at)
    more_a, more_r = hars(at[0] + step, *at[1:]), hars(at[0], at[1] + step, *at[2:])
    assert here
    assert more_a
    assert more_r
    assert hars_exchange(*at) == pytest.approx((more_r - here) / (more_a - here), rel=1e-3)
    assert hars_exchange(5, 40, 7.12, 46.74) is None


@pytest.mark.parametrize("scale", [0.0, 1.0, -0.5, 1.5])
def test_scales_lie_between_the_base_and_the_cell(scale: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--scales"):
        frontier_session(tmp_path, (), (scale,), Console())


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        frontier_session(tmp_path / "none", (), (0.5,), Console())
