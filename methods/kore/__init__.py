"""KORE (arXiv 2510.19316): the augmentation, the constraint, both together, and the constraint's two controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from kore_bench.augment.grown import PARTS, About, KnowledgeTree
from kore_bench.augment.pool import each
from kore_bench.component import AdapterSpec, Component, Defaults, Find, Layers, Method, Needs, Run, resolve_rank
from kore_bench.errors import UserError, nearest
from kore_bench.examples import Example, Item, Knowledge

from .matching import match
from .tree import check_described, count, plant, statistics_card, strangers, stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kore_bench.generators import Generator
    from kore_bench.lmm import LMM
    from kore_bench.statistics import Counting

    from .tree import Embed

RECOGNITION = ("paper", "balanced")
"""What recognition tasks answer: always Yes, or No for half of the items."""


@dataclass(frozen=True, kw_only=True)
class KoreAugmentation(Component):
    """Turns each item into a knowledge tree of dialogues and instruction tasks (paper section 3.2).

    ``generator`` writes the generated text; ``turns`` bounds the dialogue, ``questions`` the VQA samples of an item;
    ``parts`` selects the trunk (dialogue) and the branches (recognition, caption, vqa). ``recognition`` is ``paper`` (the
    answer is always Yes) or ``balanced`` (half of the items are asked for by another's name, the answer being No).
    ``source`` is a folder or file of trees that were generated before, such as KORE-74K or what `kore-bench augment`
    made: they are taken whole, and nothing is generated.
    """

    name = "kore-augmentation"
    source: str = ""
    generator: str = "template"
    turns: int = 10
    questions: int = 5
    parts: tuple[str, ...] = PARTS
    recognition: str = "paper"

    def check(self) -> None:
        """Refuse a source that is not there, unknown parts, and numbers below zero."""
        self.files()
        for part in self.parts:
            if part not in PARTS:
                raise UserError(f"kore-augmentation.parts: unknown part {part!r}: {nearest(part, PARTS)}")
        if not self.parts:
            raise UserError(f"kore-augmentation.parts is empty: use some of {', '.join(PARTS)}")
        if self.turns < 0 or self.questions < 0:
            raise UserError("kore-augmentation.turns and kore-augmentation.questions must not be negative")
        if self.recognition not in RECOGNITION:
            raise UserError(
                f"kore-augmentation.recognition={self.recognition}: {nearest(self.recognition, RECOGNITION)}"
            )

    def files(self) -> tuple[Path, ...]:
        """Return the source's file of conversations (its pictures are not in the cell's key)."""
        from kore_bench.formats import conversation_files

        try:
            return conversation_files(Path(self.source)) if self.source else ()
        except UserError as error:
            raise UserError(f"--set kore-augmentation.source={self.source}: {error}") from None

    def uses(self) -> Sequence[tuple[str, str]]:
        """Return the generator."""
        return [("generators", self.generator)]

    def check_data(self, knowledge: Knowledge, find: Find) -> None:
        """Refuse items that the source has nothing about, or that the generator cannot write about."""
        if self.source:
            match(Path(self.source), knowledge.items)
            return
        try:
            self.check_items(knowledge.items, find("generators", self.generator))
        except UserError as error:
            raise UserError(
                f"kore-augmentation: {error}; or give trees that were generated before, such as KORE-74K: "
                "--set kore-augmentation.source=PATH"
            ) from None

    def check_items(self, items: Sequence[Item], writer: Generator) -> None:
        """Refuse items without the name or type that the templates need, or that ``writer`` cannot write about."""
        for item in items:
            check_described(item, self.parts)
            writer.check(item)

    def data(self, examples: list[Example], run: Run) -> list[Example]:
        """Replace the items' plain conversations by their trees; examples from elsewhere stay."""
        others = [example for example in examples if example.source != "injection"]
        return (self._taken(run) if self.source else self._grown(run)) + others

    def _taken(self, run: Run) -> list[Example]:
        matched = match(Path(self.source), run.items)
        examples = matched.examples(self.parts)
        card = {**count(examples), "unnamed": len(matched.unnamed), "foreign": matched.foreign}
        for name, number in card.items():
            run.log(f"kore-augmentation/{name}", number)
        return examples

    def _grown(self, run: Run) -> list[Example]:
        writer = run.find("generators", self.generator)
        embed, one = run.embed, Lock()

        def alone(images: Sequence[Path]) -> NDArray[np.floating]:
            with one:  # the base's vision tower works for one thread at a time
                return embed(images)

        grow = self.grower(run.items, run.seed, writer, embed=alone)
        before = writer.usage()
        trees = {tree.item: tree for tree in each(run.items, grow, writer.settings.in_flight)}
        ordered = [trees[item.id] for item in run.items]
        for name, number in statistics_card(ordered).items():
            run.log(f"kore-augmentation/{name}", number)
        for name, used in writer.usage().items():
            run.log(f"kore-augmentation/llm {name}", used - before[name])
        return [example for tree in ordered for example in tree.examples()]

    def grower(
        self, items: Sequence[Item], seed: int, writer: Generator, *, embed: Embed | None = None,
        about: About | None = None,
    ) -> Callable[[Item], KnowledgeTree]:  # fmt: skip
        """Return what grows the tree of one of ``items``, from any thread, the same for equal seeds; see `plant`."""
        asked = strangers(items, seed) if self.recognition == "balanced" else {}

        def grow(item: Item) -> KnowledgeTree:
            return plant(
                item, writer, stream(seed, item), turns=self.turns, questions=self.questions, parts=self.parts,
                embed=embed, about=about, stranger=asked.get(item.id, ""),
            )  # fmt: skip

        return grow


@dataclass(frozen=True, kw_only=True)
class Subspace(Component):
    """A frozen A whose rows span a subspace of each layer's inputs; only B is trained, from zero.

    ``rank``: a number, ``match:lora@R`` for the rank with as many trained parameters as LoRA of rank R, or ``auto`` for
    the model card's LoRA rank matched so.
    """

    rank: int | str = "auto"

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Claim the adapter's start: scale 1 (alpha = rank), no dropout, A frozen."""
        rank = resolve_rank(self.rank, f"{self.name}.rank", layers, defaults, freeze_a=True)
        return spec.claim(self, rank=rank, alpha=float(rank), dropout=0.0, freeze_a=True)

    def adapt(self, model: LMM, run: Run) -> None:
        """Write A of every layer, B zero, and freeze A."""
        factors = run.state(self).pop("A")
        for layer in model.lora_layers():
            model.set_factors(layer, factors[layer], None, freeze_a=True)

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """The covariances of the old samples."""
        return Needs(covariance=True)

    def counting(self, model: LMM) -> Counting:
        """Every token counts once."""
        from kore_bench.statistics import Counting

        return Counting()

    def uses_old_samples(self) -> bool:
        """The covariance reads old samples (the random control's only to match the null space's energy)."""
        return True


@dataclass(frozen=True, kw_only=True)
class KoreNull(Subspace):
    """Starts an adapter in the null space of old activations and freezes it there (paper section 3.3).

    C = X X^T over the inputs X of each linear layer on the old samples; U holds the eigenvectors of the ``rank``
    smallest eigenvalues; A = S^(1/2) V^T of the SVD of W0 U U^T. With A frozen and no weight decay, training B from zero
    on the untouched W0 is the paper's residual form exactly. ``freeze_a=false`` is the paper's ablation: A is trained
    too, from B0, in the residual form. ``orthonormal`` gives all rows of A one norm at the same total, for the norms
    act as learning rates. ``faithful`` divides each sample's inputs by |max x| before C, as the published code does.
    ``image_weight`` weighs image tokens in C (1: the plain count).
    """

    name = "kore-null"
    freeze_a: bool = True
    orthonormal: bool = False
    faithful: bool = False
    image_weight: float = 1.0

    def check(self) -> None:
        """Refuse a negative weight."""
        if not self.image_weight >= 0:
            raise UserError(f"kore-null.image_weight={self.image_weight} must not be negative")

    def shape(self, spec: AdapterSpec, layers: Layers, defaults: Defaults) -> AdapterSpec:
        """Claim the adapter's start: scale 1 (alpha = rank), no dropout; the residual form where A is trained."""
        rank = resolve_rank(self.rank, "kore-null.rank", layers, defaults, freeze_a=self.freeze_a)
        return spec.claim(
            self, rank=rank, alpha=float(rank), dropout=0.0, freeze_a=self.freeze_a, residual=not self.freeze_a
        )

    def counting(self, model: LMM) -> Counting:
        """Return how tokens count in C."""
        from kore_bench.statistics import Counting

        token = model.image_token if self.image_weight != 1 else None  # equal counts share one measurement
        return Counting(image_weight=self.image_weight, image_token=token, faithful=self.faithful)

    def measure(self, model: LMM, run: Run) -> None:
        """Find every layer's factors, and put into the record how good the null space is."""
        from .measuring import null_factors

        factors = null_factors(model, run, self.counting(model), orthonormal=self.orthonormal, log=True)
        state = run.state(self)
        state["A"] = {layer: a for layer, (a, _) in factors.items()}
        state["B"] = {layer: b for layer, (_, b) in factors.items()}

    def adapt(self, model: LMM, run: Run) -> None:
        """Write A (and, where A is trained, B0 with the residual base weight) of every layer."""
        start_b = run.state(self).pop("B")
        if self.freeze_a:
            super().adapt(model, run)
            return
        factors = run.state(self).pop("A")
        for layer in model.lora_layers():
            model.set_factors(layer, factors[layer], start_b[layer], freeze_a=False)
        model.keep_start()


@dataclass(frozen=True, kw_only=True)
class FrozenRandom(Subspace):
    """The control of kore-null whose frozen subspace is random: what freezing alone does.

    Steps and data are kore-null's, and each layer's A is scaled to plain kore-null's energy on the new data,
    tr(A C_new A^T), so that it learns from as much signal. Where kore-null's rank is set, set this one's likewise.
    """

    name = "frozen-random"

    def measure(self, model: LMM, run: Run) -> None:
        """Draw a random subspace for every distinct input, and scale it to the null space's energy."""
        from .measuring import control_factors, random_bases

        bases = random_bases(model, run, run.rng(self).getrandbits(63))
        run.state(self)["A"] = control_factors(model, run, bases)


@dataclass(frozen=True, kw_only=True)
class FrozenTop(Subspace):
    """The control of kore-null whose frozen subspace holds the *largest* eigenvectors of old inputs: the worst place.

    Steps and data are kore-null's, and each layer's A is scaled to plain kore-null's energy on the new data. Where
    kore-null's rank is set, set this one's likewise.
    """

    name = "frozen-top"

    def measure(self, model: LMM, run: Run) -> None:
        """Take the top eigenvectors of every distinct input, and scale them to the null space's energy."""
        from .measuring import control_factors, top_bases

        run.state(self)["A"] = control_factors(model, run, top_bases(model, run))


AUGMENTATION = Method(
    name="kore-augmentation",
    summary="LoRA on knowledge trees: dialogues and instruction tasks made from each item",
    source="KORE section 3.2 (arXiv 2510.19316)",
    components=(KoreAugmentation(),),
)
NULL = Method(
    name="kore-null",
    summary="LoRA with A frozen in the null space of old activations; only B is trained",
    source="KORE section 3.3 (arXiv 2510.19316)",
    components=(KoreNull(),),
)
KORE = Method(
    name="kore",
    summary="KORE: augmentation and constraint together",
    source="KORE (arXiv 2510.19316, ICML 2026)",
    parts=("kore-augmentation", "kore-null"),
)
RANDOM = Method(
    name="frozen-random",
    summary="control of kore-null: A frozen in a random subspace, at equal rank and energy",
    source="kore-bench: shows what freezing alone does",
    components=(FrozenRandom(),),
)
TOP = Method(
    name="frozen-top",
    summary="control of kore-null: A frozen in the largest eigenvectors, at equal rank and energy",
    source="kore-bench: shows the worst place to write",
    components=(FrozenTop(),),
)
