"""Takes a trained cell out of its run: the adapter as PEFT loads it, or the whole merged model as transformers does."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kore_bench.card import ModelCard
from kore_bench.errors import UserError, nearest
from kore_bench.grid import base_key
from kore_bench.integrity import damages
from kore_bench.plan import Plan, Request, make_plan
from kore_bench.results import Record, RunFolder, write_text

ADAPTER_CONFIG = "adapter_config.json"
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
_REWRITTEN = {"config.json", "generation_config.json", "model.safetensors.index.json", "README.md"}
_PICTURES = ("processor_config.json", "preprocessor_config.json")

_ADAPTER_CODE = """\
from peft import PeftModel
from transformers import AutoModelForImageTextToText

base = AutoModelForImageTextToText.from_pretrained({base!r}{revision}, dtype="{dtype}")
model = PeftModel.from_pretrained(base, "THIS FOLDER")
"""
_MERGED_CODE = """\
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("THIS FOLDER", dtype="{dtype}")
processor = AutoProcessor.from_pretrained("THIS FOLDER")
"""


@dataclass(frozen=True)
class Trained:
    """A finished cell that trained something: its record, its folder's adapter, and the plan that names its model."""

    record: Record
    adapter: Path
    plan: Plan


def export_cell(run: RunFolder, cell: str, out: Path, *, merge: bool, plugins: tuple[str, ...] = ()) -> Path:
    """Write a cell's adapter, or the merged model, into the new folder ``out``, and return it.

    ``cell`` is a method's name, or ``METHOD--seedN``, or the whole name of the cell's folder. The adapter is plain
    PEFT for the untouched base: residual forms and frozen factors are written as an ordinary LoRA. Raises UserError
    where the cell is unknown, unfinished or of another checkpoint, where there is no adapter (the weights themselves
    were trained: merge) or one of layers that PEFT does not know, and where ``out`` is there already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is there already: name a new folder")
    trained = find_trained(run, cell, plugins)
    if not trained.plan.method(trained.record.method, {}).adapter.portable:
        raise UserError(
            f"{trained.record.method} cannot be exported: its layers are none that PEFT alone can load or merge into the base"
        )
    if not merge and not (trained.adapter / ADAPTER_CONFIG).exists():
        raise UserError(
            f"{trained.record.method} trains the model's own weights, so there is no adapter to load: add --merge for "
            "the whole model"
        )
    out.mkdir(parents=True, exist_ok=True)
    if merge:
        _write_merged(trained, out)
    else:
        shutil.copytree(trained.adapter, out, dirs_exist_ok=True)
    if trained.plan.card.chat_template:
        (out / "chat_template.json").unlink(missing_ok=True)
        write_text(out / "chat_template.jinja", trained.plan.card.chat_template)
    write_text(out / "README.md", _readme(trained, merge=merge))
    return out


def find_trained(run: RunFolder, cell: str, plugins: tuple[str, ...] = ()) -> Trained:
    """Return the finished cell that ``cell`` names.

    ``plugins`` are Python files to import: a folder that somebody else made must not choose what code runs, so that
    those in its plan are not. Raises UserError with the names there are, for plug-ins that are not given, and where the
    weights are not those that were written.
    """
    records = {run.name_of(record): record for record in run.records() if not record.reference}
    short = {name: name.split("--", 1)[1].rsplit("--", 1)[0] for name in records}  # METHOD--seedN
    wanted = [name for name in records if cell in (name, short[name], records[name].method)]
    if not wanted:
        raise UserError(
            f"{run.path} has no trained cell {cell!r}: {nearest(cell, {record.method for record in records.values()})}"
        )
    if len(wanted) > 1:
        raise UserError(f"{cell} has {len(wanted)} cells: name one of {', '.join(short[name] for name in wanted)}")
    record, adapter = records[wanted[0]], run.cell(wanted[0]) / "adapter"
    if record.status != "done" or not adapter.is_dir():
        raise UserError(f"{short[wanted[0]]} has no trained weights: its cell is {record.status}")
    for damage in damages(run.cell(wanted[0]), record):
        if damage.file.is_relative_to(adapter):
            raise UserError(f"{damage.file} {damage.what}: delete the record.json of its cell and run again")
    plan = make_plan(_request(run, plugins))
    if record.settings.get("model") != json.loads(json.dumps(base_key(plan))):
        raise UserError(
            f"{short[wanted[0]]} was trained on another checkpoint of {plan.card.name} than the one in "
            f"{plan.card.path}: its weights do not fit"
        )
    return Trained(record, adapter, plan)


def _request(run: RunFolder, plugins: tuple[str, ...]) -> Request:
    given = run.plan()["request"]
    if given.get("plugins") and not plugins:
        raise UserError(
            f"{run.path} was made with plug-ins ({', '.join(map(str, given['plugins']))}): name them again with --plugin, "
            "as no code runs because a folder names it"
        )
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return Request(**{**values, "plugins": plugins})


def _write_merged(trained: Trained, out: Path) -> None:
    """Merge on the CPU, where there is room for any model, and write weights, processor and chat template."""
    from transformers.utils.logging import disable_progress_bar

    from kore_bench.lmm import LMM
    from kore_bench.source import load_processor, load_weights

    disable_progress_bar()  # type: ignore[no-untyped-call]
    card = trained.plan.card
    processor = load_processor(card)
    model = LMM(load_weights(card), processor, card)
    model.load_trained(trained.adapter)
    model.merged().save_pretrained(out)
    _copy_processor(card, out)
    _write_picture_settings(card, processor.image_processor, out)


def _copy_processor(card: ModelCard, out: Path) -> None:
    """Copy every small file of the checkpoint that is not the model's own: tokenizer, processors, chat template."""
    from huggingface_hub import snapshot_download

    from kore_bench.source import snapshot_folder

    source = snapshot_folder(card)
    if not Path(card.path).is_dir():
        snapshot_download(card.path, revision=source.name, allow_patterns=list(_SMALL_FILES))
    for file in sorted(file for pattern in _SMALL_FILES for file in source.glob(pattern)):
        if file.name not in _REWRITTEN:
            shutil.copyfile(file, out / file.name)


def _write_picture_settings(card: ModelCard, images: Any, out: Path) -> None:
    """Write the card's treatment of pictures into the processor's own settings, for whoever serves the model."""
    files = [out / name for name in _PICTURES if (out / name).exists()]
    for file in files:
        settings = json.loads(file.read_text(encoding="utf-8"))
        part = settings.get("image_processor", settings)
        if "image_processor_type" not in part:
            continue
        if card.image_padding == "square" and re.match(r"CLIPImageProcessor", part["image_processor_type"]):
            part |= {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
        if card.max_pixels:
            part["size"] = dict(images.size)
            part.pop("max_pixels", None)
            part.pop("min_pixels", None)
        write_text(file, json.dumps(settings, indent=2) + "\n")


def _readme(trained: Trained, *, merge: bool) -> str:
    record, card = trained.record, trained.plan.card
    revision = "" if Path(card.path).is_dir() else f", revision={record.settings['model']['content']!r}"
    code = (_MERGED_CODE if merge else _ADAPTER_CODE).format(base=card.path, revision=revision, dtype=card.dtype)
    what = "merged model" if merge else "PEFT adapter"
    lines = [
        f"# {record.method}, seed {record.seed}, on {record.model}: {what}",
        "",
        f"Trained by kore-bench {record.versions.get('kore-bench', '')}; base: `{card.path}`. Cell `{record.key[:10]}`.",
        "",
        "```python",
        code.rstrip(),
        "```",
        *_treatment(card, merge=merge),
        "",
    ]
    return "\n".join(lines)


def _treatment(card: ModelCard, *, merge: bool) -> list[str]:
    """Return what a user of the model must do as the run did; a merged model's processor does it by itself."""
    notes = []
    if card.chat_template:
        notes.append("Prompts were written with the `chat_template.jinja` that lies here.")
    if card.image_padding == "square" and not merge:
        notes.append("Pictures were padded to a square with the processor's mean colour before it saw them.")
    if card.max_pixels and not merge:
        notes.append(f"Pictures had at most {card.max_pixels:,} pixels.")
    return ["", *notes] if notes else []
