"""A smaller copy of an image for finding masks: block means, clipped against hot spots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MOST_VALUES = 200_000
"""largest number of values from which quantiles are computed"""


class Coarse(NamedTuple):
    """Means over blocks of voxels; an incomplete block at the end of an axis is left out."""

    values: np.ndarray
    """float32, at most `ceiling`, in Fortran order"""
    zooms: tuple[float, ...]
    """size of a block, mm"""
    factors: tuple[int, ...]
    """voxels of the image in a block, per axis"""
    ceiling: float
    """intensities above count as this"""


def coarse(image: np.ndarray, zooms: Sequence[float], distance: float) -> Coarse:
    """Average an image over blocks of about a given size.

    Parameters
    ----------
    image : array, finite intensities
    zooms : voxel size per axis, mm
    distance : wanted size of a block, mm; an axis keeps its voxels where they are larger
    """
    factors = tuple(
        max(1, min(round(distance / zoom), n // 2))
        for n, zoom in zip(image.shape, zooms, strict=True)
    )
    top = ceiling(image)
    if image.flags.c_contiguous:
        values = np.asfortranarray(_block_means(image, factors, top))
    else:  # arrays read from NIfTI files are in Fortran order
        values = _block_means(image.T, factors[::-1], top).T
    sizes = tuple(zoom * factor for zoom, factor in zip(zooms, factors, strict=True))
    return Coarse(values, sizes, factors, top)


def ceiling(image: np.ndarray) -> float:
    """Return an intensity that almost no tissue exceeds, unaffected by a few bright voxels.

    It is the 99.5th percentile of the voxels above the mean of the image, whose brightest 0.2 %
    are clipped for the mean. Hot spots are smaller than that in any image of a head.
    """
    values = image.ravel(order="K")
    values = values[:: max(1, values.size // MOST_VALUES) | 1].astype(np.float32)
    first = np.quantile(values, 0.998)
    bright = values[values > np.minimum(values, first).mean()]
    return float(np.quantile(bright, 0.995)) if bright.size else float(values.max())


def _block_means(values: np.ndarray, factors: Sequence[int], top: float) -> np.ndarray:
    """Average the values, clipped at `top`, over blocks.

    One row of blocks along the first axis at a time stays in the processor's cache.
    """
    counts = [n // factor for n, factor in zip(values.shape, factors, strict=True)]
    means = np.empty(counts, np.float32)
    whole = tuple(slice(n * factor) for n, factor in zip(counts[1:], factors[1:], strict=True))
    scale, most = np.float32(1 / math.prod(factors)), np.float32(top)
    for i, mean in enumerate(means):
        planes = values[i * factors[0] : (i + 1) * factors[0]]
        total: np.ndarray = np.zeros((), np.float32)
        for plane in planes:
            total = total + np.minimum(plane[whole], most).astype(np.float32, copy=False)
        for axis, factor in enumerate(factors[1:]):
            before = (slice(None),) * axis
            parts = [total[(*before, slice(k, None, factor))] for k in range(factor)]
            total = sum(parts[1:], parts[0])
        np.multiply(total, scale, out=mean)
    return means


def above(image: np.ndarray, thresholds: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Compare each voxel with the threshold of its block; the last block reaches to the end.

    Parameters
    ----------
    image : array
    thresholds : array of a `Coarse` copy's shape
    factors : voxels in a block, per axis

    Returns
    -------
    bool array like `image`, in its memory order
    """
    nearest = [
        np.minimum(np.arange(n) // factor, m - 1)
        for n, factor, m in zip(image.shape, factors, thresholds.shape, strict=True)
    ]
    flipped, rest = thresholds.T, nearest[::-1]
    mask = np.empty(image.shape[::-1], bool)
    for i, plane in enumerate(image.T):  # a plane at a time stays in the processor's cache
        level = flipped[rest[0][i]]
        for axis, index in enumerate(rest[1:]):
            level = np.take(level, index, axis=axis)
        np.greater(plane, level, out=mask[i])
    return mask.T


def enlarged(
    values: np.ndarray, start: Sequence[int], factors: Sequence[int], shape: Sequence[int]
) -> np.ndarray:
    """Return where a function on some blocks is positive, interpolated linearly between them.

    Parameters
    ----------
    values : array, on a box of blocks; it counts as negative beyond
    start : first block of the box, per axis
    factors : voxels in a block, per axis
    shape : of the image

    Returns
    -------
    bool array (`shape`)
    """
    mask = np.zeros(shape[::-1], bool)
    parts, lows, weights = [], [], []
    for first, factor, n, count in zip(start, factors, shape, values.shape, strict=True):
        last = n if first + count >= n // factor else (first + count) * factor
        inside = np.arange(first * factor, last)  # the image's last block reaches to its end
        place = np.clip((inside + 0.5) / factor - 0.5 - first, 0, count - 1)
        low = np.minimum(place.astype(int), max(0, count - 2))
        parts.append(slice(inside[0], inside[-1] + 1))
        lows.append(low)
        weights.append((place - low).astype(np.float32))
    blocks = np.ascontiguousarray(values.T, np.float32)
    highs = [np.minimum(low + 1, n - 1) for low, n in zip(lows, values.shape, strict=True)]
    within = mask[tuple(parts[::-1])]
    for i, (low, high, weight) in enumerate(zip(lows[-1], highs[-1], weights[-1], strict=True)):
        plane = blocks[low] * (1 - weight) + blocks[high] * weight
        if plane.max() > 0:
            for axis in range(plane.ndim):
                here = -2 - axis
                share = weights[here].reshape((-1,) + (1,) * (plane.ndim - axis - 1))
                plane = np.take(plane, lows[here], axis) * (1 - share) + (
                    np.take(plane, highs[here], axis) * share
                )
            np.greater(plane, 0, out=within[i])
    return mask.T
