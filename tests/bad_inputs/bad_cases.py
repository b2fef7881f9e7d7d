"""What a bad input is: a name, a command, files that are written first, and the sentence that must be said."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

Build = Callable[[Path], None]
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bad input: ``build`` writes files into an empty folder, where ``command`` then runs.

    The command must end with ``code`` and say ``says`` on its error stream (``out``: on its output). Only where it ``leaves`` something may the folder be another afterwards.
    """

    name: str
    command: str
    says: str
    code: int = 2
    out: bool = False
    leaves: bool = False
    build: Build = field(default=lambda folder: None)


def picture(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (16, 16), **options: Any) -> bytes:
    """Return a picture's bytes."""
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind, **options)
    return stream.getvalue()


def items() -> Rows:
    """Return two sound injection rows."""
    return [
        {
            "id": f"item-{number}",
            "image": f"{number}.png",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is this?"},
                {"from": "gpt", "value": f"This is thing {number}, made in Xanadu {number}."},
            ],
            "name": f"Thing {number}",
            "type": "thing",
        }
        for number in (1, 2)
    ]


def questions() -> Rows:
    """Return two sound evaluation rows."""
    return [
        {
            "question_id": number,
            "image": f"{number}.png",
            "text": "Where was it made?",
            "answer": f"Xanadu {number}",
            "type": "thing",
            "cnn_wiki_type": "wiki",
            "item": f"item-{number}",
        }
        for number in (1, 2)
    ]


def write_data(
    root: Path,
    *,
    injection: Rows | str | bytes | None = None,
    evaluation: Rows | str | bytes | None = None,
    images: Mapping[str, bytes] | None = None,
    files: Mapping[str, str | bytes] | None = None,
) -> None:
    """Write a knowledge folder ``data`` into ``root``: sound but for what is given."""
    data = root / "data"
    data.mkdir()
    for name, content in {"1.png": picture(), "2.png": picture(), **(images or {})}.items():
        (data / name).write_bytes(content)
    _write(data / "evoke_injection_data.json", json.dumps(items()) if injection is None else injection)
    sound = "".join(json.dumps(row) + "\n" for row in questions())
    _write(data / "evoke_evaluation_data.jsonl", sound if evaluation is None else evaluation, lines=True)
    for name, other in (files or {}).items():
        _write(data / name, other)


def _write(file: Path, content: Rows | str | bytes, *, lines: bool = False) -> None:
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, str):
        file.write_text(content, encoding="utf-8")
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content))


def changed(rows: Rows, index: int, **fields: Any) -> Rows:
    """Return rows of which one has other fields; a field of ``...`` is taken out."""
    new = {**rows[index], **fields}
    row = {name: value for name, value in new.items() if value is not ...}
    return [*rows[:index], row, *rows[index + 1 :]]


def archive(members: Mapping[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive's bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return stream.getvalue()
