"""Where further pictures of an item come from (``--images``): the contract, its choice by name, and ``none``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

from kore_bench.augment.changes import OPERATIONS, changed, readable
from kore_bench.augment.clip import DEFAULT
from kore_bench.augmentation import keep_picture
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Item

RETRIEVED = 5
"""How many pictures are retrieved for an item (KORE, arXiv 2510.19316, section 3.1)."""
RETAINED = 2
"""How many of them a tree retains: those most like the item's own."""

Progress = Callable[[str, int, int], None]
"""Is told what is being done, how many are done, and how many there are."""


class ImageProvider(ABC):
    """Gives further pictures of items. `prepare` once, then the rest from any thread."""

    def prepare(self, items: Sequence[Item], progress: Progress | None = None) -> None:  # noqa: B027 (a hook)
        """Do for many items at once what is cheaper so; it can be interrupted, and goes on where it stopped."""

    @abstractmethod
    def pictures(self, item: Item) -> tuple[Path, ...]:
        """Return at most ``RETRIEVED`` pictures for ``Item.retrieved``, the best first; ``RETAINED`` are retained."""

    def about(self, subject: str, hypernym: str) -> tuple[Path, ...]:
        """Return pictures of something else than the item that a question is about, the best first; maybe none."""
        return ()

    def likeness(self, item: Item) -> tuple[float, ...]:
        """Return how like the item's own each of its `pictures` is (cosine, -1 to 1); empty where that is unknown."""
        return ()

    @abstractmethod
    def key(self) -> Mapping[str, str]:
        """Return what identifies the provider in a data set's plan: a set that was begun with another is not gone on."""


class OwnImages(ImageProvider):
    """``none``: nothing is retrieved; changed copies of an item's own picture stand in.

    Pictures that the data set itself names as retrieved are kept. Else there are ``RETAINED`` copies after the general
    augmentations (flip, rotation, crop, colour jitter; no flip where the text speaks of left or right), drawn from the
    seed and the item's id. They lie in the cache.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def pictures(self, item: Item) -> tuple[Path, ...]:
        """Return the data set's retrieved pictures, else changed copies; UserError where the own cannot be read."""
        if item.retrieved:
            return item.retrieved[:RETRIEVED]
        picture = readable(item.image)
        rng = Random(f"{self.seed} {item.id}")
        copies = (changed(picture, OPERATIONS, rng, text=item.text) for _ in range(RETAINED))
        return tuple(map(keep_picture, copies))

    def key(self) -> Mapping[str, str]:
        """Return the name."""
        return {"images": "none"}


def image_provider(given: str, *, clip: str = "", seed: int = 0) -> ImageProvider:
    """Return what ``--images`` names: ``none`` or ``folder:DIR``; ``clip`` is ``--clip`` (empty: `DEFAULT`).

    Raises UserError for another name, for a folder that is not there or holds no image, and where the model is not
    there or is no CLIP model; its weights are not loaded yet.
    """
    name, _, place = given.partition(":")
    if name == "folder" and place:
        from kore_bench.augment.folder import FolderImages

        return FolderImages(Path(place), clip or DEFAULT)
    if given == "none":
        return OwnImages(seed)
    if name == "folder":
        raise UserError("--images folder: names no folder: write --images folder:DIR")
    raise UserError(f"--images {given}: {nearest(given, ('none', 'folder:DIR'))}")
