"""General augmentation of texts by what they say: the same facts written anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from kore_bench.augmentation import Augmentation
from kore_bench.component import Find, Method, Run
from kore_bench.errors import UserError
from kore_bench.examples import Example, Item, Knowledge
from kore_bench.generators import Rewriter


@dataclass(frozen=True, kw_only=True)
class AugmentTextAware(Augmentation):
    """Adds copies of every item whose text a generator has written anew, fact for fact.

    ``generator`` names a generator that can (a `kore_bench.generators.Rewriter`): the paper's is a language model;
    ``template`` arranges an item's structured facts in drawn order and wording.
    """

    name = "augment-text-aware"
    generator: str = "template"

    def uses(self) -> Sequence[tuple[str, str]]:
        """Return the generator."""
        return [("generators", self.generator)]

    def check_data(self, knowledge: Knowledge, find: Find) -> None:
        """Refuse a generator that rewrites no text, and items that it cannot write about."""
        writer = find("generators", self.generator)
        if not isinstance(writer, Rewriter):
            raise UserError(
                f"augment-text-aware.generator={self.generator} rewrites no texts: use one that does, such as template"
            )
        for item in knowledge.items:
            try:
                writer.check(item)
            except UserError as error:
                raise UserError(f"augment-text-aware: {error}") from None

    def vary(self, item: Item, rng: Random, run: Run) -> list[Example]:
        """Return copies with rewritten texts."""
        writer: Rewriter = run.find("generators", self.generator)
        return [self.copy(item, number, text=writer.rewrite(item, rng)) for number in range(self.copies)]


METHOD = Method(
    name="augment-text-aware",
    summary="LoRA on copies of the items whose texts a generator has written anew",
    source="KORE table 5 (arXiv 2510.19316): knowledge-aware text augmentation",
    components=(AugmentTextAware(),),
)
