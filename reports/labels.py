"""Labels beside points that collide neither with each other nor with what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from .drawing import MUTED

Boxes = NDArray[np.float64]
"""Boxes ``[k, 4]``: left, bottom, right, top."""


def place_labels(
    axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], *, strokes: Sequence[Sequence[float]]
) -> None:
    """Write each text beside its point (data units), clear of other texts, points and strokes, with leader lines.

    The axes' limits must be final. Each label tries places around its point, near ones first, and takes the one that
    overlaps least; a few rounds let labels make room for each other. ``strokes`` are the straight lines of the figure
    (x0, y0, x1, y1 in data units) that a label should not stand on.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    canvas: Any = FigureCanvasAgg(figure)
    renderer, scale = canvas.get_renderer(), figure.dpi / 72
    spots = axes.transData.transform(np.asarray(points, dtype=float).reshape(-1, 2))
    frame = axes.get_window_extent(renderer)
    artists = [figure.text(0.5, 0.5, text, va="center", ha="center") for text in texts]
    sizes = [
        (box.width + 4 * scale, box.height + 2 * scale) for box in (a.get_window_extent(renderer) for a in artists)
    ]
    markers = np.column_stack([spots - 6 * scale, spots + 6 * scale])
    drawn = axes.transData.transform(np.asarray(strokes, dtype=float).reshape(-1, 2)).reshape(-1, 4)
    choices = [_places(spot, size, scale) for spot, size in zip(spots, sizes, strict=True)]
    fixed = [
        8 * _overlap(boxes, np.delete(markers, index, axis=0)).sum(1)
        + 6 * scale * _within(boxes, drawn)
        + 50 * _outside(boxes, (frame.x0, frame.y0, frame.x1, frame.y1))
        + 0.6 * scale * distance
        for index, (boxes, distance) in enumerate(choices)
    ]
    best = [int(cost.argmin()) for cost in fixed]
    for _ in range(8):
        for index, (boxes, _) in enumerate(choices):
            others = np.array([choices[k][0][best[k]] for k in range(len(texts)) if k != index]).reshape(-1, 4)
            lines = np.array([_line(spots[k], choices[k][0][best[k]]) for k in range(len(texts)) if k != index])
            own = np.column_stack([np.broadcast_to(spots[index], (len(boxes), 2)), _nearest(spots[index], boxes)])
            taken = 8 * _overlap(boxes, others).sum(1) + 6 * scale * _within(boxes, lines)
            best[index] = int((fixed[index] + taken + 50 * scale**2 * _crossings(own, lines)).argmin())
    for artist, spot, (boxes, _), choice in zip(artists, spots, choices, best, strict=True):
        left, bottom, right, top = boxes[choice]
        x, y = figure.transFigure.inverted().transform([(left + right) / 2, (bottom + top) / 2])
        artist.set_position((x, y))
        end = _nearest(spot, boxes[choice : choice + 1])[0]
        if np.hypot(*(end - spot)) > 11 * scale:
            start = spot + (end - spot) * (7 * scale / np.hypot(*(end - spot)))
            line = axes.transData.inverted().transform([start, end])
            axes.plot(line[:, 0], line[:, 1], color=MUTED, linewidth=0.8, zorder=2.5)


def _places(spot: Boxes, size: tuple[float, float], scale: float) -> tuple[Boxes, Boxes]:
    """Return the candidate boxes around a point and how far each is from the nearest place."""
    angles = np.deg2rad(np.arange(0, 360, 15))
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    radii = np.array([8.0, 14, 22, 32, 44, 58, 74, 92]) * scale
    half = np.array(size) / 2
    # the box touches the circle of the given radius, whichever its shape
    reach = radii[:, None, None] * directions + np.sign(directions.round(9)) * np.minimum(
        half, np.abs(directions) * half.max()
    )
    centres = spot + reach.reshape(-1, 2)
    distance = np.repeat(radii - radii[0], len(directions))
    return np.hstack([centres - half, centres + half]), distance


def _overlap(boxes: Boxes, others: Boxes) -> Boxes:
    """Return the shared area ``[m, k]`` of each of ``boxes`` with each of ``others``."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: Boxes = np.clip(high - low, 0, None).prod(2)
    return shared


def _outside(boxes: Boxes, frame: tuple[float, float, float, float]) -> Boxes:
    """Return by how many pixels each box leaves the frame."""
    left, bottom, right, top = frame
    beyond = [left - boxes[:, 0], bottom - boxes[:, 1], boxes[:, 2] - right, boxes[:, 3] - top]
    outside: Boxes = np.clip(beyond, 0, None).sum(0)
    return outside


def _nearest(spot: Boxes, boxes: Boxes) -> Boxes:
    """Return the point of each box that is nearest to ``spot``."""
    return np.clip(spot, boxes[:, :2], boxes[:, 2:])


def _line(spot: Boxes, box: Boxes) -> Boxes:
    return np.concatenate([spot, _nearest(spot, box[None])[0]])


def _crossings(lines: Boxes, others: Boxes) -> Boxes:
    """Return how many of the segments ``others`` (rows x0, y0, x1, y1) each of ``lines`` crosses."""

    def side(a: Boxes, b: Boxes, c: Boxes) -> Boxes:
        turned: Boxes = np.sign(
            (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
        )
        return turned

    if not len(others):
        return np.zeros(len(lines))
    p, q = lines[:, None, :2], lines[:, None, 2:]
    r, s = others[None, :, :2], others[None, :, 2:]
    crossed: Boxes = ((side(p, q, r) * side(p, q, s) < 0) & (side(r, s, p) * side(r, s, q) < 0)).sum(1).astype(float)
    return crossed


def _within(boxes: Boxes, lines: Boxes) -> Boxes:
    """Return the length of all ``lines`` (rows x0, y0, x1, y1) that lies within each box (Liang and Barsky 1984)."""
    if not len(lines):
        return np.zeros(len(boxes))
    start, way = lines[None, :, :2], lines[None, :, 2:] - lines[None, :, :2]
    step = np.where(np.abs(way) < 1e-9, 1e-9, way)
    ends = np.stack([(boxes[:, None, :2] - start) / step, (boxes[:, None, 2:] - start) / step])
    enter, leave = ends.min(0).max(2), ends.max(0).min(2)
    share = np.clip(np.minimum(leave, 1) - np.maximum(enter, 0), 0, None)
    length: Boxes = (share * np.hypot(way[..., 0], way[..., 1])).sum(1)
    return length
