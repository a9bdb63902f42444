"""Erosion, dilation, closing and pieces of masks, by distances in mm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def distance(inside: np.ndarray, zooms: Sequence[float], most: float) -> np.ndarray:
    """Return the distance of each voxel of a mask from the nearest voxel outside it.

    The distance is Euclidean and exact up to `most`. Positions beyond the array count neither as
    inside nor as outside.

    Parameters
    ----------
    inside : bool array
    zooms : voxel size per axis, mm
    most : mm; greater distances are returned as a little more than this

    Returns
    -------
    float32 array like `inside`, mm; 0 outside the mask
    """
    away = _squared_distance(inside, zooms, most).astype(np.float32)
    np.sqrt(away, out=away)
    away *= np.float32(zooms[0])
    return away


def _squared_distance(inside: np.ndarray, zooms: Sequence[float], most: float) -> np.ndarray:
    """Return squared distances in units of the first voxel size; see `distance`.

    They are computed axis by axis, as the lower envelope of parabolas within the range. If voxels
    are cubes, the squares are whole numbers of one or two bytes, whose arithmetic is faster.
    """
    sides, reach = [zoom / zooms[0] for zoom in zooms], (most * 1.001 / zooms[0]) ** 2
    kind: type = np.float32
    if np.allclose(sides, 1, rtol=1e-6, atol=0):
        sides, reach = [1] * len(sides), int(reach) + 1
        kind = np.uint8 if reach < 128 else np.uint16 if reach < 32768 else kind
    squared = np.where(inside, kind(reach), kind(0))
    nearest, raised = np.empty_like(squared), np.empty_like(squared)
    for axis, side in enumerate(sides):
        nearest[...] = squared
        for n in range(1, min(int(reach**0.5 / side), squared.shape[axis] - 1) + 1):
            lower = (slice(None),) * axis + (slice(None, -n),)
            upper = (slice(None),) * axis + (slice(n, None),)
            np.add(squared, kind((n * side) ** 2), out=raised)
            np.minimum(nearest[lower], raised[upper], out=nearest[lower])
            np.minimum(nearest[upper], raised[lower], out=nearest[upper])
        squared, nearest = nearest, squared
    return squared


def signed_distance(mask: np.ndarray, zooms: Sequence[float], most: float) -> np.ndarray:
    """Return the distance to a mask's edge in mm, positive inside, at most `most` either way."""
    half = min(zooms) / 2
    within, beyond = distance(mask, zooms, most), distance(~mask, zooms, most)
    return np.where(mask, within - half, half - beyond)


def dilated(mask: np.ndarray, zooms: Sequence[float], radius: float) -> np.ndarray:
    """Return the voxels within a radius (mm) of a mask."""
    return ~eroded(~mask, zooms, radius)


def eroded(mask: np.ndarray, zooms: Sequence[float], radius: float) -> np.ndarray:
    """Return the voxels of a mask that lie deeper than a radius (mm)."""
    return _squared_distance(mask, zooms, radius) > (radius / zooms[0]) ** 2 * (1 + 1e-6)


def closed(mask: np.ndarray, zooms: Sequence[float], radius: float) -> np.ndarray:
    """Fill gaps narrower than twice a radius (mm)."""
    margins = [math.ceil(radius / zoom) + 1 for zoom in zooms]
    grown = dilated(np.pad(mask, [(m, m) for m in margins]), zooms, radius)
    return eroded(grown, zooms, radius)[tuple(slice(m, -m) for m in margins)]


def filled(mask: np.ndarray) -> np.ndarray:
    """Fill holes: voxels outside a mask that are not connected to the array's border."""
    pieces, _ = ndimage.label(~np.pad(mask, 1))
    return (pieces != pieces.flat[0])[(slice(1, -1),) * mask.ndim]


def largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest piece of a mask with at least one voxel; of equal ones the first."""
    return largest_pieces(mask, 1)[0]


def largest_pieces(mask: np.ndarray, most: int, smallest: float = 0.0) -> list[np.ndarray]:
    """Return the largest pieces of a mask, the largest first.

    Parameters
    ----------
    mask : bool array
    most : largest number of pieces
    smallest : pieces below this share of the largest are left out
    """
    pieces, n = ndimage.label(mask)
    if n < 2:
        return [mask] * n
    sizes = np.bincount(pieces.ravel())[1:]
    order = np.argsort(-sizes, kind="stable")[:most]
    kept = [number for number in order if sizes[number] >= smallest * sizes[order[0]]]
    return [pieces == 1 + number for number in kept]


def box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """Return the smallest box around a mask with at least one voxel, enlarged by a margin."""
    parts = []
    for axis, n in enumerate(mask.shape):
        held = np.flatnonzero(mask.any(axis=tuple({*range(mask.ndim)} - {axis})))
        parts.append(slice(max(0, held[0] - margin), min(n, held[-1] + 1 + margin)))
    return tuple(parts)
