"""Models: cards, folders and hub ids, chat templates and pictures, and a whole cell of a model in a folder."""

from __future__ import annotations

import importlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from PIL import Image

from kore_bench.card import ModelCard, TrainSettings, card_of
from kore_bench.chat import IGNORED, Chat
from kore_bench.component import AdapterSpec, Budget
from kore_bench.errors import UserError
from kore_bench.examples import Example, Turn
from kore_bench.grid import base_key
from kore_bench.lmm import LMM, layer_shapes
from kore_bench.models.llava import LLAVA_7B, LLAVA_13B
from kore_bench.models.mini_qwen import CARD as MINI
from kore_bench.models.qwen import QWEN2_5_VL_7B
from kore_bench.plan import Request, make_plan, model_name, preflight
from kore_bench.results import CHECKPOINTS
from kore_bench.runner import CellRun
from kore_bench.source import load_processor, read_config, resolve_revision, snapshot_folder
from kore_bench.training import train

tiny: Any = importlib.import_module("tiny_models")

SIZES = ((32, 32), (64, 40), (20, 90), (100, 100))
TURNS = (Turn(question="What is this?", answer="the red square"), Turn(question="And this?", answer="yes"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    folder = tiny.write_llava(tmp_path_factory.mktemp("models") / "llava")
    return ModelCard(name="llava", summary="", path=str(folder), dtype="float32", rank=4, dropout=0.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    return [tiny.draw_picture(folder / f"{width}x{height}.png", width, height) for width, height in SIZES]


# ---- cards


def test_cards_hold_the_papers_training() -> None:
    sizes = {card.name: card.train.batch_size * card.train.accumulation for card in (LLAVA_7B, LLAVA_13B)}
    assert sizes == {"llava-7b": 54, "llava-13b": 32}
    for card in (LLAVA_7B, LLAVA_13B, QWEN2_5_VL_7B):
        assert (card.train.epochs, card.train.schedule, card.train.weight_decay) == (6.0, "cosine", 0.0)
        assert (card.train.max_length, card.rank, card.dtype) == (2048, 128, "bfloat16")
        assert card.learning_rates == {"full": 2e-5, "lora": 2e-4}
    assert (LLAVA_7B.train.projector, LLAVA_7B.train.projector_learning_rate) == ("train", 2e-5)
    assert (LLAVA_7B.train.warmup, QWEN2_5_VL_7B.train.warmup) == (0.03, 0.1)


def test_llavas_prompt_is_that_of_its_training(llava: ModelCard, pictures: list[Path]) -> None:
    card = replace(llava, chat_template=LLAVA_7B.chat_template)
    chat = Chat(load_processor(card), card, 2048)
    chat.check()
    messages: list[dict[str, Any]] = []
    for question, answer in (("What is it?", "A cat"), ("Sure?", "Yes")):
        image = [] if messages else [{"type": "image"}]
        messages.append({"role": "user", "content": [*image, {"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    )
    written = chat.processor.apply_chat_template(messages, tokenize=False)
    first = "USER: <image>\nWhat is it? ASSISTANT: A cat</s>"
    assert written == f"{system}{first}USER: Sure? ASSISTANT: Yes</s>"
    row = chat.encode(TURNS, pictures[:1])
    labelled = [token for token in row["labels"] if token != IGNORED]
    assert chat.tokenizer.decode(labelled).split() == ["the", "red", "square", "</s>", "yes", "</s>"]


def test_llavas_pictures_are_padded_to_a_square(llava: ModelCard, tmp_path: Path) -> None:
    Image.new("RGB", (64, 33), (255, 0, 0)).save(tmp_path / "wide.png")
    padded = Chat(load_processor(llava), replace(llava, image_padding="square"), 512)
    pixels = padded.pixels(tmp_path / "wide.png")["pixel_values"][0]  # [3, 32, 32], normalised: the mean is near 0
    assert pixels[:, :6].abs().max() < 0.02
    assert pixels[:, -6:].abs().max() < 0.02
    assert pixels[0, 12:20].min() > 1.5
    cropped = Chat(padded.processor, llava, 512).pixels(tmp_path / "wide.png")["pixel_values"][0]
    assert cropped[0].min() > 1.5


def test_the_largest_picture_is_the_cards(llava: ModelCard, pictures: list[Path]) -> None:
    small = replace(MINI, max_pixels=32 * 32)
    lengths = [len(Chat(load_processor(card), card, 512).prompt("Is", pictures[3:])) for card in (MINI, small)]
    assert lengths[0] - lengths[1] == 16 - 4  # 64 x 64 pixels or 32 x 32, in cells of 16 x 16
    with pytest.raises(UserError, match=r"model\.max_pixels=100: the pictures of llava have no such limit"):
        load_processor(replace(llava, max_pixels=100))


def test_a_folder_or_a_hub_id_makes_a_card(tmp_path: Path) -> None:
    (tmp_path / "My Model").mkdir()
    card = card_of(str(tmp_path / "My Model"))
    assert card is not None
    assert (card.name, card.path, card.dtype) == ("my-model", str(tmp_path / "My Model"), "bfloat16")
    assert model_name(Request(model="Qwen/Qwen2-VL-2B-Instruct")) == "qwen2-vl-2b-instruct"
    assert model_name(Request(model="mini-llava")) == "mini-llava"
    assert card_of("mini-llava") is None


def test_a_cards_fields_are_settings_and_part_of_the_key(llava: ModelCard) -> None:
    def plan(*settings: str) -> Any:
        return make_plan(Request(model=llava.path, methods=("lora",), settings=settings))

    assert plan("model.dtype=float32").card.dtype == "float32"
    keys = [
        base_key(plan(*settings))
        for settings in ((), ("model.dtype=float32",), ("model.image-padding=square",), ("model.weights=random",))
    ]
    assert all(keys.count(key) == 1 for key in keys)
    with pytest.raises(UserError, match=r"model has no setting 'dtyp': did you mean 'dtype'\?"):
        plan("model.dtyp=float32")
    with pytest.raises(UserError, match=r"model\.rank, model\.evaluation_batch_size and .* must be at least 1"):
        plan("model.rank=0")


# ---- where models come from


def test_a_hub_id_is_resolved_to_its_commit(llava: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache as the hub's client lays it out: a commit's snapshot, and what ``main`` points to."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = tmp_path / "models--tiny--llava"
    shutil.copytree(llava.path, root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    plan = make_plan(Request(model="tiny/llava", methods=("lora",), settings=("model.dtype=float32",)))
    assert (plan.card.name, resolve_revision(plan.card)) == ("llava", commit)
    assert base_key(plan)["content"] == commit
    assert snapshot_folder(plan.card) == root / "snapshots" / commit
    assert len(layer_shapes(plan.card)) == 14
    with pytest.raises(UserError, match="`hf download tiny/llava --revision other`"):
        resolve_revision(replace(plan.card, revision="other"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("llava-7b", r"llava-hf/llava-1\.5-7b-hf is not in the Hugging Face cache.*`hf download llava-hf/llava-1\.5"),
        ("./nowhere", "there is no model folder ./nowhere"),
        ("a b/c", "a b/c is neither a folder nor a model's id on the Hugging Face hub"),
        ("mini-qwn", "unknown model 'mini-qwn': did you mean 'mini-qwen'?"),
    ],
)
def test_a_model_that_is_not_there_is_a_sentence(world: Path, tmp_path: Path, model: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        preflight(make_plan(Request(model=model, methods=("lora",))), tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llamax"}, "model type `llamax`"),
        ({"model_type": "llama"}, "is of type 'llama', which is no image-text-to-text model"),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}},
            "it needs Python code of its own, which is not run",
        ),
    ],
)
def test_models_that_cannot_be_used_are_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise SystemExit('this code must not run')\n")
    with pytest.raises(UserError, match=message):
        read_config(ModelCard(name="odd", summary="", path=str(tmp_path)))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "has no chat template"),
        ("{{ messages[0]['content'][1]['text'] }}", "does not mark a picture once"),
        (
            "{% if not add_generation_prompt %}done {% endif %}{{ '<image>' }}",
            "writes an answered question otherwise than an open one",
        ),
        ("{{ raise_exception('roles must alternate') }}", "cannot write a question: roles must alternate"),
    ],
)
def test_chat_templates_that_cannot_be_used_are_refused(
    llava: ModelCard, tmp_path: Path, template: str, message: str
) -> None:
    shutil.copytree(llava.path, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").unlink()
    if template:
        (tmp_path / "chat_template.jinja").write_text(template)
    card = replace(llava, path=str(tmp_path))
    with pytest.raises(UserError, match=message):
        Chat(load_processor(card), card, 512).check()


def test_texts_that_pictures_do_not_fit_are_refused(llava: ModelCard, pictures: list[Path]) -> None:
    chat = Chat(load_processor(llava), llava, 12)
    with pytest.raises(UserError, match=r"a text holds <image> itself, which llava reads as a picture"):
        chat.prompt("What is <image> for?", pictures[:1])
    with pytest.raises(UserError, match=r"train\.max_length=12 cuts a picture of 32x32\.png off"):
        chat.encode(TURNS, pictures[:1])


# ---- a folder, through a whole cell


def test_a_model_in_a_folder_runs_a_whole_cell(llava: ModelCard, small_world: Path, tmp_path: Path) -> None:
    from kore_bench.bench import prepare
    from kore_bench.runner import run_cell

    request = Request(
        model=llava.path, methods=("lora",), data=str(small_world), tasks=("adaptation",),
        settings=("train.steps=2", "train.batch-size=2", "model.rank=2", "model.image-padding=square"),
    )  # fmt: skip
    plan, cells = prepare(request, tmp_path)
    knowledge = preflight(plan, tmp_path)
    (cell,) = (cell for cell in cells if cell.method == "lora")
    record = run_cell(plan, cell, knowledge, tmp_path / "cell", lambda phase, done, total: None)
    assert (record.model, record.cost.steps) == ("llava", 2)
    assert record.settings["model"] == json.loads(json.dumps(base_key(plan)))
    assert record.settings["model"]["dtype"] == "bfloat16"
    config = json.loads((tmp_path / "cell" / "adapter" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["model.multi_modal_projector"]
    assert not (tmp_path / CHECKPOINTS).exists()


def test_bfloat16_weights_are_trained_in_full_precision(llava: ModelCard, pictures: list[Path]) -> None:
    """A step of 2e-5 is less than half of what separates two bfloat16 numbers near 0.1, and yet adds up."""
    card = replace(llava, dtype="bfloat16")
    model = LMM.load(card)
    model.unfreeze(projector=True)
    before = {name: value.detach().clone() for name, value in model.model.named_parameters() if value.requires_grad}
    run = CellRun(
        seed=0, items=(), calibration=(), held_out=(), budget=Budget(steps=40, epochs=0, batch_size=2),
        spec=AdapterSpec(kind="full"), train_projector=True, base={}, embed=model.embed,
    )  # fmt: skip
    settings = TrainSettings(
        steps=40, batch_size=2, learning_rate=2e-5, projector_learning_rate=2e-5, schedule="constant", warmup=0.0
    )
    examples = [Example(id=picture.name, images=(picture,), turns=TURNS, source="t") for picture in pictures[:2]]
    with model.full_precision():
        train(model, model.rows(examples), settings, (), run, io.StringIO(), lambda done, total: None)
    after = dict(model.model.named_parameters())
    assert all(after[name].dtype == torch.bfloat16 for name in before)
    name = "model.language_model.layers.0.mlp.gate_proj.weight"
    moved = (after[name] != before[name]).float().mean()
    assert moved > 0.5
