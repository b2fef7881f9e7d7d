"""What the analyses of a model leave on disk, and their reports read: plain values with their numbers of samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from kore_bench.errors import UserError
from kore_bench.measures import Score
from kore_bench.results import write_text

FORMAT = 1
DECOMPOSITIONS: Mapping[str, str] = {"svd": "plain SVD", "asvd": "ASVD", "co-svd": "CO-SVD"}
"""The decompositions that `kore_bench.removal` compares, and what they are called in print."""


@dataclass(frozen=True, kw_only=True)
class _Written:
    """A record in one JSON file."""

    def write(self, file: Path) -> None:
        """Write the record."""
        write_text(file, json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a record; raises UserError where the file is missing or was not written by this version."""
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            if raw.pop("format") != FORMAT:
                raise ValueError
            return cls._made(raw)
        except OSError:
            raise UserError(f"{file} is not there: run the analysis first") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{file} was not written by this version of kore-bench: run the analysis again") from None

    @classmethod
    def _made(cls, raw: dict[str, Any]) -> Self:
        return cls(**raw)


@dataclass(frozen=True, kw_only=True)
class Point(_Written):
    """A model without the ``removed`` least components of each layer: its scores by task, and what it was made by.

    ``change`` is the relative change of each layer's outputs on the calibration inputs, the median over layers. The
    untouched model has no ``decomposition``.
    """

    key: str
    decomposition: str
    removed: int
    change: float
    scores: Mapping[str, Mapping[str, Score]]

    @classmethod
    def _made(cls, raw: dict[str, Any]) -> Self:
        scores = {
            task: {name: Score(**score) for name, score in measures.items()} for task, measures in raw["scores"].items()
        }
        return cls(**{**raw, "scores": scores})


@dataclass(frozen=True, kw_only=True)
class Removals(_Written):
    """One model's weights with components removed: what was fixed, and the points (folders, the untouched model first).

    ``metrics`` maps each task to its headline measure; ``components`` is what the narrowest layer has.
    """

    model: str
    data: str
    samples: int
    pools: tuple[str, ...]
    seed: int
    components: int
    metrics: Mapping[str, str]
    points: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CovarianceMaps(_Written):
    """Covariances of chosen layers on several sets, made small, and how alike they are.

    ``samples`` maps each set to its number of samples; ``tokens`` likewise. ``maps[layer][set]`` is a picture with
    rows of values from 0 to 1, ``similarity[layer]`` a matrix in the order of the sets.
    """

    model: str
    data: str
    seed: int
    samples: Mapping[str, int]
    tokens: Mapping[str, int]
    maps: Mapping[str, Mapping[str, list[list[float]]]]
    similarity: Mapping[str, list[list[float]]]
