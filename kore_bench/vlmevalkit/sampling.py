"""Which rows of a data set belong together, so that ``--limit`` draws whole groups, the same for every method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kore_bench.task import draw

CIRCLE = 10**6  # a multiple-choice row whose options are turned around has this, or a multiple, added to its index


def group_of(row: Mapping[str, Any], rule: str) -> str:
    """Return what must stay together with a row of a VLMEvalKit table.

    ``rule`` is ``image`` (the questions about one picture of a category: MME's accuracy+), ``figure`` (all figures and
    questions of a set: HallusionBench's fAcc and qAcc), ``circle`` (a question under every order of its options), or
    ``row``.
    """
    index = row["index"]
    if rule == "image":
        return f"{row['category']}/{row['image_path']}"
    if rule == "figure":
        return f"{row['l2-category']}/{str(index).split('_')[3]}"
    if rule == "circle":
        return str(int(row["g_index"]) if "g_index" in row else int(index) % CIRCLE)
    return str(index)


def choose(groups: Sequence[str], strata: Sequence[str], limit: int) -> list[int]:
    """Return the places of about ``limit`` rows, in ascending order: whole groups, in turn from each stratum.

    Every stratum gives at least one group, as MME has no total where a category is missing, so that there may be more.
    """
    least = len(set(strata)) * max(Counter(groups).values(), default=0)
    return list(draw(range(len(groups)), groups, max(limit, least), strata))
