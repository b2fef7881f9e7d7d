"""Every family of models through the same code: processors, batches, covariances, methods; mini-qwen in depth."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from kore_bench.calibration import draw_held_out, draw_old
from kore_bench.card import ModelCard
from kore_bench.component import AdapterSpec, Budget, Defaults, fold
from kore_bench.examples import Example, Knowledge, Turn
from kore_bench.formats import read_knowledge
from kore_bench.lmm import LMM, layer_shapes
from kore_bench.mini import MINI_QWEN
from kore_bench.mini.qwen import build
from kore_bench.models.mini_qwen import CARD as MINI
from kore_bench.plan import OldSettings
from kore_bench.registry import Registry
from kore_bench.runner import CellRun, adapt
from kore_bench.statistics import Counting, collect
from kore_bench.training import train

tiny: Any = importlib.import_module("tiny_models")

WRITERS = {"llava": tiny.write_llava, "gemma3": tiny.write_gemma3, "internvl": tiny.write_internvl}
FAMILIES = (*WRITERS, "mini-qwen")
SIZES = ((32, 32), (64, 40), (20, 90), (100, 100))
TURNS = (Turn(question="What is this?", answer="the red square"), Turn(question="And this?", answer="yes"))
METHODS = sorted(Registry().all("methods"))


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelCard]:
    folder = tmp_path_factory.mktemp("models")
    found = {"mini-qwen": MINI}
    for name, write in WRITERS.items():
        path = write(folder / name)
        found[name] = ModelCard(name=name, summary="", path=str(path), dtype="float32", rank=4, dropout=0.0)
    return found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    return [tiny.draw_picture(folder / f"{width}x{height}.png", width, height) for width, height in SIZES]


@pytest.fixture(scope="module")
def knowledge(small_world: Path) -> Knowledge:
    return read_knowledge(small_world)


def load(cards: dict[str, ModelCard], family: str) -> LMM:
    torch.set_num_threads(1)
    return LMM.load(cards[family])


def example(picture: Path, name: str = "e") -> Example:
    return Example(id=name, images=(picture,), turns=TURNS, source="t")


# ---- every family


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_the_stock_processors(cards: dict[str, ModelCard], pictures: list[Path], family: str) -> None:
    """Token ids, pixels and what stands beside them, for pictures of several sizes in one batch."""
    model = load(cards, family)
    model.chat.check()
    processor = model.processor
    texts = []
    for words in ("Is", "What is the red square?", "And", "Why?"):
        content = [{"type": "image"}, {"type": "text", "text": words}]
        texts.append([{"role": "user", "content": content}])
    written = processor.apply_chat_template(texts, tokenize=False, add_generation_prompt=True)
    images = [[Image.open(picture).convert("RGB")] for picture in pictures]
    stock = processor(text=written, images=images, padding=True, padding_side="left", return_tensors="pt")
    rows = [
        {"input_ids": model.prompt(words, [picture]), "images": [picture]}
        for words, picture in zip(("Is", "What is the red square?", "And", "Why?"), pictures, strict=True)
    ]
    ours = model.collate(rows, left=True)
    assert set(ours) == set(stock)
    for name, values in ours.items():
        assert torch.equal(values, stock[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_answers_equal_one_at_a_time(cards: dict[str, ModelCard], pictures: list[Path], family: str) -> None:
    model = load(cards, family)
    questions = ("Is", "What is the red square?", "name the entity")
    prompts: list[tuple[str, list[Path]]] = [(text, [picture]) for text in questions for picture in pictures]
    if family != "internvl":  # its class cannot mix questions with and without a picture
        prompts += [("What?", []), ("What is it?", pictures[1:3])]
    batched = model.generate(prompts, max_new_tokens=10, batch_size=len(prompts))
    assert batched == model.generate(prompts, max_new_tokens=10, batch_size=1)
    assert len(set(batched)) > 3


@pytest.mark.parametrize("family", FAMILIES)
def test_covariances_are_those_of_one_whole_pass(
    cards: dict[str, ModelCard], pictures: list[Path], family: str
) -> None:
    """Masks, rotary positions (in three directions for Qwen) and token types reach each block as in a plain pass."""
    model = load(cards, family)
    batches = list(model.batches([example(picture, picture.name) for picture in pictures], 3))
    for batch in batches:
        batch.pop("labels")
    expected: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor]], None]:
        def read(module: nn.Module, args: tuple[torch.Tensor]) -> None:
            rows = args[0][mask.bool()].double()
            expected[name] = expected.get(name, 0) + rows.T @ rows

        return read

    handles = [linear.register_forward_pre_hook(hook(name)) for name, linear in model.linears().items()]
    for batch in batches:
        mask = batch["attention_mask"]
        with torch.inference_mode():
            model.model(**batch)
    for handle in handles:
        handle.remove()
    found = collect(
        model.model, model.blocks(), model.linears(), batches, lambda inputs: inputs.covariance, counting=Counting()
    )
    assert set(found) == set(expected)
    for name, covariance in found.items():
        assert torch.allclose(covariance, expected[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_a_model_are_found(cards: dict[str, ModelCard], pictures: list[Path], family: str) -> None:
    model = load(cards, family)
    shapes = layer_shapes(cards[family])
    assert shapes == {name: (layer.out_features, layer.in_features) for name, layer in model.linears().items()}
    assert len(shapes) == 7 * len(model.blocks())
    assert all("language_model" in name for name in shapes)
    token = model.image_token
    assert model.prompt("Is", pictures[:1]).count(token) > 1 > model.prompt("Is", []).count(token)
    vectors = model.embed(pictures)
    assert vectors.shape == (len(pictures), 32)
    model.insert_lora(AdapterSpec(kind="lora", rank=2, alpha=4.0), projector=True)
    trained = {name for name, value in model.model.named_parameters() if value.requires_grad}
    assert {name.split(".modules_to_save")[0].rsplit(".", 1)[-1] for name in trained if "lora_" not in name} == {
        "merger" if family == "mini-qwen" else "multi_modal_projector"
    }


# ---- mini-qwen


def test_the_shipped_folder_is_what_its_script_writes(tmp_path: Path) -> None:
    build(tmp_path)
    for file in MINI_QWEN.iterdir():
        ours, again = file.read_text(), (tmp_path / file.name).read_text()
        if file.suffix == ".json":
            ours, again = json.loads(ours), json.loads(again)
            for config in (ours, again):
                config.pop("transformers_version", None)
        assert ours == again, file.name
    assert {file.name for file in MINI_QWEN.iterdir()} == {file.name for file in tmp_path.iterdir()}


def test_random_weights_are_the_same_each_time(cards: dict[str, ModelCard]) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = load(cards, "mini-qwen")
    assert torch.equal(torch.get_rng_state(), before)
    second = load(cards, "mini-qwen")
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_positions_in_three_directions_need_token_types(cards: dict[str, ModelCard], pictures: list[Path]) -> None:
    """Without them the class falls back to plain positions in silence."""
    model = load(cards, "mini-qwen")
    batch = next(model.batches([example(pictures[3])]))
    batch.pop("labels")
    with torch.inference_mode():
        right = model.model(**batch).logits
        batch.pop("mm_token_type_ids")
        plain = model.model(**batch).logits
    assert (right - plain).abs().max() > 0.05 * right.abs().max()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_mini_qwen(method: str, knowledge: Knowledge, tmp_path: Path) -> None:
    """`adapt` asserts an unchanged base, unmoved outputs and only declared parameters; then two steps and a reload."""
    torch.set_num_threads(1)
    model = LMM.load(MINI)
    components = Registry().compose(method).components
    layers = {name: (linear.out_features, linear.in_features) for name, linear in model.linears().items()}
    calibration = draw_old(knowledge, OldSettings(samples=16), 0)
    run = CellRun(
        seed=0, items=knowledge.items, calibration=calibration,
        held_out=draw_held_out(knowledge, calibration, 0)[:8], budget=Budget(steps=2, epochs=0, batch_size=4),
        spec=fold(components, layers, Defaults(rank=MINI.rank)), train_projector=True, base={"test": MINI.name},
        embed=model.embed,
    )  # fmt: skip
    adapt(model, components, run, _Phase)
    settings = replace(MINI.train, learning_rate=1e-3, projector="train")
    train(model, model.rows(run.examples), settings, components, run, io.StringIO(), lambda done, total: None)
    for component in components:
        component.finish(model, run)
    model.save(tmp_path)
    fresh = LMM.load(MINI)
    untouched = logits(fresh, knowledge)
    Registry().compose(method).adapter.load(fresh, tmp_path)
    assert not torch.equal(logits(model, knowledge), untouched)
    assert torch.allclose(logits(fresh, knowledge), logits(model, knowledge), atol=1e-4)


class _Phase:
    def __init__(self, name: str) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def logits(model: LMM, knowledge: Knowledge) -> torch.Tensor:
    batch = next(model.batches([item.example() for item in knowledge.items[:2]]))
    batch.pop("labels")
    with torch.inference_mode():
        found: torch.Tensor = model.model(**batch).logits
    return found
