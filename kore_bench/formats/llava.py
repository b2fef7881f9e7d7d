"""LLaVA's conversation JSON, which KORE-74K is published in: ``{id, image, conversations: [{from, value}, ...]}``."""

from __future__ import annotations

from pathlib import Path

from . import json_rows
from .conversations import LLAVA, Conversations, Problems, read
from .evoke_writer import llava_row
from .fields import Row
from .pictures import Pictures
from .writing import Target

FILE = "llava.json"
KORE_74K = "KORE-74K-training_data.json"


def fits(row: Row) -> bool:
    """Return whether a file whose first row this is holds LLaVA conversations."""
    return LLAVA.turns in row.data and "images" not in row.data


def read_llava(file: Path, pictures: Pictures, problems: Problems) -> Conversations:
    """Return the conversations of a JSON array or JSONL file; raises UserError naming file, line and field."""
    return read(file, json_rows.rows(file), pictures, LLAVA, "image", "llava", problems)


def write_llava(conversations: Conversations, folder: Path) -> Path:
    """Write conversations and their images into a new folder; returns the JSON file."""
    target = Target(folder, (conversations.root, *conversations.unpacked))
    return target.array(FILE, (target.named(llava_row(example)) for example in conversations.examples))
