"""Whether a mask can be that of a brain: scores from 0 to 1 of its size, shape and tissue."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from n4ax_bids.core.mask.star_surface import Surface

TISSUE = (0.5, 2.6)
"""intensities of a brain, in medians of its tissue; the upper end is the fluid of a T2w image"""
VOLUME = (500.0, 700.0, 2400.0, 3000.0)
"""ml: too small, a small brain, a large one with its membranes, too large"""
FILLED = (0.5, 0.8)
"""share of the skull's inside; a mask with a smaller share has lost a part of the brain"""


def shape_checks(
    edge: np.ndarray, zooms: Sequence[float], surface: Surface, unit: float, moved: float
) -> dict[str, float]:
    """Return scores of a mask's volume and extents, of the skull around it, and of its shape.

    Parameters
    ----------
    edge : array, signed distance to the mask's edge in mm, positive inside
    zooms : voxel size per axis, mm
    surface : Surface that the mask was found in
    unit : size of the head, 1 for a human's
    moved : share of the surface's inside that changed in the last round
    """
    mask = edge > 0
    volume = np.count_nonzero(mask) * math.prod(zooms) / 1000
    sides = sorted(
        zoom * np.count_nonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        for axis, zoom in enumerate(zooms)
    )
    radii = surface.radii
    return {
        "volume": float(np.interp(volume / unit**3, VOLUME, (0, 1, 1, 0))),
        "extent": float(np.interp(sides[0] / unit, (75, 105), (0, 1))),
        "shape": float(np.interp(radii.std() / radii.mean(), (0.2, 0.4), (1, 0))),
        "enclosed": float(np.interp(surface.enclosed.mean(), (0.5, 0.8), (0, 1))),
        "whole": float(np.interp(surface.cut.mean(), (0.1, 0.35), (1, 0))),
        "stable": float(np.interp(moved, (0.05, 0.3), (1, 0))),
    }


def like_brain(values: np.ndarray, edge: np.ndarray, unit: float) -> float:
    """Return a score of whether intensities inside, in medians, can be those of a brain.

    Fluid is bright (T2w) or dark (T1w, FLAIR), and nothing else in a brain is far from the median.
    Necks and faces contain much of both: bright fat, and dark bone or air.
    """
    bright = np.mean(values[edge > 2 * unit] > 1.5)
    deep = values[edge > 8 * unit]
    dark = np.mean(deep < TISSUE[0]) if deep.size else 0.0
    return float(np.interp(min(bright / 0.1, dark / 0.02), (0.3, 1), (1, 0)))


def filled(edge: np.ndarray, inside: np.ndarray) -> float:
    """Return a score of how much of the surface's inside the mask fills.

    Parameters
    ----------
    edge : array, signed distance to the mask's edge in mm, positive inside
    inside : array, the same for the surface
    """
    share = np.count_nonzero(edge > 0) / max(1, int(np.count_nonzero(inside > 0)))
    return float(np.interp(share, FILLED, (0, 1)))
