"""Erosion, dilation, closing and pieces of masks, by distances in mm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def distance(inside: np.ndarray, zooms: Sequence[float], most: float) -> np.ndarray:
    """Return how far each voxel of a mask lies from the nearest voxel outside of it.

    The Euclidean distance, exact up to `most`, axis by axis (a lower envelope of parabolas cut to
    that range). What lies beyond the array counts as neither in nor out.

    Parameters
    ----------
    inside : bool array
    zooms : voxel size per axis, mm
    most : mm; greater distances are given as a little more than this

    Returns
    -------
    float32 array like `inside`, mm; 0 outside the mask
    """
    squared = np.where(inside, np.float32((most * 1.001) ** 2), np.float32(0))
    for axis, zoom in enumerate(zooms):
        nearest = squared.copy()
        for step in range(1, min(int(most / zoom), squared.shape[axis] - 1) + 1):
            added = np.float32((step * zoom) ** 2)
            lower = (slice(None),) * axis + (slice(None, -step),)
            upper = (slice(None),) * axis + (slice(step, None),)
            np.minimum(nearest[lower], squared[upper] + added, out=nearest[lower])
            np.minimum(nearest[upper], squared[lower] + added, out=nearest[upper])
        squared = nearest
    return np.sqrt(squared)


def signed_distance(mask: np.ndarray, zooms: Sequence[float], most: float) -> np.ndarray:
    """Return the distance to a mask's edge in mm, positive inside, at most `most` either way."""
    half = min(zooms) / 2
    within, beyond = distance(mask, zooms, most), distance(~mask, zooms, most)
    return np.where(mask, within - half, half - beyond)


def dilated(mask: np.ndarray, zooms: Sequence[float], radius: float) -> np.ndarray:
    """Return the voxels not farther than a radius (mm) from a mask."""
    return distance(~mask, zooms, radius) <= radius


def eroded(mask: np.ndarray, zooms: Sequence[float], radius: float) -> np.ndarray:
    """Return the voxels of a mask that lie deeper than a radius (mm)."""
    return distance(mask, zooms, radius) > radius


def closed(mask: np.ndarray, zooms: Sequence[float], radius: float) -> np.ndarray:
    """Fill gaps narrower than twice a radius (mm)."""
    margins = [math.ceil(radius / zoom) + 1 for zoom in zooms]
    grown = dilated(np.pad(mask, [(m, m) for m in margins]), zooms, radius)
    return eroded(grown, zooms, radius)[tuple(slice(m, -m) for m in margins)]


def filled(mask: np.ndarray) -> np.ndarray:
    """Fill holes: what is outside of a mask and does not reach the array's border."""
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
    found = ndimage.find_objects(mask.view(np.uint8))[0]
    return tuple(
        slice(max(0, part.start - margin), min(n, part.stop + margin))
        for part, n in zip(found, mask.shape, strict=True)
    )
