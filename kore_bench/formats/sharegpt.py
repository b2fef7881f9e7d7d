"""LLaMA-Factory's sharegpt JSON: ``conversations`` (from, value) or ``messages`` (role, content), and ``images``."""

from __future__ import annotations

import json
from pathlib import Path

from . import json_rows
from .conversations import LLAVA, OPENAI, Conversations, Problems, Speech, read
from .fields import Row
from .pictures import Pictures
from .writing import Target

FILE, REGISTER = "sharegpt.json", "dataset_info.json"
_NAME = "kore_bench"


def fits(row: Row) -> bool:
    """Return whether a file whose first row this is holds sharegpt conversations."""
    return OPENAI.turns in row.data or (LLAVA.turns in row.data and "images" in row.data)


def speech_of(row: Row) -> Speech:
    """Return the spelling of a row: LLaMA-Factory's default one, or that of chat completions."""
    return OPENAI if OPENAI.turns in row.data else LLAVA


def read_sharegpt(file: Path, pictures: Pictures, problems: Problems) -> Conversations:
    """Return the conversations of a JSON array or JSONL file; raises UserError naming file, line and field."""
    speech = speech_of(next(json_rows.rows(file)))
    return read(file, json_rows.rows(file), pictures, speech, "images", "sharegpt", problems)


def write_sharegpt(conversations: Conversations, folder: Path) -> Path:
    """Write conversations, their images and the ``dataset_info.json`` by which LLaMA-Factory finds them.

    Image names are relative to the folder: give it to LLaMA-Factory as ``dataset_dir`` and ``media_dir``. Returns the
    JSON file.
    """
    target = Target(folder, (conversations.root, *conversations.unpacked))
    rows = (
        {"id": example.id, LLAVA.turns: LLAVA.write(example), "images": list(example.images)}
        for example in conversations.examples
    )
    file = target.array(FILE, map(target.named, rows))
    entry = {"file_name": FILE, "formatting": "sharegpt", "columns": {"messages": LLAVA.turns, "images": "images"}}
    (folder / REGISTER).write_text(json.dumps({_NAME: entry}, indent=1) + "\n", encoding="utf-8")
    return file
