"""preview.html: the trees of an augmented data set in one page, read on demand; nothing is loaded but its images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from itertools import islice
from pathlib import Path
from string import Template
from typing import IO, Any

from kore_bench.errors import UserError
from kore_bench.inline import as_text, packed, policy_hash
from kore_bench.results import replacing

from ..output import MANIFEST, REPORT
from .trees import trees

PREVIEW = "preview.html"
CHUNK = 40
"""Items in one data block."""
_SCRIPTS = ("data", "list", "tree", "preview")
_EXCERPT = 240  # characters of an item's text that the list shows and the search reads


def write_preview(folder: Path) -> Path:
    """Write ``preview.html`` into the folder of an augmented data set and return it.

    Each item is a tree: its image, its dialogue, the branches, what was refused and why, and what of it stands in the
    evaluation too. The page holds the texts, packed and read when an item is shown; images stay where they are, beside
    it. Raises UserError where the folder holds no such data set.
    """
    page = _checked(folder) / PREVIEW
    with replacing(page) as stream:
        _write(stream, folder)
    return page


@dataclass
class _Contents:
    """What the page's list shows of each item, by column."""

    id: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    image: list[str] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    overlaps: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)

    def add(self, tree: Mapping[str, Any]) -> None:
        samples = tree["samples"]
        said = [turn[1] for sample in samples for turn in sample["turns"][:1] if len(turn) > 1]
        captions = [sample["turns"][0][1] for sample in samples if sample["part"] == "caption" and sample["turns"]]
        self.id.append(tree["id"])
        self.text.append(" ".join([*captions[:1], *said[:1]])[:_EXCERPT])
        self.image.append(next((sample["images"][0] for sample in samples if sample["images"]), ""))
        self.samples.append(len(samples))
        self.refused.append(len(tree["refused"]))
        self.overlaps.append(sum(len(sample["overlaps"]) for sample in samples))
        self.removed.append(len(tree["removed"]))


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: give the one that `kore-bench augment DATA --out DIR` has written"
        )
    return folder


def _write(stream: IO[str], folder: Path) -> None:
    """Write the page part by part: no more than one data block is held in memory."""
    style, script = _part("page.css"), _script()
    before, after = Template(_part("page.html")).substitute(
        title=as_text(f"Knowledge trees of {folder.resolve().name}"), lead=as_text(_lead(folder).replace("\0", "")),
        style=style, style_hash=policy_hash(style), script=script, script_hash=policy_hash(script), blocks="\0",
    ).split("\0")  # fmt: skip
    stream.write(before)
    contents = _Contents()
    for number, some in enumerate(_chunks(trees(folder))):
        for tree in some:
            contents.add(tree)
        _block(stream, f"trees-{number}", some)
    _block(stream, "contents", {**vars(contents), "chunk": CHUNK})
    stream.write(after)


def _chunks(found: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rest = iter(found)
    while some := list(islice(rest, CHUNK)):
        yield some


def _block(stream: IO[str], name: str, value: Any) -> None:
    stream.write(f'<script type="text/plain" id="{name}">{packed(value)}</script>\n')


def _lead(folder: Path) -> str:
    """Return in words what the data set's own report and manifest say of it; as much as they do."""
    report, plan = _read(folder / REPORT), _read(folder / MANIFEST).get("plan") or {}
    counts, found = report.get("statistics") or {}, (report.get("contamination") or {}).get("found") or {}
    said = [f"{counts[name]:,} {name}" for name in ("items", "samples", "turns", "images") if name in counts]
    said += [f"{name} {plan[name]}" for name in ("generator", "llm", "images", "recognition") if plan.get(name)]
    said += [f"overlaps with the evaluation: {sum(found.values()):,}"] if found else []
    return "; ".join(said)


def _read(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _part(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _script() -> str:
    parts = "\n".join(_part(f"{name}.js") for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\nstart();\n}})();\n'
