"""The question browser's part of the page: its frame, and its data in chunks that the page's script reads on demand.

Each chunk is a data block, which no browser runs. ``browser`` lists models, methods, seeds and tasks; ``asked-M-T`` holds
the questions of model M and task T, ``given-M-T-S`` what its cells answered under seed S (both gzip, base64), and
``pictures-N`` some of the pictures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from itertools import accumulate
from typing import Any

import numpy as np

from kore_bench.inline import in_script, packed
from kore_bench.results import RunFolder

from .answers import Answers, answers_of
from .browser_images import LEFT_OUT, NOT_FOUND, Pictures, image_folders
from .summary import Summary, summarise
from .tabular import shorten

HEADING = "Every question"
ANSWERS_BUDGET = 32 * 2**20
"""Bytes of questions and answers in one page, as base64; the first seed is there in any case."""

PICTURES_BUDGET = 12 * 2**20
"""Bytes of pictures in one page, before base64."""

_LONGEST = 600  # characters of one text


@dataclass
class _Blocks:
    """Data blocks by their element's id."""

    texts: dict[str, str] = field(default_factory=dict)

    def html(self) -> str:
        return "\n".join(
            f'<script type="text/plain" id="{escape(name)}">{text}</script>' for name, text in self.texts.items()
        )

    @property
    def size(self) -> int:
        return sum(map(len, self.texts.values()))


def browser(run: RunFolder) -> str:
    """Return the browser's HTML, empty where no cell left predictions; everything from records is data, not markup."""
    summaries = [summary for summary in summarise(run) if answers_of(run, summary.model)]
    if not summaries:
        return ""
    blocks, pictures, notes = _Blocks(), Pictures(PICTURES_BUDGET), list[str]()
    models = [_model(run, summary, index, blocks, pictures, notes) for index, summary in enumerate(summaries)]
    chunks = pictures.chunks()
    blocks.texts |= {f"pictures-{number}": json.dumps(chunk) for number, chunk in enumerate(chunks)}
    left = sum(place == LEFT_OUT for place in pictures.places.values())
    if left:
        notes.append(
            f"{left:,} of {len(pictures.places):,} images are left out to keep the page small: it holds the first "
            f"{len(pictures.places) - left:,}."
        )
    contents = {"models": models, "pictures": list(accumulate(map(len, chunks)))}  # where each chunk of pictures ends
    blocks.texts = {"browser-contents": in_script(contents), **blocks.texts}
    frame = (resources.files(__package__) / "templates" / "browser.html").read_text(encoding="utf-8")
    said = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f"{frame}{said}\n{blocks.html()}"


def _model(
    run: RunFolder, summary: Summary, index: int, blocks: _Blocks, pictures: Pictures, notes: list[str]
) -> dict[str, Any]:
    """Write one model's chunks and return its entry in the contents; what does not fit is said in ``notes``."""
    answers = answers_of(run, summary.model)
    folders = image_folders(run, [record for row in summary.rows for record in row.done])
    before = len(pictures.places)
    for task, one in enumerate(answers.values()):
        pictures.add(folders, (path for question in one.questions for path in question.images))
        places = [[pictures.places[folders, path] for path in question.images] for question in one.questions]
        blocks.texts[f"asked-{index}-{task}"] = packed(_asked(one, places))
    if not folders and len(pictures.places) > before:
        root = next((str(record.data.get("root")) for row in summary.rows for record in row.done if record.data), "")
        notes.append(
            f"Images not found: the data folder {root} is not where it was. Build the report again where it lies."
        )
    elif folders and (
        absent := [path for (where, path), place in pictures.places.items() if (where, place) == (folders, NOT_FOUND)]
    ):
        notes.append(f"{len(absent):,} images were not found in {folders[0].name}, such as {shorten(absent[0], 90)}.")
    seeds: list[int] = []
    for seed in summary.seeds:
        chunks = {
            f"given-{index}-{task}-{seed}": packed(_given(run, summary, one, seed))
            for task, one in enumerate(answers.values())
        }
        if seeds and blocks.size + sum(map(len, chunks.values())) > ANSWERS_BUDGET:
            continue
        blocks.texts |= chunks
        seeds.append(seed)
    if left := [seed for seed in summary.seeds if seed not in seeds]:
        notes.append(
            f"The answers of seed {', '.join(map(str, left))} on {summary.model} are left out to keep the page small."
        )
    return {
        "name": summary.model,
        "seeds": seeds,
        "methods": [
            {
                "name": row.method,
                "reference": row.reference,
                "missing": {record.seed: f"{record.status}: {shorten(record.reason, 200)}" for record in row.missing},
            }
            for row in summary.rows
        ],
        "tasks": [{"name": name, "count": len(one.questions)} for name, one in answers.items()],
    }


def _asked(answers: Answers, places: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the questions of a task by column; types and kinds are indices into their names."""
    columns: dict[str, Any] = {
        "id": [question.id for question in answers.questions],
        "text": [_short(question.text) for question in answers.questions],
        "gold": [_short(question.answer) for question in answers.questions],
        "images": [
            list(zip(place, question.images, strict=True))
            for place, question in zip(places, answers.questions, strict=True)
        ],
    }
    for name in ("type", "kind"):
        names = {text: number for number, text in enumerate(sorted({getattr(q, name) for q in answers.questions}))}
        columns[f"{name}s"] = list(names)
        columns[name] = [names[getattr(question, name)] for question in answers.questions]
    return columns


def _given(run: RunFolder, summary: Summary, answers: Answers, seed: int) -> dict[str, Any]:
    """Return what each method answered under one seed, null for a cell that is not there.

    ``said`` and ``right`` hold one index a question into ``texts`` and ``levels`` (how right, 0 to 1), -1 for none.
    """
    cells = [next((run.name_of(record) for record in row.done if record.seed == seed), None) for row in summary.rows]
    rows = [None if cell is None else answers.cells.get(cell) for cell in cells]
    there = [row for row in rows if row is not None]
    values, correct = np.unique(answers.correct[there], return_inverse=True)
    levels = [float(value) for value in values if not np.isnan(value)]
    right = np.where(correct < len(levels), correct, -1).reshape(len(there), -1)
    texts, said = np.unique(answers.said[there], return_inverse=True)
    none = int(texts[0] == -1) if len(texts) else 0  # -1, for no answer, is the smallest
    said = said.reshape(len(there), -1) - none
    places = iter(range(len(there)))
    order = [None if row is None else next(places) for row in rows]
    return {
        "levels": [round(level, 4) for level in levels],
        "texts": [_short(answers.texts[text]) for text in texts[none:]],
        "right": [None if place is None else right[place].tolist() for place in order],
        "said": [None if place is None else said[place].tolist() for place in order],
    }


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
