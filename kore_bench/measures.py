"""What a prediction is worth: CEM, F1, K.A, K.R, Avg, HARS, and the intervals around them.

Everything a report prints as a score is computed here, from plain text and plain numbers; no model, no files.
The definitions follow KORE (arXiv 2510.19316) and its public code, quirks included, so that figures
compare with the paper's.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_TABLES = json.loads(Path(__file__).with_name("vqa_normalisation.json").read_text(encoding="utf-8"))
_CONTRACTIONS: dict[str, str] = _TABLES["contractions"]
_NUMBER_WORDS: dict[str, str] = _TABLES["number_words"]
_ARTICLES = frozenset(_TABLES["articles"])
_PUNCTUATION: list[str] = _TABLES["punctuation"]

_DIGIT_COMMA = re.compile(r"\d,\d")
# The VQA code's look-behind (?!<=\d) is mistyped and never fails; only the look-ahead acts.
_FULL_STOP = re.compile(r"\.(?!\d)")
# The VQA code passes re.UNICODE (32) where re.sub takes its count, so that no more full stops are deleted.
_MOST_FULL_STOPS = 32
_EDGES = re.compile(r"^\W+|\W+$")

_SQUAD_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


# --- one prediction against one gold answer ---


def cem(prediction: str, answer: str) -> int:
    """Return the cover exact match: 1 where ``answer`` stands in ``prediction`` between word boundaries, else 0.

    Both sides are normalised as the VQA evaluation does. Two quirks are kept because the paper's figures have them:
    an answer with a straight quotation mark, ``$`` or ``%`` at its edge is not covered by itself (see
    ``reachable``), and an answer of articles or punctuation alone is covered by any prediction that holds a word.
    """
    return _covers(_vqa_normalised(prediction), _vqa_normalised(answer))


def repaired_cem(prediction: str, answer: str) -> int:
    """Return the cover exact match with quotation marks and edge punctuation taken off both sides.

    Never below ``cem``; it is printed beside the official score, never instead of it.
    """
    gold = _EDGES.sub("", _vqa_normalised(_EDGES.sub("", answer)))
    covered = _covers(_vqa_normalised(_EDGES.sub("", prediction)), gold) if gold else 0
    return max(cem(prediction, answer), covered)


def reachable(answer: str) -> bool:
    """Return whether ``cem`` gives 1 to a prediction that repeats ``answer`` word for word."""
    return cem(answer, answer) == 1


def f1(prediction: str, answer: str) -> float:
    """Return the SQuAD F1 (0 to 1) of the two token multisets; with an empty side, 1 if both are empty, else 0."""
    predicted, gold = _squad_tokens(prediction), _squad_tokens(answer)
    if not predicted or not gold:
        return float(predicted == gold)
    shared = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * shared / (len(predicted) + len(gold))


def _covers(prediction: str, gold: str) -> int:
    return int(re.search(rf"\b{re.escape(gold)}\b", prediction) is not None)


def _vqa_normalised(text: str) -> str:
    """Return ``text`` as the VQA evaluation compares it."""
    original = text.replace("\n", " ").replace("\t", " ").strip()
    digit_comma = _DIGIT_COMMA.search(original) is not None
    text = original
    for mark in _PUNCTUATION:
        # Decided on the original: one mark beside a space anywhere deletes every such mark.
        delete = digit_comma or f"{mark} " in original or f" {mark}" in original
        text = text.replace(mark, "" if delete else " ")
    text = _FULL_STOP.sub("", text, count=_MOST_FULL_STOPS)
    words = (_NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _squad_tokens(text: str) -> list[str]:
    return _SQUAD_ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


# --- one model: percentages, 0 to 100 ---


def ka(cem: float, f1: float) -> float:
    """Return K.A, knowledge adaptation: the mean of CEM and F1 over the whole evaluation set."""
    return (cem + f1) / 2


def kr(scores: Iterable[float]) -> float:
    """Return K.R, knowledge retention: the plain mean over the benchmarks (the paper: 12, not its 7 dimensions)."""
    values = list(scores)
    return sum(values) / len(values)


def mean_of_scores(scores: Iterable[Score]) -> Score:
    """Return the mean of scores of different questions; the halves of its interval add theirs in quadrature."""
    parts = list(scores)
    value = kr(part.value for part in parts)
    down = math.hypot(*(part.value - part.low for part in parts)) / len(parts)
    up = math.hypot(*(part.high - part.value for part in parts)) / len(parts)
    return Score(value=value, low=value - down, high=value + up, n=sum(part.n for part in parts))


def avg(ka: float, kr: float) -> float:
    """Return Avg, the mean of adaptation and retention."""
    return (ka + kr) / 2


def hars(ka: float, kr: float, ka0: float, kr0: float) -> float | None:
    """Return HARS, the harmonic mean of relative adaptation and retention, or None where it has no meaning.

    ``ka0`` and ``kr0`` are the untouched base's. With the relative gains in percent GA = 100 (ka / ka0 - 1) and
    GR = 100 (kr / kr0 - 1), fA = 100 GA / (GA + 100) and fR = GR + 100: HARS = 2 fA fR / (fA + fR).
    None where the model adapted nothing (GA <= 0) or a base score is 0, so that a gain relative to it is undefined.
    """
    if not (ka > ka0 > 0 and kr0 > 0 and math.isfinite(ka) and kr >= 0):
        return None
    adapted = 100 * (1 - ka0 / ka)
    retained = 100 * kr / kr0
    return 2 * adapted * retained / (adapted + retained)


def hars_exchange(ka: float, kr: float, ka0: float, kr0: float) -> float | None:
    """Return how many points of K.A HARS gives for one point of K.R at this place, or None where HARS has no meaning.

    (dHARS / dK.R) / (dHARS / dK.A) = (fA / fR)^2 K.A^2 / (K.A0 K.R0): with a weak base a point of K.A soon buys little,
    and HARS is then mostly a measure of retention.
    """
    if hars(ka, kr, ka0, kr0) is None or kr == 0:
        return None
    adapted, retained = 100 * (1 - ka0 / ka), 100 * kr / kr0
    return (adapted / retained) ** 2 * ka**2 / (ka0 * kr0)


# --- how sure a score is ---


@dataclass(frozen=True, kw_only=True)
class Score:
    """A mean over ``n`` questions with its interval from ``low`` to ``high``; percentages unless said otherwise.

    ``higher_is_better`` is false of perplexities and the like: nobody may call a larger one the better.
    """

    value: float
    low: float
    high: float
    n: int
    higher_is_better: bool = True


class OverSeeds(NamedTuple):
    """A figure over several seeds; ``deviation`` (sample standard deviation) is None with one seed."""

    mean: float
    deviation: float | None


def bootstrap(
    values: Sequence[float],
    groups: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
    scale: float = 100.0,
) -> Score:
    """Return the mean of ``values`` (each 0 to 1) times ``scale`` with a percentile interval over whole groups.

    ``groups`` names for each value what it depends on jointly: the entity for adaptation, the question itself for
    retention. The order of the rows does not matter. Where all groups agree, the interval has no width; a single
    group says nothing about the spread between groups, so its interval is the whole range of the measure.
    """
    return _clustered(np.asarray(values, dtype=np.float64), groups, 0.0, seed, resamples, level, scale)


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    groups: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
    scale: float = 100.0,
) -> Score:
    """Return the mean of ``a - b`` over the same questions (values 0 to 1) with an interval, as ``bootstrap`` does.

    The two differ at this level where the interval leaves out 0.
    """
    if len(a) != len(b):
        raise ValueError(f"a paired difference needs two equally long sequences, found {len(a)} and {len(b)} values")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return _clustered(difference, groups, -1.0, seed, resamples, level, scale)


def bootstrap_mean_of_means(
    parts: Mapping[str, Sequence[float]],
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
    scale: float = 100.0,
) -> Score:
    """Return K.R with its interval: the mean over tasks of each task's mean, groups resampled within each task.

    ``parts`` maps each task to its questions' values (0 to 1), ``groups`` to what each depends on jointly, such as an
    image that several are about (None: each question stands alone). A task with a single group says nothing about its
    own spread: the interval is then the whole range.
    """
    if not parts:
        raise ValueError("a mean over tasks needs at least one task")
    random = np.random.default_rng(seed)
    tasks = [_finite(np.asarray(parts[name], dtype=np.float64)) for name in sorted(parts)]
    alone = [np.arange(len(task)) for task in tasks]
    members = [np.unique(groups[name], return_inverse=True)[1] for name in sorted(parts)] if groups else alone
    if min(int(member.max()) for member in members) == 0:
        low, high = 0.0, 1.0
    else:
        drawn = [
            _resampled(
                np.bincount(member, weights=task).astype(np.float64),
                np.bincount(member).astype(np.float64),
                random,
                resamples,
            )
            for task, member in zip(tasks, members, strict=True)
        ]
        low, high = _percentiles(np.mean(drawn, axis=0), level)
    value = float(np.mean([task.mean() for task in tasks]))
    return Score(value=value * scale, low=low * scale, high=high * scale, n=sum(map(len, tasks)))


def over_seeds(values: Sequence[float]) -> OverSeeds:
    """Return the mean of one figure over seeds and its sample standard deviation, None with one seed."""
    figures = _finite(np.asarray(values, dtype=np.float64))
    return OverSeeds(float(figures.mean()), float(figures.std(ddof=1)) if len(figures) > 1 else None)


def _clustered(
    values: NDArray[np.float64],
    groups: Sequence[str],
    least: float,
    seed: int,
    resamples: int,
    level: float,
    scale: float,
) -> Score:
    """Return the mean of ``values`` (``least`` to 1, shape ``[n]``) with a cluster bootstrap interval."""
    if len(values) != len(groups):
        raise ValueError(f"each value needs its group, found {len(values)} values and {len(groups)} groups")
    _finite(values)
    names, member = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    if len(names) == 1:
        low, high = least, 1.0
    else:
        sums = np.bincount(member, weights=values).astype(np.float64)
        sizes = np.bincount(member).astype(np.float64)
        low, high = _percentiles(_resampled(sums, sizes, np.random.default_rng(seed), resamples), level)
    return Score(value=float(values.mean()) * scale, low=low * scale, high=high * scale, n=len(values))


def _resampled(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], random: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Return ``[resamples]`` means, each over as many groups, drawn with replacement, as there are."""
    count = len(sums)
    means = np.empty(resamples)
    block = max(1, 2**20 // count)  # about 8 MB of indices at a time
    for start in range(0, resamples, block):
        drawn = random.integers(count, size=(min(block, resamples - start), count))
        means[start : start + len(drawn)] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def _percentiles(draws: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("a score needs at least one value, and every value finite")
    return values
