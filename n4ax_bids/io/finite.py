"""Voxels that are NaN or infinite: refused where they are used, ignored elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SLAB = 1 << 22
"""voxels checked at a time"""


def require_finite(
    path: str | Path, data: np.ndarray, used: np.ndarray | None, remedy: str
) -> None:
    """Refuse an image if a voxel that is used is NaN or infinite.

    Parameters
    ----------
    path : file that the message names
    data : array, the image
    used : bool array like `data`; None for every voxel
    remedy : what to do about it, the end of the message

    Raises
    ------
    ValueError
        With the number of such voxels and the index of the first.
    """
    flat = data.reshape(-1, order="F")
    if all(np.isfinite(flat[i : i + SLAB]).all() for i in range(0, flat.size, SLAB)):
        return
    bad = ~np.isfinite(flat)
    if used is not None:
        bad &= used.reshape(-1, order="F")
    where = np.flatnonzero(bad)
    if where.size == 0:
        return
    first = tuple(int(i) for i in np.unravel_index(where[0], data.shape, order="F"))
    voxels = (
        "1 voxel that is used is" if where.size == 1 else f"{where.size} voxels that are used are"
    )
    raise ValueError(f"{path}: {voxels} NaN or infinite, the first at {first}; {remedy}")


def has_contrast(data: np.ndarray) -> bool:
    """Return whether a voxel differs from the first one; few are looked at in most images."""
    flat = data.reshape(-1, order="F")
    return any((flat[i : i + SLAB] != flat[0]).any() for i in range(0, flat.size, SLAB))


def extremes(data: np.ndarray) -> tuple[float, float]:
    """Return the lowest and the highest finite value of an array; NaN if there is none."""
    flat = data.reshape(-1, order="F")
    low, high = np.inf, -np.inf
    for start in range(0, flat.size, SLAB):
        part = flat[start : start + SLAB]
        if not (np.isfinite(part.min()) and np.isfinite(part.max())):
            part = part[np.isfinite(part)]
        if part.size:
            low, high = min(low, part.min()), max(high, part.max())
    return (low, high) if low <= high else (np.nan, np.nan)
