"""Covariances of a model's inputs on several sets: small heat maps, and how alike the sets are (KORE figures 4c, 8, 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.colors import LogNorm

from kore_bench.analysis import CovarianceMaps
from kore_bench.report import AnalysisReport
from kore_bench.results import write_text

from .drawing import INK, MUTED, PAPER, Picture, new_figure, plain, write_picture
from .tabular import csv_text

_COLOURS = "viridis"
_LEAST = 1e-3
"""The lower end of the maps' colours, relative to each map's largest value."""
Matrix = Sequence[Sequence[float]]


def build(folder: Path) -> list[Path]:
    """Write ``tables/covariance-maps.csv``, ``tables/covariance-similarity.csv`` and two figures of these names."""
    record = CovarianceMaps.read(folder / "covariance.json")
    texts = {"covariance-maps": _map_rows(record), "covariance-similarity": _similarity_rows(record)}
    files = [folder / "tables" / f"{name}.csv" for name in texts]
    for file, rows in zip(files, texts.values(), strict=True):
        write_text(file, csv_text(rows))
    files += write_picture(lambda: _maps(record), folder, "covariance-maps")
    return files + write_picture(lambda: _similarity(record), folder, "covariance-similarity")


def mean_similarity(record: CovarianceMaps) -> list[list[float]]:
    """Return the mean of the layers' matrices."""
    matrices = list(record.similarity.values())
    return [[sum(values) / len(matrices) for values in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]


def _map_rows(record: CovarianceMaps) -> list[dict[str, object]]:
    return [
        {"layer": layer, "set": name, "n": record.samples[name], "tokens": record.tokens[name], "row": number}
        | {str(column): round(value, 6) for column, value in enumerate(row)}
        for layer, maps in record.maps.items()
        for name, matrix in maps.items()
        for number, row in enumerate(matrix)
    ]


def _similarity_rows(record: CovarianceMaps) -> list[dict[str, object]]:
    names = list(record.samples)
    matrices: Mapping[str, Matrix] = {**record.similarity, "mean": mean_similarity(record)}
    return [
        {
            "layer": layer, "set": one, "n": record.samples[one], "other": other, "other n": record.samples[other],
            "cosine": value,
        }
        for layer, matrix in matrices.items()
        for one, row in zip(names, matrix, strict=True)
        for other, value in zip(names, row, strict=True)
    ]  # fmt: skip


def _maps(record: CovarianceMaps) -> Picture:
    names, layers = list(record.samples), list(record.maps)
    left, top, size, low = 1.3, 0.9, 1.12, 0.75
    width, height = left + size * len(names) + 0.15, top + size * len(layers) + low
    figure = new_figure(width, height)
    for line, layer in enumerate(layers):
        for column, name in enumerate(names):
            spot = (left + size * column, height - top - size * (line + 1) + 0.06, size - 0.06, size - 0.06)
            axes = figure.add_axes((spot[0] / width, spot[1] / height, spot[2] / width, spot[3] / height))
            image = axes.imshow(
                record.maps[layer][name], cmap=_COLOURS, norm=LogNorm(_LEAST, 1, clip=True), interpolation="nearest"
            )
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.grid(False)
            if not line:
                axes.set_title(f"{plain(name, 16)}\nn {record.samples[name]:,}", fontsize=9, pad=4)
            if not column:
                axes.set_ylabel(_short(layer), rotation=0, ha="right", va="center", fontsize=9)
    bar = figure.add_axes((left / width, 0.42 / height, 3.2 / width, 0.13 / height))
    figure.colorbar(image, cax=bar, orientation="horizontal").ax.tick_params(labelsize=8)
    bar.grid(False)
    figure.text((left + 3.4) / width, 0.43 / height, "mean of |C| over a tile, share of the map's largest", fontsize=9)
    figure.text(0.12 / width, 1 - 0.32 / height, f"Covariances of inputs on {plain(record.model)}", fontsize=12)
    return Picture(
        title=f"Covariances of inputs on {record.model}",
        caption="Covariance of a layer's inputs (rows) on each set (columns), magnitudes averaged over equal tiles; "
        "colours are logarithmic.",
        alt=f"Heat maps of {len(layers)} layers' covariances on {', '.join(names)}.",
        figure=figure,
    )


def _similarity(record: CovarianceMaps) -> Picture:
    names, matrix = list(record.samples), mean_similarity(record)
    least = min(map(min, matrix))
    longest = max(len(plain(name, 18)) for name in names)
    left, head, side = 0.7 + 0.09 * longest, 0.75 + 0.06 * longest, 0.62 * len(names)
    width, height = left + side + 0.3, head + side + 0.2
    figure = new_figure(width, height)
    axes = figure.add_axes((left / width, 0.2 / height, side / width, side / height))
    axes.imshow(matrix, cmap=_COLOURS, vmin=least, vmax=1)
    for line, row in enumerate(matrix):
        for column, value in enumerate(row):
            dark = value - least < 0.6 * (1 - least)
            axes.text(column, line, f"{value:.2f}", ha="center", va="center", fontsize=9, color=PAPER if dark else INK)
    places = range(len(names))
    axes.set_xticks(places, [plain(name, 18) for name in names], rotation=40, ha="left", rotation_mode="anchor")
    axes.set_yticks(places, [f"{plain(name, 18)}, n {record.samples[name]:,}" for name in names])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(False)
    figure.text(0.12 / width, 1 - 0.3 / height, f"How alike sets are to {plain(record.model)}", fontsize=12)
    figure.text(
        0.12 / width,
        1 - 0.5 / height,
        f"cosine of covariances, mean of {len(record.maps)} layers",
        fontsize=9,
        color=MUTED,
    )
    pairs = [
        f"{one} and {other} {matrix[line][column]:.2f}"
        for line, one in enumerate(names)
        for column, other in enumerate(names)
        if line < column
    ]
    return Picture(
        title=f"How alike sets are to {record.model}",
        caption=f"Cosine of the covariances of two sets' inputs, mean over {len(record.maps)} layers; a set has 1 with itself. "
        f"The colours begin at the least value, {least:.2f}.",
        alt=f"Similarity matrix: {', '.join(pairs)}.",
        figure=figure,
    )


def _short(layer: str) -> str:
    """Return a layer's name from its block's number on, in two lines."""
    parts = layer.split(".")
    start = next((place for place, part in enumerate(parts) if part.isdecimal()), 0)
    return f"block {parts[start]}\n{parts[-1]}"


REPORT = AnalysisReport(name="covariance", title="Covariances of inputs on several sets", build=build)
