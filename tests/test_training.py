"""Training: penalties whatever the accumulation, the order of the data, the log, divergence."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kore_bench.component import Adapter, AdapterSpec, Budget, Component
from kore_bench.examples import Example, Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.lmm import IGNORED, LMM
from kore_bench.models.mini_llava import CARD
from kore_bench.registry import Registry
from kore_bench.runner import CellRun
from kore_bench.training import answer_loss, train

SETTINGS = replace(CARD.train, steps=3, batch_size=4, learning_rate=1e-3)


@dataclass(frozen=True, kw_only=True)
class Size(Component):
    """A penalty on the size of the trained factors."""

    name = "size"
    strength: float = 3.0

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Any) -> torch.Tensor:
        parts = [value.square().sum() for value in model.model.parameters() if value.requires_grad]
        return self.strength * torch.stack(parts).sum()


@dataclass(frozen=True, kw_only=True)
class Broken(Component):
    """A penalty that is no number."""

    name = "broken"

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Any) -> torch.Tensor:
        return outputs.logits.sum() * torch.nan  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Halt(Component):
    """Empties every gradient before the optimizer sees it."""

    name = "halt"

    def step(self, model: LMM, run: Any) -> None:
        for value in model.model.parameters():
            value.grad = None


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


def adapted(knowledge: Knowledge, seed: int = 0) -> tuple[LMM, CellRun]:
    torch.set_num_threads(1)
    model = LMM.load(CARD)
    run = CellRun(
        seed=seed, items=knowledge.items, calibration=(), held_out=(), base={}, train_projector=False,
        budget=Budget(steps=3, epochs=0, batch_size=4), spec=AdapterSpec(kind="lora", rank=4, alpha=8.0),
        embed=model.embed,
    )  # fmt: skip
    adapter = Registry().compose("lora").components[0]
    assert isinstance(adapter, Adapter)
    adapter.adapt(model, run)
    return model, run


def trained(
    knowledge: Knowledge, components: Sequence[Component], *, batch_size: int = 4, accumulation: int = 1, seed: int = 0
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    model, run = adapted(knowledge, seed)
    log = io.StringIO()
    examples: list[Example] = [item.example() for item in knowledge.items[:12]]
    settings = replace(SETTINGS, batch_size=batch_size, accumulation=accumulation)
    result = train(model, model.rows(examples), settings, components, run, log, lambda done, total: None)
    rows = [json.loads(line) for line in log.getvalue().splitlines()]
    assert result.steps == len(rows) == 3
    assert result.samples == 3 * batch_size * accumulation
    weights = {name: value.detach() for name, value in model.model.named_parameters() if value.requires_grad}
    return rows, weights


def test_a_penalty_does_not_depend_on_gradient_accumulation(knowledge: Knowledge) -> None:
    whole, weights = trained(knowledge, [Size()], batch_size=4)
    parts, same = trained(knowledge, [Size()], batch_size=1, accumulation=4)
    for one, other in zip(whole, parts, strict=True):
        assert one["penalty/size"] == pytest.approx(other["penalty/size"], rel=1e-4)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name in weights:
        assert torch.allclose(weights[name], same[name], atol=2e-5), name


def test_the_penalty_is_what_the_optimizer_sees(knowledge: Knowledge) -> None:
    _, free = trained(knowledge, [])
    _, held = trained(knowledge, [Size(strength=100.0)])
    size = {
        key: sum(float(value.square().sum()) for value in found.values())
        for key, found in (("free", free), ("held", held))
    }
    assert size["held"] < size["free"]


def test_step_acts_between_gradients_and_optimizer(knowledge: Knowledge) -> None:
    model, _ = adapted(knowledge)
    before = {name: value.detach().clone() for name, value in model.model.named_parameters() if value.requires_grad}
    _, after = trained(knowledge, [Halt()])
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_equal_seeds_give_equal_weights_and_other_seeds_another_order(knowledge: Knowledge) -> None:
    first, weights = trained(knowledge, [])
    second, same = trained(knowledge, [])
    other, _ = trained(knowledge, [], seed=1)
    assert first == second
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert [row["loss"] for row in first] != [row["loss"] for row in other]


def test_divergence_is_an_error_that_names_the_penalty_and_the_step(knowledge: Knowledge) -> None:
    with pytest.raises(FloatingPointError, match="penalty/broken is nan at step 1"):
        trained(knowledge, [Broken()])


def test_the_answer_loss_shifts_by_one_and_skips_the_rest() -> None:
    logits = torch.zeros(1, 3, 5)
    logits[0, 0, 2] = 50.0  # position 0 predicts token 2 at position 1
    labels = torch.tensor([[IGNORED, 2, IGNORED]])
    assert float(answer_loss(logits, labels)) == pytest.approx(0.0, abs=1e-5)
    assert float(answer_loss(logits, torch.tensor([[2, IGNORED, IGNORED]]))) == 0.0
    assert float(answer_loss(torch.zeros(1, 3, 5), labels)) == pytest.approx(1.6094, abs=1e-3)
