"""General augmentation of texts by what they say: the same facts written anew."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from kore_bench.augment.pool import each
from kore_bench.augmentation import Augmentation
from kore_bench.component import Find, Method, Run
from kore_bench.errors import UserError
from kore_bench.examples import Example, Item, Knowledge
from kore_bench.generators import RejectedError, Rewriter


@dataclass(frozen=True, kw_only=True)
class AugmentTextAware(Augmentation):
    """Adds copies of every item whose text a generator has written anew, fact for fact.

    ``generator`` names a generator that can (a `kore_bench.generators.Rewriter`): the paper's is a language model;
    ``openai`` asks one behind an endpoint, ``hf`` a local one, ``template`` arranges an item's structured facts in drawn
    order and wording.
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

    def data(self, examples: list[Example], run: Run) -> list[Example]:
        """Append the copies of every item; many items are written about at once where the generator can."""
        rng, writer = run.rng(self), run.find("generators", self.generator)
        streams = {item.id: rng.getrandbits(64) for item in run.items}
        before = writer.usage()

        def written(item: Item) -> tuple[str, list[Example]]:
            return item.id, self.vary(item, Random(streams[item.id]), run)

        copies = dict(each(run.items, written, writer.settings.in_flight))
        added = [copy for item in run.items for copy in copies[item.id]]
        run.log(f"{self.name}/copies", len(added))
        for name, used in writer.usage().items():  # a copy that is not there is one of the rejects
            run.log(f"{self.name}/llm {name}", used - before[name])
        return examples + added

    def vary(self, item: Item, rng: Random, run: Run) -> list[Example]:
        """Return copies with rewritten texts; fewer where the generator rejects what its model wrote."""
        writer: Rewriter = run.find("generators", self.generator)
        copies = []
        for number in range(self.copies):
            with suppress(RejectedError):
                copies.append(self.copy(item, number, text=writer.rewrite(item, rng)))
        return copies


METHOD = Method(
    name="augment-text-aware",
    summary="LoRA on copies of the items whose texts a generator has written anew",
    source="KORE table 5 (arXiv 2510.19316): knowledge-aware text augmentation",
    components=(AugmentTextAware(),),
)
