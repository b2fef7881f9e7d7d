"""SEFE: the styles of the data, their answers, and RegLoRA by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kore_bench.component import Defaults, fold
from kore_bench.conformance.prepared import Prepared, mini_card
from kore_bench.errors import UserError
from kore_bench.examples import Example, Knowledge
from kore_bench.formats import read_knowledge
from kore_bench.generators.template import GENERATOR
from kore_bench.lmm import layer_shapes
from kore_bench.registry import Registry

Prepare = Callable[..., Prepared]


class DataRun:
    """As much of a run as the `data` hook reads."""

    def __init__(self, knowledge: Knowledge, seed: int = 0) -> None:
        self.items, self.seed = knowledge.items, seed
        self.logged: dict[str, Any] = {}

    def rng(self, component: object) -> random.Random:
        return random.Random(self.seed)

    def find(self, kind: str, name: str) -> Any:
        assert (kind, name) == ("generators", "template")
        return GENERATOR

    def log(self, name: str, value: Any) -> None:
        self.logged[name] = value


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


def diversified(knowledge: Knowledge, share: str, seed: int = 0) -> tuple[list[Example], DataRun]:
    run: Any = DataRun(knowledge, seed)
    sefe = Registry().compose("sefe", {"sefe.share": share}).components[1]
    return sefe.data([item.example() for item in run.items], run), run


def test_a_fifth_is_brought_to_four_styles_in_equal_parts(knowledge: Knowledge) -> None:
    examples, run = diversified(knowledge, "0.2")
    plain = [item.example() for item in knowledge.items]
    assert len(examples) == len(plain)
    changed = [example for example in examples if example.source != "injection"]
    assert len(changed) == round(0.2 * len(plain))
    counts = Counter(example.source for example in changed)
    assert set(counts) == {"sefe/yes-no", "sefe/multiple-choice", "sefe/short-answer", "sefe/brief"}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert run.logged == dict(counts)
    for before, after in zip(plain, examples, strict=True):
        assert after == before or (after.id.startswith(f"{before.id}/") and after.images == before.images)
    assert diversified(knowledge, "0.2")[0] == examples
    assert diversified(knowledge, "0.2", seed=1)[0] != examples
    assert diversified(knowledge, "0")[0] == plain


def test_answers_are_right_and_distractors_wrong(knowledge: Knowledge) -> None:
    examples, _ = diversified(knowledge, "1")
    facts = {item.id: {fact.value for fact in item.facts} for item in knowledge.items}
    verdicts: Counter[str] = Counter()
    for example in examples:
        item, style = example.id.rsplit("/", 1)
        (turn,) = example.turns
        text, instruction = turn.question.rsplit("\n", 1)
        assert instruction.startswith("Answer")
        asked = {fact.value for one in knowledge.items if one.id == item for fact in one.facts
                 if text.split("\n")[0].startswith(tuple(fact.questions))}  # fmt: skip
        if style == "short-answer":
            assert asked == {turn.answer}
        elif style == "yes-no":
            named = text.rsplit(" Is it ", 1)[1].removesuffix("?")
            assert turn.answer == ("Yes" if {named} == asked else "No")
            verdicts[turn.answer] += 1
        elif style == "multiple-choice":
            options = dict(line.split(". ", 1) for line in text.split("\n")[1:])
            assert list(options) == ["A", "B", "C", "D"]
            assert {options.pop(turn.answer)} == asked
            assert not asked & set(options.values())
            assert len(set(options.values())) == 3
            verdicts[turn.answer] += 1
        else:
            assert style == "brief"
            assert 0 < len(turn.answer.split()) <= 25
            assert facts[item]
    assert min(verdicts[answer] for answer in ("Yes", "No", "A", "B", "C", "D")) > 0


def test_data_from_elsewhere_stay_as_they_are(prepare: Prepare) -> None:
    prepared = prepare("replay+sefe", {"sefe.share": "1", "replay.ratio": "0.5"})
    sources = Counter(example.source.split("/")[0] for example in prepared.run.examples)
    assert sources == {"sefe": 6, "replay": 3}


# ---- RegLoRA


@pytest.fixture(scope="module")
def earlier(prepare: Prepare, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a trained LoRA."""
    prepared = prepare("lora")
    prepared.train(steps=4, rate=5e-3)
    folder = tmp_path_factory.mktemp("earlier")
    prepared.model.save(folder)
    return folder


def largest(folder: Path, layer: str, share: float) -> np.ndarray:
    """Return where the earlier adapter's change is largest, as a mask."""
    stored = load_file(folder / "adapter_model.safetensors")
    a, b = (stored[f"base_model.model.{layer}.lora_{factor}.weight"].double().numpy() for factor in "AB")
    change = np.abs(b @ a)
    return np.asarray(change >= np.sort(change, axis=None)[-round(share * change.size)])


def test_the_penalty_is_the_mean_size_of_the_key_entries(prepare: Prepare, earlier: Path) -> None:
    prepared = prepare("sefe", {"sefe.old": str(earlier), "sefe.strength": "10", "sefe.keys": "0.05"})
    with torch.no_grad():
        for layer in prepared.model.lora_layers():
            prepared.model.factors(layer)[1].normal_()
    means = []
    for layer in prepared.model.lora_layers():
        a, b = (factor.detach().double().numpy() for factor in prepared.model.factors(layer))
        means.append(np.abs(b @ a)[largest(earlier, layer, 0.05)].mean())
    penalty: Any = prepared.component("sefe").penalty(prepared.model, {}, None, prepared.run)
    assert float(penalty.detach()) == pytest.approx(10 * float(np.mean(means)), rel=1e-3)


def test_training_with_it_keeps_the_key_entries_still(prepare: Prepare, earlier: Path) -> None:
    moved = {}
    for strength in ("0", "2500"):
        prepared = prepare("sefe", {"sefe.old": str(earlier), "sefe.strength": strength, "sefe.share": "0"})
        prepared.train(steps=8, rate=5e-3)
        shares = []
        for layer in prepared.model.lora_layers():
            a, b = (factor.detach().double().numpy() for factor in prepared.model.factors(layer))
            change = np.abs(b @ a)
            shares.append(change[largest(earlier, layer, 0.02)].mean() / change.mean())
        moved[strength] = float(np.mean(shares))
    assert moved["2500"] < 0.7 * moved["0"]


def test_with_one_stage_there_is_no_penalty(prepare: Prepare) -> None:
    prepared = prepare("sefe")
    assert prepared.component("sefe").penalty(prepared.model, {}, None, prepared.run) is None
    assert prepared.component("sefe").needs(prepared.run.spec, {"layer": (3, 2)}).kept == 0


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("sefe", {"sefe.share": "1.5"}, "sefe.share=1.5 is a share"),
        ("sefe", {"sefe.generator": "templat"}, "did you mean 'template'"),
        ("sefe+full", {"sefe.old": "EARLIER"}, "sefe.old needs a low-rank adapter"),
        ("sefe+moelora", {"sefe.old": "EARLIER"}, "sefe reads a layer's change as B A"),
        ("sefe+kore-null", {"sefe.old": "EARLIER", "kore-null.freeze-a": "false"}, "starts at B = 0, and kore-null"),
        ("sefe", {"sefe.old": "nowhere"}, "--set sefe.old=nowhere: there is no adapter_model.safetensors"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_loads(
    method: str, settings: dict[str, str], message: str, earlier: Path
) -> None:
    card = mini_card()
    given = {key: value.replace("EARLIER", str(earlier)) for key, value in settings.items()}
    with pytest.raises(UserError) as error:
        fold(Registry().compose(method, given).components, layer_shapes(card), Defaults(rank=card.rank))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_items_that_the_generator_cannot_write_about_are_refused(world: Path) -> None:
    from dataclasses import replace

    knowledge = read_knowledge(world)
    bare = replace(knowledge, items=tuple(replace(item, facts=()) for item in knowledge.items))
    sefe = Registry().compose("sefe").components[1]
    with pytest.raises(UserError, match="sefe: the template generator needs facts"):
        sefe.check_data(bare, Registry().find)
