"""The figures that the KORE paper prints, by our names of models and methods; they stand beside ours, never among them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from statistics import fmean
from typing import NamedTuple

from kore_bench.calibration import parse_calibration
from kore_bench.measures import avg, ka
from kore_bench.results import RunFolder
from kore_bench.variants import method_of

from .retained import PAPER, outcomes
from .summary import BENCHMARKS, Row, Summary

SOURCE = "arXiv 2510.19316"


class PaperRow(NamedTuple):
    """One row of the paper: its ``name`` and ``tables`` there, and its figures in percent by our measures' names.

    ``method`` is ours, empty where we have none; ``setting`` is the one that tells several rows of a method apart.
    K.R and HARS are as printed; K.A, Avg and the dimensions follow from the printed benchmarks.
    """

    model: str
    method: str
    setting: str
    name: str
    tables: str
    figures: Mapping[str, float]


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """Return every benchmark row of the paper (arXiv 2510.19316), the main one of a model and a method first."""
    text = resources.files(__package__).joinpath("paper.csv").read_text(encoding="utf-8")
    return tuple(map(_read, csv.DictReader(text.splitlines())))


def counterparts(run: RunFolder, summary: Summary) -> dict[str, PaperRow]:
    """Return method -> the paper's row of the same model, method and setting, for the finished rows that it has.

    The paper measured EVOKE, so that nothing of it stands beside the mini world's figures. Where some of its
    benchmarks were scored here, its K.R, Avg and dimensions are over these too.
    """
    if data_of(run) == "mini":
        return {}
    scored = [outcomes(summary)[name].metric for name in summary.benchmarks]
    found = {row.method: counterpart(row, row.model) for row in summary.rows if row.done}
    return {method: _over(paper, scored) for method, paper in found.items() if paper}


def _over(paper: PaperRow, benchmarks: Sequence[str]) -> PaperRow:
    """Return a row with K.R, Avg and dimensions over ``benchmarks``; as printed where these are all or none of its own.

    Its HARS goes, which rests on the base's K.R over all.
    """
    kept = [name for name in PAPER if name in benchmarks]
    if len(kept) in (0, len(PAPER)):
        return paper
    figures = {name: value for name, value in paper.figures.items() if name not in ("HARS", *BENCHMARKS)}
    for dimension, parts in BENCHMARKS.items():
        if own := [figures[name] for name in parts if name in kept]:
            figures[dimension] = fmean(own)
    figures["K.R"] = fmean(figures[name] for name in kept)
    return paper._replace(figures=figures | {"Avg": avg(figures["K.A"], figures["K.R"])})


def data_of(run: RunFolder) -> str:
    """Return the data that a run measured: ``mini`` or a folder."""
    return str(run.plan().get("request", {}).get("data", "mini"))


def counterpart(row: Row, model: str) -> PaperRow | None:
    """Return the paper's main row of ``model`` for a method as it comes, or the row of the setting that was changed, if it has it."""
    own = [found for found in paper_rows() if (found.model, found.method) == (model, method_of(row.method))]
    settings = _settings(row)
    if not settings:
        return own[0] if own else None
    return next((found for found in own if settings == [found.setting]), None)


def _read(line: Mapping[str, str]) -> PaperRow:
    figures = {name: float(cell) for name, cell in line.items() if name not in PaperRow._fields and cell}
    adapted = ka(figures["CEM"], figures["F1"])
    dimensions = {name: fmean(figures[part] for part in parts) for name, parts in BENCHMARKS.items()}
    figures |= dimensions | {"K.A": adapted, "Avg": avg(adapted, figures["K.R"])}
    return PaperRow(line["model"], line["method"], line["setting"], line["name"], line["tables"], figures)


def _settings(row: Row) -> list[str]:
    """Return the settings that make another row of the paper, where they are not the default.

    A calibration is one of them where it is a single benchmark; other samples are the paper's general ones.
    """
    settings = row.any_record.settings
    parts = settings.get("components", {}).values()
    ranks = {f"rank={part['rank']}" for part in parts if part.get("rank", "auto") != "auto"}
    changed = sorted(ranks) + ["freeze_a=false" for part in parts if not part.get("freeze_a", True)]
    calibration = settings.get("old", {}).get("calibration", "")
    sources = [source.name for source in parse_calibration(calibration)] if calibration else []
    specific = len(sources) == 1 and not {"/", "."} & set(sources[0]) and row.any_record.cost.old_samples
    return changed + ([f"calibration={sources[0]}"] if specific else [])
