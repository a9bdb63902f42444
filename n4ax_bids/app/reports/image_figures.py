"""Draws the figures of one image: cuts at equal medians, the field, histograms."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from n4ax_bids import methods
from n4ax_bids.app.job import Job
from n4ax_bids.app.reports.grid import grid_of
from n4ax_bids.app.reports.stack_shown import Shown
from n4ax_bids.app.reports.windows import Levels
from n4ax_bids.io.volume import Volume
from n4ax_bids.methods import METHODS, Method
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS

OUTER = {
    "otsu": "outer edge of the voxels above Otsu's threshold",
    "head": "outer edge of the mask of the head",
}
"""what the line on the images is, for kinds of masks that have many holes"""


class Line(NamedTuple):
    """The line on the images."""

    words: str
    """says what it is; "" for no line"""
    outer: bool
    """whether only the outer edge of the mask is drawn"""


def line_of(job: Job, facts: Mapping[str, Any]) -> Line:
    """Return which line is drawn on an image.

    Masks of the head and Otsu's have an edge at every dark voxel of the tissue, so only their
    outer edge is drawn.

    Parameters
    ----------
    job : the image
    facts : of its sidecar
    """
    if job.mask or job.weight:
        return Line("edge of the mask", False)
    kind = (facts.get("MaskFound") or {}).get("Kind", facts.get("Mask"))
    if kind in OUTER:
        return Line(OUTER[kind], True)
    is_found = facts.get("Mask") in (*MASK_WORDS, *MASK_PROGRAMS)
    return Line("edge of the mask" if is_found else "", False)


def draw(
    names: Mapping[str, Path], shown: Shown, level: Levels, line: Line, facts: Mapping[str, Any]
) -> None:
    """Draw all figures of an image.

    Parameters
    ----------
    names : paths to write, by the labels of `contents.ENDINGS`
    shown : the image before and after, its mask and its field
    level : the levels at which it is drawn
    line : from `line_of`
    facts : of its sidecar
    """
    from n4ax_bids.report import figures, mosaic

    grid = grid_of(shown.image)
    zooms = [zooms_of(shown.image)[axis] for axis in grid.axes]
    views = mosaic.plan(grid.turned(shown.inside), zooms, grid.mm)
    inside, after = grid.values(shown.inside), grid.values(shown.corrected.data)
    gain = np.float32(level.gain)
    outline = inside if line.words else None
    for label, sample in (
        ("before", grid.values(shown.image.data)),
        ("after", lambda indices: after(indices) * gain),
    ):
        figures.image(names[label], views, sample, level.window, outline, line.outer)
    limits = facts["FieldMin"], facts["FieldMax"]
    figures.field(names["field"], views, shown.log_field, inside, limits, level.field_median)
    _draw_curves(names["curves"], shown, level, facts)


def _draw_curves(path: Path, shown: Shown, level: Levels, facts: Mapping[str, Any]) -> None:
    """Draw the histograms at equal medians, and the method's own figure beside them."""
    from n4ax_bids.report import figures

    panel, method = None, METHODS[facts["Method"]]
    if method.panel:
        own = methods.load(method.panel)
        panel = partial(own, options=facts["Options"], details=facts["Details"])
    before, after = (each.data.T[shown.inside.T] for each in (shown.image, shown.corrected))
    counts = figures.histogram(before, after * np.float32(level.gain), level.spread)
    figures.curves(path, counts, panel, xlabel=f"intensity (after × {level.gain:.3g})")


def panel_in_words(method: Method, facts: Mapping[str, Any]) -> str:
    """Return the caption of the method's own figure, and what it says of this image."""
    if not method.panel:
        return ""
    words = methods.load(method.words)(facts["Options"], facts["Details"]) if method.words else ""
    return f"{method.caption} {words}".strip()


def zooms_of(image: Volume) -> tuple[float, ...]:
    """Return three voxel sizes in mm; a plane is as thick as its pixels are wide."""
    zooms = image.zooms
    return zooms if len(zooms) == 3 else (*zooms, max(zooms))
