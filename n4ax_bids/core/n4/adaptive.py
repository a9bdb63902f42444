"""Shrinking and knots that follow the size of the object instead of that of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from n4ax_bids.options import N4Options

SAMPLES = 30_000
"""samples wanted inside the mask: about as many as ANTs' shrink factor 4 leaves of an adult brain
at 1 mm"""
SPAN = 1.8
"""knot spacing of the first level, in lengths of the mask along its longest axis; chosen for an
over-relaxation of 1.8, as in the preset (docs/validation/adaptive.md)"""
PART = 8
"""for estimates of memory: the mask is taken to be this part of the image at least"""


def adapted(
    options: N4Options,
    shape: Sequence[int],
    zooms: Sequence[float],
    mask: Any = None,
    weight: Any = None,
) -> N4Options:
    """Return options whose shrinking and knots fit the object; unchanged unless `adapt` is set.

    The distance of samples is (content of the mask / 30,000)^(1/3), but at least 32 samples stay
    on each axis of the image. The first knot spacing is 1.8 times the longest edge of the mask's
    bounding box, the same on every axis. So a brain of another size, in voxels that are larger or
    smaller by the same factor, gets the same samples and knots.

    Parameters
    ----------
    options : N4Options
    shape : voxels of each axis
    zooms : mm of each axis
    mask, weight : arrays of this shape, or None; the mask's voxels of a weight above 0 count, all
        voxels without either
    """
    if not options.adapt:
        return options
    sizes, n_voxels = list(shape), math.prod(shape)
    inside = _inside(mask, weight)
    if inside is not None and inside.any():
        sizes = [_extent(inside, axis) for axis in range(inside.ndim)]
        n_voxels = int(np.count_nonzero(inside))
    mm = [n * zoom for n, zoom in zip(sizes, zooms, strict=True) if n > 1] or [1.0]
    return _made(options, n_voxels * math.prod(zooms), len(shape), max(mm))


def largest(options: N4Options, shape: Sequence[int], zooms: Sequence[float]) -> N4Options:
    """Return options with the most samples that a usual mask leaves, for estimates of memory."""
    if not options.adapt:
        return options
    mm = [n * zoom for n, zoom in zip(shape, zooms, strict=True)]
    return _made(options, math.prod(mm) / PART, len(mm), max(mm))


def _made(options: N4Options, content: float, n_axes: int, longest: float) -> N4Options:
    """Return options for a mask with a content (mm³, in 2D mm²) and a longest edge in mm."""
    return replace(
        options,
        adapt=False,
        shrink_factor=1,
        shrink_mm=float(np.clip((content / SAMPLES) ** (1 / n_axes), 1e-6, 1e6)),
        bspline_fitting_distance=float(np.clip(SPAN * longest, 1e-6, 1e9)),
    )


def _inside(mask: Any, weight: Any) -> np.ndarray | None:
    found = None if mask is None else np.asarray(mask) != 0
    if weight is not None:
        positive = np.asarray(weight) > 0
        found = positive if found is None else found & positive
    return found


def _extent(mask: np.ndarray, axis: int) -> int:
    """Return how many voxels a mask reaches along an axis."""
    others = tuple(each for each in range(mask.ndim) if each != axis)
    inside = np.flatnonzero(mask.any(axis=others))
    return int(inside[-1] - inside[0] + 1)
