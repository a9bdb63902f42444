"""The figures of one image: before and after, field, histograms.

The files are small enough for ten thousand images: mosaics as WebP, curves as SVG.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from n4ax_bids.report import mosaic
from n4ax_bids.report.colours import AFTER, BEFORE
from n4ax_bids.report.measures import percent
from n4ax_bids.report.mosaic import Sample, View

QUALITY = 72
"""quality of WebP, 0 to 100"""
GREY_EFFORT, COLOUR_EFFORT = 2, 4
"""effort of WebP, 0 to 6: 4 takes twice the time of 2 for 3 % fewer bytes and truer colours"""
N_BINS, SMOOTHING = 256, 3
"""bins of a histogram, and the standard deviation in bins of its smoothing"""
WEAK = math.log(1.1)
"""in ln b; a field that varies less than this about its middle does not use all colours"""

_PLACES = {"left": 0.05, "right": 0.985, "top": 0.89, "bottom": 0.17, "wspace": 0.2}
_DRAWING = threading.Lock()  # matplotlib is not thread-safe


class _Scale(NamedTuple):
    """The scale of colours: ln b to a position from 0 to 1."""

    middle: float
    reach: float

    @classmethod
    def of(cls, limits: tuple[float, float], median: float) -> _Scale:
        """Return the scale for a range of b about its median; a narrow range has pale colours."""
        low, middle, high = map(math.log, (limits[0], median, limits[1]))
        return cls(middle, max(high - middle, middle - low, WEAK))

    def place(self, log_value: np.ndarray | float) -> np.ndarray | float:
        """Return the position of ln b on the scale."""
        return ((log_value - self.middle) / self.reach + 1) / 2

    def value(self, place: float) -> float:
        """Return b at a position."""
        return math.exp(self.middle + (2 * place - 1) * self.reach)


class Histogram(NamedTuple):
    """Histograms of intensities inside the mask, before and after the correction."""

    centres: np.ndarray
    """centres of the bins"""
    before: np.ndarray
    after: np.ndarray


def image(
    path: Path,
    views: Sequence[View],
    sample: Sample,
    window: tuple[float, float],
    sample_inside: Sample | None = None,
    filled: bool = False,
) -> None:
    """Write cuts through an image in greys, with the outline of a mask.

    Parameters
    ----------
    path : .webp
    views : from `mosaic.plan`
    sample : returns the image's values at voxel indices
    window : intensities that are drawn black and white
    sample_inside : returns whether voxels are inside the mask; None for no outline
    filled : draw only the outer edge of the mask, not the edges of its holes
    """
    drawn = mosaic.draw(
        views,
        sample,
        mosaic.grey(window),
        text="white",
        ground="black",
        inside=sample_inside,
        filled=filled,
    )
    drawn.save(path, "WEBP", quality=QUALITY, method=GREY_EFFORT)


def field(
    path: Path,
    views: Sequence[View],
    sample_log: Sample,
    sample_inside: Sample,
    limits: tuple[float, float],
    median: float,
) -> None:
    """Write cuts through the field with a colour bar; colours are pale outside the mask.

    White is the median of the field, and the bar is labelled relative to it: N4 and most other
    methods do not determine the level of the field.

    Parameters
    ----------
    path : .webp
    views : from `mosaic.plan`
    sample_log : returns ln b at voxel indices
    sample_inside : returns whether voxels are inside the mask
    limits : lowest and highest b inside the mask
    median : median of b inside the mask
    """
    scale = _Scale.of(limits, median)
    table = _colours()

    def paint(values: np.ndarray) -> np.ndarray:
        place = scale.place(values[..., 0]) * len(table)
        colour = table[np.clip(place, 0, len(table) - 1).astype(np.intp)]
        pale = 0.3 * colour + 0.7 * 225.0
        return np.where(values[..., 1:] > 0, colour, pale).astype(np.uint8)

    drawn = mosaic.draw(
        views, _with_mask(sample_log, sample_inside), paint, text="black", ground="white"
    )
    whole = _with_bar(drawn, table, scale, limits)
    whole.save(path, "WEBP", quality=QUALITY, method=COLOUR_EFFORT)


def _with_mask(sample: Sample, sample_inside: Sample) -> Sample:
    """Return a sampler of values and, on an additional last axis, whether they are inside."""

    def both(indices: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.stack([sample(indices), sample_inside(indices)], axis=-1)

    return both


def histogram(before: np.ndarray, after: np.ndarray, window: tuple[float, float]) -> Histogram:
    """Count the intensities of two images in the same bins, and smooth the counts.

    Without smoothing, a file with few grey values would show a comb, because some bins contain
    more of these values than others.
    """
    edges = np.linspace(*window, N_BINS + 1)
    counts = (np.histogram(values, N_BINS, range=window)[0] for values in (before, after))
    return Histogram((edges[:-1] + edges[1:]) / 2, *map(_smoothed, counts))


def _smoothed(counts: np.ndarray) -> np.ndarray:
    offsets = np.arange(-3 * SMOOTHING, 3 * SMOOTHING + 1)
    kernel = np.exp(-0.5 * (offsets / SMOOTHING) ** 2)
    # At the ends, only the part of the kernel inside the histogram counts.
    share = np.convolve(np.ones(counts.size), kernel, mode="same")
    return np.convolve(counts, kernel, mode="same") / share


def curves(
    path: Path,
    counts: Histogram,
    panel: Callable[[Any], None] | None = None,
    *,
    xlabel: str = "intensity",
) -> None:
    """Write histograms, and the method's own figure beside them, as SVG.

    Parameters
    ----------
    path : .svg
    counts : from `histogram`
    panel : draws on matplotlib axes; None for only the histograms
    xlabel : describes the axis of intensities
    """
    from matplotlib.figure import Figure

    with styled():
        drawn = Figure(figsize=(12, 3.1))
        if panel is None:
            _histograms(drawn.subplots(gridspec_kw=_PLACES), counts, xlabel)
        else:
            left, right = drawn.subplots(1, 2, width_ratios=(3, 2), gridspec_kw=_PLACES)
            _histograms(left, counts, xlabel)
            panel(right)
        drawn.savefig(path, format="svg", metadata={"Date": None})


@contextmanager
def styled() -> Iterator[None]:
    """Let matplotlib draw in the style of the pages, by one thread at a time."""
    import matplotlib as mpl

    # Keep text as text, and make equal figures equal files.
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "n4ax_bids",
        "font.size": 10,
        "text.usetex": False,
    }
    look: dict[Any, Any] = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.family": "sans-serif",
    }
    with _DRAWING, mpl.rc_context(style | look):
        yield


def _histograms(axes: Any, counts: Histogram, xlabel: str) -> None:
    for name, heights, colour in (
        ("before", counts.before, BEFORE),
        ("after", counts.after, AFTER),
    ):
        axes.plot(counts.centres, heights / 1000, color=colour, label=name, linewidth=1.8)
    axes.set(title="Intensities inside the mask", xlabel=xlabel, ylabel="thousand voxels a bin")
    axes.set_xlim(counts.centres[0], counts.centres[-1])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _colours() -> np.ndarray:
    """Return 256 colours from blue (darker) through white to red (brighter)."""
    from matplotlib import colormaps

    return colormaps["RdBu_r"](np.arange(256), bytes=True)[:, :3].astype(np.float32)


def _with_bar(
    drawn: Image.Image, table: np.ndarray, scale: _Scale, limits: tuple[float, float]
) -> Image.Image:
    """Add a logarithmic colour bar below a mosaic, with the field's range marked on it."""
    width, bar_height = drawn.width, 18
    whole = Image.new("RGB", (width, drawn.height + 62), "white")
    whole.paste(drawn, (0, 0))
    top = drawn.height + 14
    length = min(width - 120, 900)
    left = (width - length) // 2

    def x(value: float) -> int:
        return left + round(float(scale.place(math.log(value))) * length)

    ramp = table[np.linspace(0, len(table) - 1, length).astype(int)].astype(np.uint8)
    whole.paste(Image.fromarray(np.repeat(ramp[np.newaxis], bar_height, axis=0)), (left, top))
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(size=15)
    pen.rectangle((left, top, left + length, top + bar_height), outline="black")
    for place in (0, 0.25, 0.5, 0.75, 1):
        value = scale.value(place)
        pen.line((x(value), top + bar_height, x(value), top + bar_height + 5), fill="black")
        below = (x(value), top + bar_height + 7)
        text = (
            percent(value / scale.value(0.5)).replace("−", "-")
            if place != 0.5
            else f"median {value:.3g}"
        )
        pen.text(below, text, fill="black", font=font, anchor="ma")
    for value in limits:
        pen.polygon(
            [(x(value) - 6, top - 9), (x(value) + 6, top - 9), (x(value), top + 2)], "black"
        )
    return whole
