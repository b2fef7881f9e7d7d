"""What a model loses with its least components: plain SVD, ASVD and CO-SVD side by side (KORE figure 4a-b, table 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes

from kore_bench.analysis import DECOMPOSITIONS, Point, Removals
from kore_bench.errors import UserError
from kore_bench.measures import Score
from kore_bench.report import AnalysisReport
from kore_bench.results import write_text

from .drawing import MUTED, Look, Picture, new_figure, plain, write_picture
from .latex import latex_table
from .tabular import DASH, Cell, Table, csv_text, markdown_table

_LOOKS = {"svd": Look(MUTED, "s", 5.5), "asvd": Look("#1f78b4", "o", 6.0), "co-svd": Look("#d62f1f", "*", 10.0)}
_STEP = 0.012
"""How far apart bars of one number stand, as a share of the largest number."""


def build(folder: Path) -> list[Path]:
    """Write ``tables/co-svd`` (.csv, .md, .tex) and ``figures/co-svd``; raises UserError where no point is scored."""
    record = Removals.read(folder / "co-svd.json")
    points = _points(folder, record)
    tables = [_table(record, points, task, metric) for task, metric in record.metrics.items()]
    texts = {
        "csv": csv_text(_figures(points)),
        "md": "\n".join(map(markdown_table, tables)),
        "tex": "\n".join(map(latex_table, tables)),
    }
    files = [folder / "tables" / f"co-svd.{ending}" for ending in texts]
    for file, text in zip(files, texts.values(), strict=True):
        write_text(file, text)
    return files + write_picture(lambda: _picture(record, points), folder, "co-svd")


def _points(folder: Path, record: Removals) -> list[Point]:
    files = (folder / "points" / name / "point.json" for name in record.points)
    points = [Point.read(file) for file in files if file.exists()]
    if not points:
        raise UserError(f"{folder} has no scored point yet: run the analysis first")
    return points


def _score(point: Point, task: str, metric: str) -> Score | None:
    return point.scores.get(task, {}).get(metric)


def _table(record: Removals, points: Sequence[Point], task: str, metric: str) -> Table:
    rows = []
    for removed, group in groupby(points, key=lambda point: point.removed):
        scores = {point.decomposition: _score(point, task, metric) for point in group}
        if not removed:
            scores = dict.fromkeys(DECOMPOSITIONS, scores[""])
        best = max((round(score.value, 1) for score in scores.values() if score), default=math.nan)
        rows.append(
            (Cell(str(removed)), *(_cell(scores.get(name), best if removed else math.nan) for name in DECOMPOSITIONS))
        )
    return Table(
        title=f"{task if task == metric else f'{metric} of {task}'} on {record.model} without the least components of every weight",
        header=("removed", *DECOMPOSITIONS.values()),
        rows=tuple(rows),
        notes=(
            f"Removed from every linear layer of the language model; the narrowest has {record.components} components.",
            f"ASVD and CO-SVD read {record.samples} samples of {', '.join(record.pools)}.",
            "Small print: number of questions.",
        ),
    )


def _cell(score: Score | None, best: float) -> Cell:
    if score is None:
        return Cell(DASH)
    return Cell(f"{score.value:.1f}", f"n {score.n:,}", "best" if round(score.value, 1) == best else "")


def _figures(points: Sequence[Point]) -> list[dict[str, object]]:
    return [
        {
            "decomposition": point.decomposition or "untouched", "removed": point.removed,
            "change of old outputs": point.change, "task": task, "measure": measure,
            "value": score.value, "low": score.low, "high": score.high, "n": score.n,
        }
        for point in points
        for task, measures in point.scores.items()
        for measure, score in measures.items()
    ]  # fmt: skip


def _picture(record: Removals, points: Sequence[Point]) -> Picture:
    width = 0.9 + max(5.0, 3.7 * len(record.metrics))
    figure = new_figure(width, 3.9)
    axes = figure.subplots(1, len(record.metrics), squeeze=False)[0]
    for one, (task, metric) in zip(axes, record.metrics.items(), strict=True):
        _panel(one, points, task, metric)
    figure.subplots_adjust(left=0.75 / width, right=1 - 0.15 / width, top=0.83, bottom=0.25, wspace=0.22)
    figure.text(0.12 / width, 0.93, f"Without the least components of every weight: {plain(record.model)}", fontsize=12)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=len(names), handlelength=2.2, borderaxespad=0.3)
    return Picture(
        title=f"Least components removed from {record.model}",
        caption="Every linear layer of the language model without the components of the smallest singular values. Bars: "
        f"95 % intervals over questions. {record.samples} samples of {', '.join(record.pools)} calibrate ASVD and CO-SVD.",
        alt="Scores by number of removed components: "
        + "; ".join(_spoken(points, task, metric) for task, metric in record.metrics.items())
        + ".",
        figure=figure,
    )


def _panel(axes: Axes, points: Sequence[Point], task: str, metric: str) -> None:
    counts = sorted({point.removed for point in points if point.removed})
    for place, (name, title) in enumerate(DECOMPOSITIONS.items()):
        found = _line(points, name, task, metric)
        scores, shown = list(found.values()), _LOOKS[name]
        across = [removed + (place - 1) * _STEP * counts[-1] for removed in found]
        spread = [[s.value - s.low for s in scores], [s.high - s.value for s in scores]]
        axes.errorbar(
            across, [score.value for score in scores], yerr=spread, label=title, color=shown.colour,
            marker=shown.marker, markersize=shown.size, linewidth=1.5, elinewidth=1.0,
        )  # fmt: skip
    untouched = next((score for point in points if not point.removed and (score := _score(point, task, metric))), None)
    if untouched:
        axes.axhline(untouched.value, color=MUTED, linewidth=1.1, linestyle="--", zorder=1, label="untouched")
    sizes = {score.n for point in points if (score := _score(point, task, metric))}
    axes.set_title(f"{plain(task)}, n {' / '.join(f'{n:,}' for n in sorted(sizes))}", loc="left")
    axes.set_ylabel(plain(metric))
    axes.set_xlabel("components removed from each layer")
    axes.set_xticks(counts)
    axes.set_xlim(0, 1.06 * max(counts, default=1))


def _line(points: Sequence[Point], name: str, task: str, metric: str) -> Mapping[int, Score]:
    return {
        point.removed: score
        for point in points
        if point.decomposition == name and (score := _score(point, task, metric))
    }


def _spoken(points: Sequence[Point], task: str, metric: str) -> str:
    parts = (
        f"{title} " + ", ".join(f"{r}: {score.value:.1f}" for r, score in _line(points, name, task, metric).items())
        for name, title in DECOMPOSITIONS.items()
    )
    return f"{metric} of {task}: " + ", ".join(parts)


REPORT = AnalysisReport(name="co-svd", title="Least components removed: SVD, ASVD and CO-SVD", build=build)
