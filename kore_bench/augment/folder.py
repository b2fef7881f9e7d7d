"""Pictures from a local collection (``--images folder:DIR``), found by CLIP: by an item's name, nearest to its picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kore_bench.augment.clip import Clip, Vectors
from kore_bench.augment.collection import pictures_in
from kore_bench.augment.index import PictureIndex
from kore_bench.augment.phash import NEAR, hamming
from kore_bench.augment.providers import RETRIEVED, ImageProvider, Progress
from kore_bench.errors import UserError
from kore_bench.examples import Item

CANDIDATES = 64
"""How many of the nearest pictures are looked at, that ``RETRIEVED`` distinct ones may be found among copies."""
IDENTICAL = 1 - 1e-6
"""From this cosine on, two pictures are one."""
COPY = 0.95
"""From this cosine on, two pictures whose perceptual hashes are near are copies of one."""
_NAMED = 5  # unreadable pictures in one warning
_AT_ONCE = 256  # items whose names are searched for in one pass over the index

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A picture that was found for an item, and how like the item's own it is (cosine of their vectors)."""

    path: Path
    likeness: float


class FolderImages(ImageProvider):
    """``folder:DIR``: a local collection, indexed once by the vectors of a CLIP model.

    The five distinct pictures nearest to the text "name type" are retrieved (an item without a name is searched for by
    its own picture); copies of the item's own picture, by cosine or by perceptual hash, are dropped, and of copies among
    those found one stays. They are given in the order of likeness to the item's own, so that a tree retains the nearest.
    The subject of a question is searched for as "subject hypernym" in the same way. What is retrieved is what is nearest,
    however far that is: `likeness` tells.

    Raises UserError where the folder is not there or holds no picture, and where CLIP is not there or is none.
    """

    def __init__(self, folder: Path, clip: str) -> None:
        self.folder = folder
        self._files = pictures_in(folder)
        self._index = PictureIndex(Clip(clip), str(folder.absolute()))
        self._pictures: dict[int, Path] = {}
        self._all: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._found: dict[str, tuple[Found, ...]] = {}
        self._search = lru_cache(maxsize=4096)(self._search_text)

    def prepare(self, items: Sequence[Item], progress: Progress | None = None) -> None:
        """Index the collection and the items' own pictures, and search for every item."""
        index = self._indexed(progress)
        index.read([item.image for item in items], "item images", progress)
        for start in range(0, len(items), _AT_ONCE):
            some = items[start : start + _AT_ONCE]
            self._found |= zip((item.id for item in some), self._search_items(index, some), strict=True)
            if progress:
                progress("image searches", start + len(some), len(items))

    def pictures(self, item: Item) -> tuple[Path, ...]:
        """Return at most five pictures, the one most like the item's own first."""
        return tuple(found.path for found in self._of(item))

    def likeness(self, item: Item) -> tuple[float, ...]:
        """Return the cosines of the pictures and the item's own."""
        return tuple(found.likeness for found in self._of(item))

    def about(self, subject: str, hypernym: str) -> tuple[Path, ...]:
        """Return at most five distinct pictures nearest to "subject hypernym"."""
        index = self._indexed()
        rows = _distinct(index, self._search(f"{subject} {hypernym}".strip()), [])
        return tuple(self._pictures[row] for row in rows)

    def key(self) -> Mapping[str, str]:
        """Return the folder, the CLIP model, and what identifies its weights."""
        clip = self._index.clip
        return {"images": f"folder:{self.folder}", "clip": clip.path, "clip weights": clip.content}

    def _indexed(self, progress: Progress | None = None) -> PictureIndex:
        if not self._pictures:
            self._index.read(self._files, "images of the collection", progress)
            rows = [(self._index.rows[path], path) for path in reversed(self._files) if path in self._index.rows]
            self._pictures = dict(sorted(rows, key=lambda found: found[0]))  # of equal files, the first
            self._all = np.array(list(self._pictures), dtype=np.int64)
            self._say()
        return self._index

    def _say(self) -> None:
        """Warn of the pictures that cannot be read; raise UserError where that is all of them."""
        problems = self._index.problems
        unreadable = [f"{path.relative_to(self.folder)} {problems[path]}" for path in self._files if path in problems]
        if not self._pictures:
            raise UserError(f"--images folder:{self.folder}: no picture in it can be read: {unreadable[0]}")
        if unreadable:
            more = f"; and {len(unreadable) - _NAMED:,} more" if len(unreadable) > _NAMED else ""
            logger.warning(
                "%s of %s pictures in %s cannot be read and are left out: %s%s", f"{len(unreadable):,}",
                f"{len(self._files):,}", self.folder, "; ".join(unreadable[:_NAMED]), more,
            )  # fmt: skip

    def _of(self, item: Item) -> tuple[Found, ...]:
        if item.id not in self._found:
            self.prepare([item])
        return self._found[item.id]

    def _search_items(self, index: PictureIndex, items: Sequence[Item]) -> list[tuple[Found, ...]]:
        for item in items:
            if item.image in index.problems:
                raise UserError(f"item {item.id}: {item.image} {index.problems[item.image]}")
        own = index.store.vectors([index.rows[item.image] for item in items])
        named = [f"{item.name} {item.type}".strip() if item.name else "" for item in items]
        texts = dict.fromkeys(filter(None, named))
        vectors = dict(zip(texts, index.clip.texts(list(texts)), strict=True)) if texts else {}
        queries = np.stack([vectors[text] if text else vector for text, vector in zip(named, own, strict=True)])
        _, rows = index.nearest(queries, self._all, CANDIDATES)
        return [self._like(index, item, vector, found) for item, vector, found in zip(items, own, rows, strict=True)]

    def _like(
        self, index: PictureIndex, item: Item, own: NDArray[np.float32], candidates: NDArray[np.int64]
    ) -> tuple[Found, ...]:
        """Return the first of the candidates that are distinct from the item's own picture, the most like it first."""
        rows = _distinct(index, candidates.tolist(), [index.rows[item.image]])
        if not rows:
            return ()
        found = zip(rows, (index.store.vectors(rows) @ own).tolist(), strict=True)
        ranked = sorted(found, key=lambda pair: -pair[1])
        return tuple(Found(self._pictures[row], round(likeness, 4)) for row, likeness in ranked)

    def _search_text(self, text: str) -> list[int]:
        index = self._indexed()
        _, rows = index.nearest(index.clip.texts([text]), self._all, CANDIDATES)
        found: list[int] = rows[0].tolist()
        return found


def _distinct(index: PictureIndex, candidates: Sequence[int], other_than: Sequence[int]) -> list[int]:
    """Return the first ``RETRIEVED`` rows of which none is a copy of another or of those in ``other_than``."""
    store = index.store
    every = [*other_than, *candidates]
    vectors = dict(zip(every, store.vectors(every), strict=True)) if every else {}
    kept = list(other_than)
    for row in candidates:
        if not any(_copies(store.hash(row), store.hash(one), vectors[row], vectors[one]) for one in kept):
            kept.append(row)
        if len(kept) == len(other_than) + RETRIEVED:
            break
    return kept[len(other_than) :]


def _copies(hash_one: int, hash_other: int, one: Vectors, other: Vectors) -> bool:
    cosine = float(one @ other)
    return cosine >= IDENTICAL or (cosine >= COPY and hamming(hash_one, hash_other) <= NEAR)
