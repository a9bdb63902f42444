"""How ITK and ANTs pad and shrink an image: which voxels become samples. Host arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from n4ax_bids.options import N4Options

MOST_POINTS_ON_AXIS = 2**13
"""control points, so many that no image needs more"""
KEPT = 32
"""samples that `shrink_mm` leaves at least on an axis: objects may be much smaller than a head"""


def padding(
    options: N4Options, shape: Sequence[int], zooms: Sequence[float]
) -> tuple[tuple[int, int], ...]:
    """Return how many voxels ANTs adds before and after each axis.

    With a spline distance, the extent is enlarged to a whole number of spans; this is computed in
    float32, as in ANTs (docs/method.md §10.2).

    Parameters
    ----------
    options : N4Options
    shape : voxels per axis
    zooms : voxel size per axis, mm

    Returns
    -------
    tuple of (lower, upper), voxels per axis; zeros without a spline distance
    """
    if options.bspline_fitting_distance is None:
        return ((0, 0),) * len(shape)
    return tuple(
        spans_and_padding(options.bspline_fitting_distance, n, zoom)[1:]
        for n, zoom in zip(shape, zooms, strict=True)
    )


def spans_and_padding(distance: float, n: int, zoom: float) -> tuple[int, int, int]:
    knot_spacing = np.float32(distance)
    extent = np.float32(np.float32(n - 1) * zoom)
    with np.errstate(over="ignore", divide="ignore"):
        spans = max(np.float32(1), np.ceil(extent / knot_spacing))
    if not spans <= MOST_POINTS_ON_AXIS:
        raise ValueError(
            f"spline distance {distance} mm asks for {spans:.3g} spans on {n} voxels of "
            f"{zoom:.3g} mm; expected at most {MOST_POINTS_ON_AXIS}"
        )
    spans = int(spans)
    missing = np.float32(np.float32(spans) * knot_spacing - extent)
    extra = int(float(missing) / zoom + 0.5)
    return spans, extra // 2, extra - extra // 2


def shrink_factors(
    options: N4Options, shape: Sequence[int], zooms: Sequence[float]
) -> tuple[int, ...]:
    """Return the shrink factor of each axis: the requested one, or less on a thin axis.

    A distance between samples suits heads. In a mouse with voxels of 0.15 mm, 4 mm would leave a
    handful of samples; `shrink_mm` therefore leaves at least `KEPT` samples on an axis, or as many
    as `shrink_factor` does if that is fewer. A spline needs two samples on an axis of more than
    one voxel (with one, ITK divides by zero).

    Parameters
    ----------
    options : N4Options
    shape : voxels per axis
    zooms : voxel size per axis, mm
    """
    wanted = [options.shrink_factor] * len(shape)
    if options.shrink_mm is not None:
        wanted = [
            _closest_multiple(options.shrink_mm, zoom, max(options.shrink_factor, n // KEPT))
            for n, zoom in zip(shape, zooms, strict=True)
        ]
    padded = [n + sum(pad) for n, pad in zip(shape, padding(options, shape, zooms), strict=True)]
    return tuple(min(factor, max(1, n // 2)) for factor, n in zip(wanted, padded, strict=True))


def _closest_multiple(distance: float, zoom: float, most: int) -> int:
    """Return the whole number from 1 to `most` that multiplies a voxel size to a distance best."""
    return max(1, round(min(distance / zoom, most))) if zoom > 0 else 1


def predict_shrink_start(
    shape: Sequence[int],
    zooms: Sequence[float],
    factors: Sequence[int],
    lower: Sequence[int],
) -> tuple[int, ...]:
    """Return the first voxel that ITK's shrinking samples in an image with aligned axes.

    ITK computes the sample from physical coordinates, so that rounding decides a half-integer
    phase; this repeats the computation in float64 for the identity direction and origin 0
    (docs/method.md §10.3). `n4ax_bids.io.geometry` asks ITK itself for other headers.

    Parameters
    ----------
    shape, zooms, factors : voxels, mm, shrink factor per axis
    lower : voxels of padding before voxel 0, per axis

    Returns
    -------
    tuple of int, index in the image (negative: in the padding)
    """
    return tuple(map(_first_sample, shape, zooms, factors, lower))


def _first_sample(padded: int, zoom: float, factor: int, lower: int) -> int:
    n = max(1, padded // factor)
    begin, begin_shrunk = -lower, math.ceil(-lower / factor)
    centre = zoom * (begin + (padded - 1) / 2)
    origin = centre - (zoom * factor) * (begin_shrunk + (n - 1) / 2)
    index = math.floor((1 / zoom) * (origin + (zoom * factor) * begin_shrunk) + 0.5)
    return begin_shrunk * factor + max(0, index - begin_shrunk * factor)


def samples_inside(n: int, factor: int, start: int, n_samples: int) -> tuple[int, int]:
    """Return first and last + 1 of the samples start + factor·k that lie among the n voxels."""
    return max(0, -(start // factor)), min(n_samples, (n - 1 - start) // factor + 1)
