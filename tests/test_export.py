"""Exports: adapters that plain PEFT loads on the untouched base, and merged models that plain transformers loads."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from kore_bench.bench import prepare, write_plan
from kore_bench.card import ModelCard
from kore_bench.cli import main
from kore_bench.errors import UserError
from kore_bench.export import _write_picture_settings, export_cell
from kore_bench.integrity import sums
from kore_bench.lmm import LMM
from kore_bench.mini import MINI_QWEN
from kore_bench.models.llava import LLAVA_7B
from kore_bench.models.mini_qwen import CARD as MINI
from kore_bench.plan import Request, make_plan, preflight
from kore_bench.results import RunFolder
from kore_bench.runner import run_cell
from kore_bench.source import load_processor, load_weights

tiny: Any = importlib.import_module("tiny_models")

ADAPTED = ("lora", "kore-null", "ewc", "lora-fa", "dora", "pissa", "corda", "eva", "osf")
METHODS = ("full", *ADAPTED)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny.write_llava(tmp_path_factory.mktemp("export") / "tiny-llava")
    return folder


def train_cells(folder: Path, request: Request) -> RunFolder:
    torch.set_num_threads(1)
    plan, cells = prepare(request, folder)
    knowledge = preflight(plan, folder)
    run = RunFolder(folder)
    folder.mkdir(exist_ok=True)
    write_plan(run, plan, cells)
    for cell in cells:
        if not cell.reference:
            run.write(cell.name, run_cell(plan, cell, knowledge, run.cell(cell.name), lambda *_: None))
    return run


def request(model: str, small_world: Path, **changes: object) -> Request:
    asked = Request(
        model=model, methods=METHODS, data=str(small_world), tasks=("adaptation",),
        settings=(
            "train.steps=3", "train.batch-size=4", "train.projector=train", "train.learning-rate=0.01",
            "train.projector-learning-rate=0.01", "model.rank=4", "model.dtype=float32", "old.samples=16",
            "model.image-padding=square", "train.max-length=512",
        ),
    )  # fmt: skip
    return replace(asked, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def llava_run(checkpoint: Path, small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train_cells(tmp_path_factory.mktemp("llava") / "run", request(str(checkpoint), small_world))


def batch_of(model: LMM, picture: Path) -> Mapping[str, torch.Tensor]:
    return model.to_device(model.collate([{"input_ids": model.prompt("What is it?", [picture]), "images": [picture]}]))


@torch.inference_mode()
def logits(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    found: torch.Tensor = model.eval()(**batch).logits
    return found


def trained(run: RunFolder, method: str, card: ModelCard) -> LMM:
    """Return the cell's model as the harness itself puts it together."""
    (record,) = (record for record in run.records() if record.method == method)
    model = LMM.load(card)
    model.load_trained(run.cell(run.name_of(record)) / "adapter")
    return model


@pytest.mark.parametrize("method", ADAPTED)
def test_plain_peft_loads_an_exported_adapter(
    llava_run: RunFolder, checkpoint: Path, tmp_path: Path, method: str
) -> None:
    export_cell(llava_run, method, tmp_path / "out", merge=False)
    card = make_plan(Request(model=str(checkpoint), settings=("model.dtype=float32",))).card
    ours = trained(llava_run, method, card)
    batch = batch_of(ours, tiny.draw_picture(tmp_path / "p.png", 40, 24))
    base = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="float32")
    untouched = logits(base, batch)
    theirs = logits(PeftModel.from_pretrained(base, str(tmp_path / "out")), batch)
    assert torch.allclose(theirs, logits(ours.model, batch), atol=1e-5)
    assert (theirs - untouched).abs().max() > 1e-2
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["model.multi_modal_projector"]
    assert config["base_model_name_or_path"] == str(checkpoint)
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "PeftModel.from_pretrained" in readme
    assert "padded to a square" in readme


@pytest.mark.parametrize("method", METHODS)
def test_plain_transformers_loads_a_merged_model(
    llava_run: RunFolder, checkpoint: Path, tmp_path: Path, method: str
) -> None:
    export_cell(llava_run, method, tmp_path / "out", merge=True)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype="float32")
    card = make_plan(Request(model=str(checkpoint), settings=("model.dtype=float32",))).card
    ours = trained(llava_run, method, card)
    batch = batch_of(ours, tiny.draw_picture(tmp_path / "p.png", 40, 24))
    assert torch.allclose(logits(merged, batch), logits(ours.model, batch), atol=1e-4)
    assert {file.suffix for file in (tmp_path / "out").iterdir()} <= {".json", ".safetensors", ".jinja", ".md"}


def test_a_residual_adapter_travels_with_its_projector(checkpoint: Path, small_world: Path, tmp_path: Path) -> None:
    asked = request(str(checkpoint), small_world, methods=("kore-null",))
    run = train_cells(tmp_path / "run", replace(asked, settings=(*asked.settings, "kore-null.freeze-a=false")))
    export_cell(run, "kore-null", tmp_path / "adapter", merge=False)
    export_cell(run, "kore-null--seed0", tmp_path / "merged", merge=True)
    card = make_plan(Request(model=str(checkpoint), settings=("model.dtype=float32",))).card
    ours = trained(run, "kore-null", card)
    batch = batch_of(ours, tiny.draw_picture(tmp_path / "p.png", 40, 24))
    base = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="float32")
    expected = logits(PeftModel.from_pretrained(base, str(tmp_path / "adapter")), batch)
    assert torch.allclose(expected, logits(ours.model, batch), atol=1e-4)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype="float32")
    assert torch.allclose(expected, logits(merged, batch), atol=1e-4)


def test_a_merged_model_treats_pictures_and_prompts_as_the_run_did(
    llava_run: RunFolder, checkpoint: Path, tmp_path: Path
) -> None:
    export_cell(llava_run, "lora", tmp_path / "out", merge=True)
    picture = tiny.draw_picture(tmp_path / "p.png", 50, 31)
    stock = AutoProcessor.from_pretrained(tmp_path / "out")  # type: ignore[no-untyped-call]
    card = make_plan(Request(model=str(checkpoint), settings=("model.image-padding=square",))).card
    chat = LMM(load_weights(card), load_processor(card), card).chat
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    text = stock.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    with Image.open(picture) as image:
        made = stock(text=text, images=[image], return_tensors="pt")
    assert made["input_ids"][0].tolist() == chat.prompt("What is it?", [picture])
    assert torch.allclose(made["pixel_values"], chat.pixels(picture)["pixel_values"], atol=1e-5)
    shutil.copyfile(MINI_QWEN / "processor_config.json", tmp_path / "processor_config.json")
    small = replace(MINI, max_pixels=32 * 32)
    _write_picture_settings(small, load_processor(small).image_processor, tmp_path)
    written = json.loads((tmp_path / "processor_config.json").read_text())
    assert written["image_processor"]["size"] == {"shortest_edge": 256, "longest_edge": 1024}


def test_a_cards_chat_template_goes_with_the_export(checkpoint: Path, small_world: Path, tmp_path: Path) -> None:
    """The card of LLaVA-1.5-7B on a small checkpoint of its class."""
    asked = request("llava-7b", small_world, methods=("lora",))
    run = train_cells(tmp_path / "run", replace(asked, settings=(*asked.settings, f"model.path={checkpoint}")))
    export_cell(run, "lora", tmp_path / "adapter", merge=False)
    export_cell(run, "lora", tmp_path / "merged", merge=True)
    assert (tmp_path / "adapter" / "chat_template.jinja").read_text() == LLAVA_7B.chat_template
    stock = AutoProcessor.from_pretrained(tmp_path / "merged")  # type: ignore[no-untyped-call]
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    text = stock.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert text.endswith("user's questions. USER: <image>\nWhat is it? ASSISTANT:")


def test_mini_qwens_adapter_and_projector_travel(small_world: Path, tmp_path: Path) -> None:
    asked = request("mini-qwen", small_world, methods=("kore-null",))
    asked = replace(asked, settings=tuple(text for text in asked.settings if "padding" not in text))
    run = train_cells(tmp_path / "run", asked)
    export_cell(run, "kore-null", tmp_path / "adapter", merge=False)
    export_cell(run, "kore-null", tmp_path / "merged", merge=True)
    ours = trained(run, "kore-null", MINI)
    batch = batch_of(ours, tiny.draw_picture(tmp_path / "p.png", 40, 24))
    expected = logits(ours.model, batch)
    adapted = PeftModel.from_pretrained(load_weights(MINI), str(tmp_path / "adapter"))
    assert torch.allclose(logits(adapted, batch), expected, atol=1e-5)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype="float32")
    assert torch.allclose(logits(merged, batch), expected, atol=1e-4)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["model.visual.merger"]


@pytest.mark.parametrize(
    ("cell", "merge", "message"),
    [
        ("full", False, "full trains the model's own weights, so there is no adapter to load: add --merge"),
        ("lor", False, r"has no trained cell 'lor': did you mean 'lora'\?"),
        ("base", False, "has no trained cell 'base'"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(
    llava_run: RunFolder, tmp_path: Path, cell: str, merge: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export_cell(llava_run, cell, tmp_path / "out", merge=merge)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_no_other_base_is_used(checkpoint: Path, small_world: Path, tmp_path: Path) -> None:
    other: Path = shutil.copytree(checkpoint, tmp_path / "tiny-llava")
    run = train_cells(tmp_path / "run", request(str(other), small_world, methods=("lora",)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match=r"--out .*full is there already: name a new folder"):
        export_cell(run, "lora", tmp_path / "full", merge=False)
    config = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps(config | {"max_length": 7}))
    with pytest.raises(UserError, match="lora--seed0 was trained on another checkpoint of tiny-llava"):
        export_cell(run, "lora", tmp_path / "out", merge=True)


def test_no_code_runs_because_a_folder_names_it(llava_run: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "theirs")
    shutil.copytree(llava_run.path, run.path)
    evil = tmp_path / "evil.py"
    evil.write_text(f"import os\nos.mkdir({str(tmp_path / 'done')!r})\n")
    plan = run.plan()
    plan["request"]["plugins"] = [str(evil)]
    (run.path / "plan.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(UserError, match=r"made with plug-ins \(.*evil.py\): name them again with --plugin"):
        export_cell(run, "lora", tmp_path / "out", merge=False)
    assert not (tmp_path / "done").exists()


def test_damaged_weights_are_not_exported(llava_run: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(llava_run.path, run.path)
    (file,) = (run.path / "cells").glob("*--lora--*/adapter/adapter_model.safetensors")
    cell = file.parents[1]
    record = run.read(cell.name)
    assert record is not None
    run.write(cell.name, replace(record, files=sums(cell)))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"adapter_model.safetensors is not what was written"):
        export_cell(run, "lora", tmp_path / "out", merge=False)


def test_the_command_writes_a_folder(llava_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(llava_run.path), "lora", "--out", str(tmp_path / "out")])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip().endswith("out")
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    with pytest.raises(SystemExit) as ended:
        main(["export", str(llava_run.path), "full", "--out", str(tmp_path / "other")])
    assert ended.value.code == 2
    assert "add --merge" in " ".join(capsys.readouterr().err.split())
