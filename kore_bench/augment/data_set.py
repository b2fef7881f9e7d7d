"""The data set that a journal makes: checked against the evaluation, counted, and written with a report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from kore_bench.cache import file_digest
from kore_bench.examples import Item, Knowledge

from .card import Card
from .contamination import KINDS, OWN_IMAGE, Guard, asked_in, decontaminated
from .journal import Journal, Picture
from .output import REPORT, Output, write_json, write_manifest
from .phash import perceptual_hash
from .pool import each


@lru_cache(maxsize=4096)
def picture(image: Path) -> Picture:
    """Return the digests of an image file; raises UserError where it cannot be read as an image."""
    return Picture(digest=file_digest(image), hash=perceptual_hash(image))


def write_data_set(
    knowledge: Knowledge, items: Sequence[Item], journal: Journal, plan: Mapping[str, Any], *,
    formats: Collection[str], decontaminate: bool,
) -> dict[str, Any]:  # fmt: skip
    """Write into the journal's folder what it holds of ``items``, in their order; return the report written beside.

    ``decontaminate`` leaves out what stands in the evaluation of ``knowledge`` too. Equal entries give equal files,
    but for the report's ``usage``.
    """
    guard, card, found = Guard(knowledge, _asked(knowledge)), Card(), Counter[str]()
    touched = removed = 0
    own = {item.id: item.image for item in items}
    with Output(journal.folder, formats) as output:
        for entry in journal.entries(own):
            overlaps = list(guard.overlaps(entry, own[entry.tree.item]))
            taken = [decontaminate and overlap.kind != OWN_IMAGE for overlap in overlaps]
            found.update(overlap.kind for overlap in overlaps)
            touched, removed = touched + bool(overlaps), removed + sum(taken)
            tree = decontaminated(entry.tree, overlaps) if decontaminate else entry.tree
            rows = ({**asdict(one), "removed": gone} for one, gone in zip(overlaps, taken, strict=True))
            output.add(entry, tree, rows)
            card.add(tree, (entry.pictures[image].digest for example in tree.examples() for image in example.images))
    done = card.counts["items"]
    write_manifest(output, {**plan, "decontaminate": decontaminate}, items=done, of=len(items))
    report = {
        "items": done, "of": len(items), **card.report(), "usage": dict(journal.usage),
        "contamination": {
            "questions": len(guard.questions), "found": {kind: found[kind] for kind in KINDS}, "items": touched,
            "removed": removed, "decontaminate": decontaminate,
        },
    }  # fmt: skip
    write_json(journal.folder / REPORT, report)
    return report


def _asked(knowledge: Knowledge) -> dict[Path, Picture]:
    """Return the images of all that is asked."""
    images = dict.fromkeys(image for _, question in asked_in(knowledge) for image in question.images)
    return dict(each(images, lambda image: (image, picture(image)), os.cpu_count() or 1))
