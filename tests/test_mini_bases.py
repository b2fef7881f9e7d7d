"""Tests of the further bases: their cards, their rates, the width of one, float16 weights, and what each one knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from kore_bench.card import ModelCard
from kore_bench.formats import DIMENSIONS
from kore_bench.grid import decide_rate
from kore_bench.mini import architecture, build
from kore_bench.models import mini_llava
from kore_bench.plan import Request, make_plan, read_tuning
from kore_bench.results import write_text

FURTHER = (mini_llava.SEED_1,)


def test_further_bases_differ_from_mini_llava_in_name_weights_and_rank_alone() -> None:
    assert len({card.path for card in (mini_llava.CARD, *FURTHER)}) == 1 + len(FURTHER)
    for card in FURTHER:
        assert (card.train, card.learning_rates, card.dtype) == (
            mini_llava.CARD.train,
            mini_llava.CARD.learning_rates,
            "float32",
        )
        assert Path(card.path).name == card.name


@pytest.mark.parametrize("card", FURTHER, ids=lambda card: card.name)
def test_they_train_at_mini_llavas_tuned_rates_and_say_so(card: ModelCard) -> None:
    own = make_plan(Request(methods=("lora", "ewc")))
    plan = make_plan(Request(methods=("lora", "ewc"), model=card.name))
    for method, other in zip(own.methods, plan.methods, strict=True):
        rate, settings, origin = decide_rate(own, method)
        assert origin == "tuned"
        assert decide_rate(plan, other) == (rate, settings, "tuned on mini-llava")


def test_a_rate_of_its_own_comes_first(tmp_path: Path) -> None:
    shipped = Path(mini_llava.__file__).parent / "tuned" / "mini-llava.json"
    lora = next(entry for entry in read_tuning(shipped) if entry["method"] == "lora")
    own = {**lora, "model": "mini-llava-1", "chosen": {**lora["chosen"], "learning_rate": 0.123}}
    write_text(tmp_path / "rates.json", json.dumps([lora, own]))
    plan = make_plan(Request(methods=("lora",), model="mini-llava-1", tuning=str(tmp_path / "rates.json")))
    assert decide_rate(plan, plan.methods[0])[::2] == (0.123, "tuned")


@pytest.mark.parametrize(("width", "heads", "inner"), [(128, 4, 384), (192, 6, 576)])
def test_width_scales_heads_and_feed_forward_layers(width: int, heads: int, inner: int) -> None:
    text: Any = architecture.model(0, width).config.text_config
    assert (text.hidden_size, text.num_attention_heads, text.intermediate_size, text.num_hidden_layers) == (
        width, heads, inner, 4,
    )  # fmt: skip


@pytest.mark.parametrize("width", [0, 100])
def test_a_width_that_heads_do_not_fill_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"width of {width} is no multiple of 32"):
        architecture.model(0, width)


def test_halving_rounds_weights_and_notes_what_they_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = architecture.model(3)
    build.save(whole, tmp_path / "whole")
    write_text(tmp_path / "whole" / "training.jsonl", '{"stage": "final"}\n')
    examined: list[LlavaForConditionalGeneration] = []

    def examine(llava: LlavaForConditionalGeneration, num: int, seed: int) -> dict[str, float]:
        examined.append(llava)
        return {"mean": 0.25}

    monkeypatch.setattr(build, "examine", examine)
    assert build.halve(tmp_path / "whole", tmp_path / "half") == {"mean": 0.25}
    log = [json.loads(line) for line in (tmp_path / "half" / "training.jsonl").read_text().splitlines()]
    assert log == [{"stage": "final"}, {"stage": "final, float16 weights", "accuracy": {"mean": 0.25}}]
    for (name, value), rounded in zip(whole.named_parameters(), examined[0].parameters(), strict=True):
        assert torch.equal(value.detach().half().float(), rounded.detach()), name
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.55 * sizes[0]


@pytest.mark.parametrize("card", FURTHER, ids=lambda card: card.name)
def test_shipped_weights_are_of_the_cards_width_small_and_score_well(card: ModelCard) -> None:
    folder = Path(card.path)
    config: Any = LlavaConfig.from_pretrained(folder)
    assert card.rank * 8 == config.text_config.hidden_size
    last = json.loads((folder / "training.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["stage"] == "final, float16 weights"
    skills = {skill: last["accuracy"][skill] for skill in DIMENSIONS}
    assert all(score >= 0.92 for skill, score in skills.items() if skill != "HAL")
    assert 0.4 <= skills["HAL"] <= 0.6  # chance: what the docs say of it
    assert last["accuracy"]["old-facts"] >= 0.95
    assert last["accuracy"]["new"] <= 0.05
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o044 == 0o044, path.name
