"""The loaded model: labels on answers alone, padding, batched generation, adapters saved and loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kore_bench.card import ModelCard
from kore_bench.component import AdapterSpec
from kore_bench.errors import UserError
from kore_bench.examples import Example, Knowledge, Turn
from kore_bench.formats import read_knowledge
from kore_bench.lmm import IGNORED, LMM, layer_shapes
from kore_bench.models.mini_llava import CARD

SPEC = AdapterSpec(kind="lora", rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def knowledge(world: Path) -> Knowledge:
    return read_knowledge(world)


@pytest.fixture
def model() -> LMM:
    torch.set_num_threads(1)
    return LMM.load(CARD)


def test_labels_are_the_answers_tokens_and_their_end(model: LMM, knowledge: Knowledge) -> None:
    turns = (Turn(question="What is this?", answer="the red square"), Turn(question="And this?", answer="yes"))
    row = model.encode(turns, (knowledge.items[0].image,))
    labelled = [token for token in row["labels"] if token != IGNORED]
    assert model.tokenizer.decode(labelled).split() == ["the", "red", "square", "</s>", "yes", "</s>"]
    assert all(label in (IGNORED, token) for label, token in zip(row["labels"], row["input_ids"], strict=True))


def test_image_tokens_match_the_processors_own(model: LMM, knowledge: Knowledge) -> None:
    from PIL import Image

    question = knowledge.questions[0]
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
    text = model.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    with Image.open(question.images[0]) as image:
        theirs = model.processor(text=text, images=[image.convert("RGB")])["input_ids"][0]
    assert model.prompt(question.text, question.images) == list(theirs)


def test_batched_answers_equal_one_at_a_time(model: LMM, knowledge: Knowledge) -> None:
    questions = [*knowledge.retention[::60], *knowledge.questions[::30]]
    prompts = [(question.text, question.images) for question in questions]
    batched = model.generate(prompts, batch_size=16)
    alone = model.generate(prompts, batch_size=1)
    assert batched == alone
    assert len(set(batched)) > 5


def test_padding_changes_no_logit(model: LMM, knowledge: Knowledge) -> None:
    short = Example(id="s", images=(knowledge.items[0].image,), turns=(Turn(question="Is", answer="yes"),), source="t")
    long = replace(short, turns=(Turn(question="What is the red square in the image?", answer="no"),))
    both, one = next(model.batches([short, long])), next(model.batches([short]))
    width = one["input_ids"].shape[1]
    for batch in (both, one):
        batch.pop("labels")
    with torch.inference_mode():
        padded, alone = model.model(**both).logits[0, :width], model.model(**one).logits[0]
    assert torch.allclose(padded, alone, atol=1e-4)


def test_lora_adapts_the_language_models_blocks_alone(model: LMM) -> None:
    names = list(model.linears())
    model.insert_lora(SPEC, projector=False)
    assert list(model.lora_layers()) == names == list(layer_shapes(CARD))
    assert len(names) == 7 * len(model.blocks())
    trained = [name for name, value in model.model.named_parameters() if value.requires_grad]
    assert all("language_model" in name and "lora_" in name for name in trained)


def test_full_training_leaves_the_vision_tower_and_the_projector(model: LMM) -> None:
    model.unfreeze(projector=False)
    trained = {name for name, value in model.model.named_parameters() if value.requires_grad}
    assert not any("vision_tower" in name or "projector" in name for name in trained)
    assert any("embed_tokens" in name for name in trained)
    model.unfreeze(projector=True)
    assert any("projector" in name for name, value in model.model.named_parameters() if value.requires_grad)


def test_a_frozen_a_stays_frozen_when_the_adapter_is_set_again(model: LMM) -> None:
    model.insert_lora(SPEC, projector=False)
    for name, linear in model.linears().items():
        model.set_factors(name, torch.ones(4, linear.in_features), None, freeze_a=True)
    model.model.set_adapter("default")
    trained = {name for name, value in model.model.named_parameters() if value.requires_grad}
    assert trained
    assert all("lora_B" in name for name in trained)


@pytest.mark.parametrize("residual", [False, True])
def test_a_saved_adapter_gives_the_same_logits_on_a_fresh_base(
    model: LMM, knowledge: Knowledge, tmp_path: Path, residual: bool
) -> None:
    batch = next(model.batches([knowledge.items[0].example()]))
    batch.pop("labels")
    with torch.inference_mode():
        base = model.model(**batch).logits
    torch.manual_seed(0)
    model.insert_lora(SPEC, projector=False)
    for name, linear in model.linears().items():
        a, b = torch.randn(4, linear.in_features) / 20, torch.randn(linear.out_features, 4) / 20
        model.set_factors(name, a, b if residual else None, freeze_a=False)
    with torch.inference_mode():
        assert torch.allclose(model.model(**batch).logits, base, rtol=1e-4, atol=1e-3)
    if residual:
        model.keep_start()
    with torch.no_grad():
        for name in model.lora_layers():
            model.factors(name)[1].add_(torch.randn_like(model.factors(name)[1]) / 10)
    model.save(tmp_path / "adapter")
    with torch.inference_mode():
        trained = model.model(**batch).logits
        torch.manual_seed(99)
        fresh = LMM.load(CARD)
        fresh.load_trained(tmp_path / "adapter")
        again = fresh.model(**batch).logits
    assert not torch.allclose(trained, base, atol=1e-2)
    assert torch.allclose(again, trained, atol=1e-3)
    assert {file.suffix for file in (tmp_path / "adapter").iterdir()} == {".json", ".safetensors"}


def test_unreadable_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"model broken cannot be loaded from {tmp_path}"):
        LMM.load(ModelCard(name="broken", summary="", path=str(tmp_path)))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=f"model broken cannot be read from {tmp_path}"):
        layer_shapes(ModelCard(name="broken", summary="", path=str(tmp_path)))


def test_a_pickled_checkpoint_is_not_loaded(tmp_path: Path) -> None:
    for file in Path(CARD.path).iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        LMM.load(replace(CARD, path=str(tmp_path)))


def test_an_empty_folder_is_no_adapter(model: LMM, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no adapter"):
        model.load_trained(tmp_path)
