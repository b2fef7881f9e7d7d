"""The likeliest of given answers: what a model still knows, whatever form its own answers have taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kore_bench.chat import IGNORED
from kore_bench.examples import Turn
from kore_bench.lmm import LMM, Prompt

Row = Mapping[str, Any]
Tokens = tuple[int, ...]


def choose(model: LMM, prompts: Sequence[Prompt], options: Sequence[Sequence[str]], **passing: Any) -> list[str]:
    """Return for each prompt the likeliest of its options, the first of equals; ``passing``: see `LMM.in_batches`.

    An option's likelihood is log p(option | prompt) divided by its number of tokens, without the mark that ends a turn
    (Brown et al., arXiv 2005.14165, section 2.4): options of unlike lengths compare, and whether the model would have
    stopped there is form. No option of n tokens can exceed log p(its first) / n, so that one pass over the prompts
    decides between single tokens and rules out most of the others; the rest is weighed token by token, and the choice
    is that of weighing all.
    """
    tokens = {option: answer_tokens(model, option) for option in sorted({text for own in options for text in own})}

    def answer(places: Sequence[int], rows: Sequence[Row]) -> list[str]:
        contests = [_Contest(row, {text: tokens[text] for text in options[place]}) for place, row in
                    zip(places, rows, strict=True)]  # fmt: skip
        _weigh(model, [(contest, ()) for contest in contests])
        _weigh(model, [(contest, contest.leader[:-1]) for contest in contests if len(contest.leader) > 1])
        _weigh(model, [(contest, stem) for contest in contests for stem in contest.open_stems()])
        return [contest.winner() for contest in contests]

    return model.in_batches(prompts, answer, **passing)


def answer_tokens(model: LMM, answer: str) -> Tokens:
    """Return an answer's token ids as they follow a prompt, without the mark that ends its turn."""
    labels = model.encode((Turn(question="?", answer=answer),), ())["labels"]
    marks = {*model.tokenizer.all_special_ids}
    kept = tuple(token for token in labels if token != IGNORED)
    return tuple(token for token in kept if token not in marks) or kept


@dataclass(eq=False)
class _Contest:
    """One prompt and its options; ``tables`` holds the next token's log-probabilities ``[vocabulary]`` after a stem."""

    row: Row
    options: Mapping[str, Tokens]
    tables: dict[Tokens, torch.Tensor] = field(default_factory=dict)

    @property
    def leader(self) -> Tokens:
        """The option that could be the likeliest, by its first token."""
        return max(self.options.values(), key=self.bound)

    def bound(self, tokens: Tokens) -> float:
        """Return what an option's likelihood is at most."""
        return float(self.tables[()][tokens[0]]) / len(tokens)

    def likelihood(self, tokens: Tokens) -> float:
        """Return an option's likelihood, minus infinity where it has not been weighed."""
        stems = [tokens[:place] for place in range(len(tokens))]
        if not all(stem in self.tables for stem in stems):
            return -torch.inf
        return sum(float(self.tables[stem][token]) for stem, token in zip(stems, tokens, strict=True)) / len(tokens)

    def open_stems(self) -> list[Tokens]:
        """Return what stands before the last token of options that may still exceed those that were weighed."""
        best = max(map(self.likelihood, self.options.values()))
        rivals = [tokens for tokens in self.options.values() if self.bound(tokens) >= best]
        return sorted({tokens[:-1] for tokens in rivals} - self.tables.keys())

    def winner(self) -> str:
        """Return the likeliest option, the first of equals."""
        return max(self.options, key=lambda text: self.likelihood(self.options[text]))


def _weigh(model: LMM, asked: Sequence[tuple[_Contest, Tokens]]) -> None:
    """Fill the tables of contests behind every part of a stem, in batches of like lengths."""
    size = model.card.evaluation_batch_size
    ordered = sorted(asked, key=lambda pair: len(pair[0].row["input_ids"]) + len(pair[1]))
    for begin in range(0, len(ordered), size):
        batch = ordered[begin : begin + size]
        rows = [{**contest.row, "input_ids": [*contest.row["input_ids"], *stem]} for contest, stem in batch]
        logits = model.model(**model.to_device(model.collate(rows))).logits
        for line, (contest, stem) in enumerate(batch):
            end = len(contest.row["input_ids"])
            found = logits[line, end - 1 : end + len(stem)].float().log_softmax(-1).cpu()
            contest.tables |= {stem[:place]: found[place] for place in range(len(stem) + 1)}
