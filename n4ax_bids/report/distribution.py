"""Distributions of a measure as SVG: one strip for each kind of image, with links to outliers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from n4ax_bids.report import measures, templates
from n4ax_bids.report.measures import Box

MOST_DOTS = 400
"""largest number of images in a strip that are all drawn as dots; with more, bars show those that
are not outliers"""
N_BARS = 60
WIDTH, LEFT, RIGHT, STRIP, FOOT = 420, 46, 14, 74, 20
"""pixels: width of the drawing, its margins, height of a strip and of the scale at the bottom"""
_GOLDEN = (5**0.5 - 1) / 2


class Point(NamedTuple):
    """One image."""

    value: float
    name: str
    page: str
    odd: bool


def strips(groups: Mapping[tuple[str, str], tuple[Sequence[Point], Box | None]]) -> Markup:
    """Draw strips on a common scale.

    Parameters
    ----------
    groups : suffix and state of each strip ("before", "after" or "") → its images, and their box
        if there are enough images
    """
    values = np.array([p.value for points, _ in groups.values() for p in points], float)
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    rows = []
    for number, ((name, state), (points, box)) in enumerate(groups.items()):
        many = len(points) > MOST_DOTS
        dots = [p for p in points if p.odd or not many]
        usual = [p.value for p in points if not p.odd] if many else []
        rows.append(
            {
                "name": name,
                "state": state,
                "n": len(points),
                "top": number * STRIP,
                "box": box and {key: x(value) for key, value in box._asdict().items()},
                "median": box and measures.text(box.median),
                "dots": [_dot(k, point, x(point.value)) for k, point in enumerate(dots)],
                "bars": _bars(usual, x) if usual else [],
            }
        )
    drawing = templates.environment().get_template("strips.svg")
    return Markup(
        drawing.render(
            rows=rows,
            ticks=[(x(t), f"{t:.6g}") for t in _ticks(low, high)],
            width=WIDTH,
            height=len(rows) * STRIP + FOOT,
            left=LEFT,
            right=WIDTH - RIGHT,
            bottom=len(rows) * STRIP,
        )
    )


def _dot(number: int, point: Point, x: float) -> dict[str, Any]:
    """Place a dot; dots are spread evenly in height, the same in every run."""
    y = 30 + 38 * ((number * _GOLDEN) % 1)
    return {"x": x, "y": round(y, 1), "point": point, "text": measures.text(point.value)}


def _bars(values: Sequence[float], x: Callable[[float], float]) -> list[dict[str, float]]:
    counts, edges = np.histogram(values, N_BARS)
    heights = 40 * counts / counts.max()
    return [
        {"x": x(a), "width": max(0.5, round(x(b) - x(a), 1)), "height": round(float(h), 1)}
        for h, a, b in zip(heights, edges[:-1], edges[1:], strict=True)
        if h > 0
    ]


def _ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    places = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(place) for place in places if low <= place <= high]
