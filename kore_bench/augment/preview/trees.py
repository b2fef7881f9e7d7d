"""Reads the folder of an augmented data set back as trees, an item at a time, for the preview page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, zip_longest
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from kore_bench.augment.output import CONTAMINATION, REJECTS, SAMPLES
from kore_bench.errors import UserError
from kore_bench.formats.json_rows import rows

LLAVA = "llava.json"
LONGEST = 2000
"""Characters of one text that the page shows."""

Values = Mapping[str, Any]


def trees(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what the page shows of each item, in the data set's order; items of which nothing is left stand last.

    A tree has the item's ``id``, its ``samples`` (each with its turns, image, origin, and its overlaps with the
    evaluation), what was ``refused`` by a gate, and what was ``removed`` for an overlap. Raises UserError where a file is
    missing, damaged, or does not go with the others.
    """
    refused, overlaps = _by_item(folder / REJECTS), _by_item(folder / CONTAMINATION)
    for item, pairs in groupby(_samples(folder), key=lambda pair: str(pair[1].get("item", ""))):
        yield _tree(item, list(pairs), refused.pop(item, ()), overlaps.pop(item, ()))
    for item in dict.fromkeys([*refused, *overlaps]):
        yield _tree(item, [], refused.get(item, ()), overlaps.get(item, ()))


def _samples(folder: Path) -> Iterator[tuple[Values, Values]]:
    """Yield each sample's row with the row that says where it comes from."""
    for name in (LLAVA, SAMPLES):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has no {name}: give the folder that `kore-bench augment DATA --out DIR` has written; "
                "after a kill, run that again first"
            )
    for sample, origin in zip_longest(rows(folder / LLAVA), rows(folder / SAMPLES)):
        if sample is None or origin is None or sample.data.get("id") != origin.data.get("id"):
            place = sample.place if sample is not None else "its end"
            raise UserError(f"{folder}: {LLAVA}, {place}, does not go with {SAMPLES}: write the data set again")
        yield sample.data, origin.data


def _by_item(file: Path) -> dict[str, list[Values]]:
    found: dict[str, list[Values]] = {}
    for row in rows(file) if file.is_file() else ():
        found.setdefault(str(row.data.get("item", "")), []).append(row.data)
    return found


def _tree(
    item: str, pairs: Sequence[tuple[Values, Values]], refused: Sequence[Values], overlaps: Sequence[Values]
) -> dict[str, Any]:
    kept = [overlap for overlap in overlaps if not overlap.get("removed")]
    return {
        "id": item,
        "samples": [_sample(sample, origin, kept) for sample, origin in pairs],
        "refused": [
            _texts(reject, ("part", "reason", "detail", "question", "answer", "subject")) for reject in refused
        ],
        "removed": [_overlap(overlap) for overlap in overlaps if overlap.get("removed")],
    }


def _sample(sample: Values, origin: Values, overlaps: Sequence[Values]) -> dict[str, Any]:
    given = sample.get("image") or []
    images = [given] if isinstance(given, str) else given
    said = [short(_without_mark(turn.get("value"))) for turn in sample.get("conversations") or []]
    prompts = [
        f"{one.get('prompt')} {one.get('version')}, seed {one.get('seed')}" for one in origin.get("prompts") or []
    ]
    likeness = origin.get("likeness")
    writer = " ".join(filter(None, (str(origin.get("generator") or ""), str(origin.get("model") or ""))))
    return {
        "id": short(origin.get("id")), "part": short(origin.get("part")),
        "images": [address(image) for image in images],
        "turns": [said[start : start + 2] for start in range(0, len(said), 2)],
        "likeness": likeness if isinstance(likeness, float) else None,
        "origin": short("; ".join(filter(None, (writer, *prompts)))),
        "overlaps": [_overlap(overlap) for overlap in overlaps if overlap.get("sample") == origin.get("id")],
    }  # fmt: skip


def _overlap(overlap: Values) -> dict[str, Any]:
    turn, score = overlap.get("turn", -1), overlap.get("score", 1.0)
    return {
        **_texts(overlap, ("sample", "kind", "question", "asked")),
        "turn": turn if isinstance(turn, int) else -1,
        "score": score if isinstance(score, int | float) else 1.0,
    }


def _texts(row: Values, names: Sequence[str]) -> dict[str, str]:
    return {name: short(row.get(name)) for name in names}


def _without_mark(text: Any) -> str:
    return str(text or "").replace("<image>\n", "").replace("<image>", "")


def short(text: Any) -> str:
    """Return a text, cut off after ``LONGEST`` characters; nothing for None."""
    whole = "" if text is None else str(text)
    return whole if len(whole) <= LONGEST else whole[: LONGEST - 1] + "…"


def address(image: Any) -> str:
    """Return the address of an image within the folder, empty where it leads out of it."""
    path = PurePosixPath(str(image))
    if path.is_absolute() or ".." in path.parts or "\\" in str(image) or not path.parts:
        return ""
    return "./" + quote(str(path))  # ./, so that no part is taken for a scheme
