"""SEFE: a share of the new data is brought to other answer styles, and an old adapter's key weights are held still."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore_bench.asked import says_reserved
from kore_bench.component import AdapterSpec, Component, Find, Layers, Method, Needs, Run
from kore_bench.errors import UserError
from kore_bench.examples import Example, Item, Knowledge, Turn
from kore_bench.generators import RejectedError

if TYPE_CHECKING:
    import torch

    from kore_bench.generators import Generator, Quadruplet
    from kore_bench.lmm import LMM

STYLES = ("yes-no", "multiple-choice", "short-answer", "brief")
FORMATS = {
    "yes-no": "Answer yes or no.",
    "multiple-choice": "Answer with the option's letter from the given choices directly.",
    "short-answer": "Answer the question using a single word or phrase.",
    "brief": "Answer briefly.",
}
"""What is said below the question of each style (the paper's response format prompts)."""
_QUESTIONS = 4  # drawn of each converted item: one is asked, all give distractors
_DISTRACTORS = 3


@dataclass(frozen=True, kw_only=True)
class SEFE(Component):
    """Answer style diversification (ASD) and RegLoRA (Chen et al. 2025).

    ASD: ``share`` of the items' plain conversations (the paper: 20 %) are rewritten, in equal parts, to the styles that
    they have not: yes or no, multiple choice, short answer, brief explanation; the others stay the detailed
    explanations that they are. The ``generator`` writes questions and summaries; wrong answers are other converted
    items' right ones, to the same question where there are any. The paper has a language model write both.

    RegLoRA: ``strength`` times the mean over layers of the mean |B A| over the ``keys`` share (2 %) of entries that
    were largest in ``old``, the folder of an earlier stage's PEFT adapter; as the paper merges that adapter before the
    next stage, the model must be the merged one (`kore-bench export --merge`). With one stage there is no earlier
    adapter (``old`` = ""): the penalty is off, as it is in the published scripts' first task, and SEFE is LoRA on
    diversified data. Deviation: of several earlier stages only one adapter is read.
    """

    name = "sefe"
    share: float = 0.2
    generator: str = "template"
    old: str = ""
    strength: float = 2500.0
    keys: float = 0.02

    def check(self) -> None:
        """Refuse shares outside [0, 1], a negative strength, and an old adapter that is not there."""
        for name in ("share", "keys"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"sefe.{name}={getattr(self, name)} is a share: use 0 to 1")
        if not self.strength >= 0:
            raise UserError(f"sefe.strength={self.strength} must not be negative")
        self.files()

    def files(self) -> tuple[Path, ...]:
        """Return the old adapter's file."""
        from kore_bench.earlier import adapter_file

        return (adapter_file("sefe.old", self.old),) if self.old else ()

    def uses(self) -> Sequence[tuple[str, str]]:
        """Return the generator."""
        return [("generators", self.generator)]

    def check_data(self, knowledge: Knowledge, find: Find) -> None:
        """Refuse items that the generator cannot write about."""
        writer: Generator = find("generators", self.generator)
        for item in knowledge.items if self.share else ():
            try:
                writer.check(item)
            except UserError as error:
                raise UserError(f"sefe: {error}") from None

    def check_spec(self, spec: AdapterSpec, layers: Layers) -> None:
        """Refuse, with an old adapter, a new one whose change of a layer is not s B A from zero."""
        from kore_bench.earlier import check_adapter

        if not self.old:
            return
        spec.check_plain(self)
        if spec.kind != "lora":
            raise UserError("sefe.old needs a low-rank adapter, full has none: use lora+sefe")
        if spec.residual:
            raise UserError(f"sefe.old needs an adapter that starts at B = 0, and {spec.initialiser} starts elsewhere")
        check_adapter("sefe.old", self.old, layers)

    # ---- answer style diversification

    def data(self, examples: list[Example], run: Run) -> list[Example]:
        """Bring a share of the plain conversations to other styles, each in its place; the record counts them."""
        rng, writer = run.rng(self), run.find("generators", self.generator)
        items = {item.id: item for item in run.items}
        plain = [example for example in examples if example.source == "injection"]
        chosen = rng.sample(plain, round(self.share * len(plain)))
        asked = {example.id: _questions(items[example.id], writer, rng) for example in chosen}
        pool = [question for questions in asked.values() for question in questions]
        new = {}
        for number, example in enumerate(chosen):
            wanted = STYLES[number % len(STYLES)] if asked[example.id] else "brief"
            new[example.id] = _in_style(wanted, example, items[example.id], asked[example.id], pool, writer, rng)
        styles = Counter(example.source for example in new.values())
        for style in STYLES:
            run.log(f"sefe/{style}", styles[f"sefe/{style}"])
        return [new.get(example.id, example) if example.source == "injection" else example for example in examples]

    # ---- RegLoRA

    def start(self, model: LMM, run: Run) -> None:
        """Find the key entries of the old adapter's change, layer by layer, as flat indices."""
        if not self.old:
            return
        import torch

        from kore_bench.earlier import read_factors

        shapes = {layer: (linear.out_features, linear.in_features) for layer, linear in model.linears().items()}
        state = run.state(self)
        for layer, (a, b) in read_factors(self.old, run.spec.adapted(shapes)).items():
            change = (b.to(model.device) @ a.to(model.device)).abs().flatten()
            state[layer] = change.topk(max(1, round(self.keys * len(change)))).indices.to(torch.int32)

    def penalty(self, model: LMM, batch: Mapping[str, torch.Tensor], outputs: Any, run: Run) -> torch.Tensor | None:
        """Return the penalty on the key entries; None without an old adapter.

        The change [m, n] of a layer is made again in the backward pass instead of being kept for all layers.
        """
        if not self.old:
            return None
        from torch.utils.checkpoint import checkpoint

        state = run.state(self)
        terms = [checkpoint(_size, *model.factors(layer), keys, use_reentrant=False) for layer, keys in state.items()]
        total: torch.Tensor = self.strength * sum(terms) / len(terms)
        return total

    def needs(self, spec: AdapterSpec, layers: Layers) -> Needs:
        """With an old adapter, the positions of its key entries."""
        weights = sum(out * width for out, width in spec.adapted(layers).values())
        return Needs(kept=round(4 * self.keys * weights) if self.old else 0)


def _size(a: torch.Tensor, b: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return (b @ a).flatten()[keys].abs().mean()


def _questions(item: Item, writer: Generator, rng: random.Random) -> list[Quadruplet]:
    try:
        written = writer.quadruplets(item, rng, _QUESTIONS)
    except RejectedError:
        return []  # the item is then explained briefly
    return [question for question in written if not says_reserved(item, question.answer)]


def _in_style(
    style: str, example: Example, item: Item, asked: Sequence[Quadruplet], pool: Sequence[Quadruplet],
    writer: Generator, rng: random.Random,
) -> Example:  # fmt: skip
    """Return the example with one question about its item in ``style``; as it was where the generator writes nothing."""
    if style == "brief":
        try:
            summary = writer.summary(item, rng)
        except RejectedError:
            return example
        turn = Turn(question=f"{item.prompt}\n{FORMATS[style]}", answer=summary)
    else:
        right = rng.choice(asked)
        wrong = _distractors(right, pool, rng)
        question, answer = {"yes-no": _yes_no, "multiple-choice": _choices, "short-answer": _short}[style](
            right, wrong, rng
        )
        turn = Turn(question=f"{question}\n{FORMATS[style]}", answer=answer)
    return replace(example, id=f"{example.id}/{style}", turns=(turn,), source=f"sefe/{style}")


def _distractors(right: Quadruplet, pool: Sequence[Quadruplet], rng: random.Random) -> list[str]:
    """Return wrong answers: first those that are right for the same question about others, then any."""
    answers = {other.answer: other for other in pool if other.answer.lower() != right.answer.lower()}
    shuffled = rng.sample(list(answers.values()), len(answers))
    shuffled.sort(key=lambda other: _wording(other) != _wording(right))  # stable
    return [other.answer for other in shuffled[:_DISTRACTORS]]


def _wording(asked: Quadruplet) -> str:
    return asked.question.replace(asked.subject, "")


def _yes_no(right: Quadruplet, wrong: Sequence[str], rng: random.Random) -> tuple[str, str]:
    if wrong and rng.random() < 0.5:
        return f"{right.question} Is it {wrong[0]}?", "No"
    return f"{right.question} Is it {right.answer}?", "Yes"


def _choices(right: Quadruplet, wrong: Sequence[str], rng: random.Random) -> tuple[str, str]:
    options = rng.sample([right.answer, *wrong], len(wrong) + 1)
    lines = [f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False)]
    return "\n".join([right.question, *lines]), "ABCD"[options.index(right.answer)]


def _short(right: Quadruplet, wrong: Sequence[str], rng: random.Random) -> tuple[str, str]:
    return right.question, right.answer


METHOD = Method(
    name="sefe",
    summary="LoRA on data of which a share is brought to other answer styles; RegLoRA with an earlier adapter",
    source="SEFE, Chen et al. 2025, arXiv 2505.02486",
    components=(SEFE(),),
    tunes={"sefe.share": (0.1, 0.4)},
)
