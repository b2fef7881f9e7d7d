"""What VLMEvalKit's results mean: headline figures in percent, and how right each answer was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kore_bench.errors import UserError
from kore_bench.measures import Score
from kore_bench.vlmevalkit import Asked

from .cards import Benchmark, Headline
from .intervals import Told, with_interval

_FRACTIONS = ("MCQ",)
_PERCENT = ("Y/N", "VQA")


def plain_headline(name: str, kind: str, result: Sequence[Mapping[str, Any]]) -> Headline:
    """Return where the headline figure of a data set without a card stands: the column Overall of its only row.

    Multiple choice is given in fractions there, yes or no and short answers in percent. Raises UserError where the
    result says it otherwise, for a figure that may be read wrongly is worse than none.
    """
    rows = [row for row in result if row.get("split", "Overall") in ("Overall", "none")] if len(result) > 1 else result
    if len(rows) != 1 or not isinstance(rows[0].get("Overall"), int | float) or kind not in (*_FRACTIONS, *_PERCENT):
        found = ", ".join(dict.fromkeys(name for row in result for name in row))
        raise UserError(
            f"vlmeval:{name} has no headline figure that kore-bench knows: VLMEvalKit gives {len(result)} rows of {found}"
        )
    row = {"split": str(rows[0]["split"])} if len(result) > 1 else {}
    return Headline(columns=("Overall",), row=row, scale=100.0 if kind in _FRACTIONS else 1.0)


def to_scores(
    card: Benchmark, headline: Headline, rows: Sequence[Asked], said: Sequence[Sequence[str]], found: Mapping[str, Any]
) -> dict[str, Score]:
    """Return the headline figure with its interval, and the card's further ones, as VLMEvalKit gives them.

    Raises UserError where the result has no such figure.
    """
    value = headline.read(found["result"])
    if value is None or not math.isfinite(value):
        where = f"the row {dict(headline.row)}" if headline.row else "its row"
        raise UserError(
            f"VLMEvalKit's result of {card.dataset} has no figure {' + '.join(headline.columns)} in {where}"
        )
    told = [
        Told(row, texts[-1], worth if isinstance(worth, list) else [worth])
        for row, texts, worth in zip(rows, said, found["right"], strict=True)
        if row.counted and worth is not None
    ]
    scores = {card.metric: with_interval(value, told, card.formula)}
    for name, part in card.parts.items():
        figure = part.read(found["result"])
        if figure is not None:
            scores[f"{card.metric} {name}"] = Score(value=figure, low=figure, high=figure, n=len(rows))
    return scores


def to_rows(rows: Sequence[Asked], said: Sequence[Sequence[str]], right: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield a row of the predictions file for each turn of which VLMEvalKit says how right it was."""
    for row, texts, credit in zip(rows, said, right, strict=True):
        credits = credit if isinstance(credit, list) else [credit] * len(texts)
        for turn, (text, worth) in enumerate(zip(texts, credits, strict=True)):
            if worth is not None:
                yield {
                    "id": f"{row.id}/{turn + 1}" if len(texts) > 1 else row.id, "images": [], "text": row.text(turn),
                    "answer": row.answers[turn], "prediction": text, "correct": worth, "type": row.category, "kind": "",
                    "group": row.group,
                }  # fmt: skip
