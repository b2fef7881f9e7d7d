"""General augmentation of pictures by what they show: other pictures of the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random

from kore_bench.augmentation import Augmentation
from kore_bench.component import Find, Method, Run
from kore_bench.errors import UserError
from kore_bench.examples import Example, Item, Knowledge
from kore_bench.generators import Illustrator


@dataclass(frozen=True, kw_only=True)
class AugmentImageAware(Augmentation):
    """Adds copies of every item that show it in other pictures; the text stays.

    ``generator`` names a generator that can (a `kore_bench.generators.Illustrator`): ``template`` takes the pictures
    that were retrieved for the item, which in the mini world are other renderings of it. Where there are fewer pictures
    than copies, they take turns.
    """

    name = "augment-image-aware"
    generator: str = "template"

    def uses(self) -> Sequence[tuple[str, str]]:
        """Return the generator."""
        return [("generators", self.generator)]

    def check_data(self, knowledge: Knowledge, find: Find) -> None:
        """Refuse a generator that gives no pictures, and items of which it has none."""
        writer = find("generators", self.generator)
        if not isinstance(writer, Illustrator):
            raise UserError(
                f"augment-image-aware.generator={self.generator} gives no pictures: use one that does, such as template"
            )
        for item in knowledge.items:
            try:
                writer.check_pictures(item)
            except UserError as error:
                raise UserError(f"augment-image-aware: {error}") from None

    def vary(self, item: Item, rng: Random, run: Run) -> list[Example]:
        """Return copies with other pictures."""
        writer: Illustrator = run.find("generators", self.generator)
        pictures = islice(cycle(writer.pictures(item, rng, self.copies)), self.copies)
        return [self.copy(item, number, image=picture) for number, picture in enumerate(pictures)]


METHOD = Method(
    name="augment-image-aware",
    summary="LoRA on copies of the items with other pictures of the same thing",
    source="KORE table 5 (arXiv 2510.19316): knowledge-aware image augmentation",
    components=(AugmentImageAware(),),
)
