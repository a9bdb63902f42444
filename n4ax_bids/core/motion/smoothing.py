"""The grid of a series, and the smoothed volumes that a registration compares."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter1d

from n4ax_bids.core.spline_basis import padded_rows, prefilter_matrix
from n4ax_bids.options.realign import RealignOptions

FWHM_PER_SD = 2 * np.sqrt(2 * np.log(2))
LEAST_FWHM = 5.0
"""mm, unless the options name another width"""
LEAST_VOXELS = 1.6
"""the same in voxels, on each axis by itself, so that thick slices do not blur the plane; with
less, the grid shows in the smoothed image, and motion is found up to 0.1 mm away from where it is
on voxels of 5 mm"""
TAIL = 4.0
"""standard deviations after which the Gaussian ends"""


class Grid(NamedTuple):
    """The common grid of reference and moving volumes, as seen from its centre."""

    shape: tuple[int, ...]
    linear: np.ndarray
    """3×3, voxels to mm with the header's rotation"""

    @property
    def centre(self) -> np.ndarray:
        """Voxel coordinates of the centre."""
        return (np.array(self.shape, np.float64) - 1) / 2

    @property
    def zooms(self) -> np.ndarray:
        """Voxel sizes, mm."""
        return np.sqrt((self.linear**2).sum(axis=0))


def grid_of(affine: Any, shape: Sequence[int]) -> Grid:
    """Return the grid of an image.

    Raises
    ------
    ValueError
        If the affine is not finite or cannot be inverted.
    """
    affine = np.asarray(affine, np.float64)
    linear = affine[:3, :3]
    if (
        affine.shape != (4, 4)
        or not np.isfinite(affine).all()
        or abs(np.linalg.det(linear)) < 1e-9
    ):
        raise ValueError("the affine cannot be inverted; expected voxel sizes above 0 mm")
    return Grid(tuple(int(n) for n in shape), linear)


def smoothing_matrix(n: int, sd: float, rule: str) -> np.ndarray:
    """Return the matrix that smooths one axis by a Gaussian: float64 (n, n).

    Parameters
    ----------
    n : points of the axis
    sd : standard deviation, in voxels
    rule : "reflect" or "wrap"
    """
    if sd <= 0 or n == 1:
        return np.eye(n)
    mode = "mirror" if rule == "reflect" else "wrap"
    found: np.ndarray = gaussian_filter1d(
        np.eye(n), sd, axis=0, mode=mode, radius=int(np.ceil(TAIL * sd))
    )
    return found


@functools.lru_cache(maxsize=96)
def _matrix(n: int, sd: float, degree: int, rule: str) -> np.ndarray:
    rows = prefilter_matrix(n, degree, rule)[padded_rows(n, degree, rule)]
    return np.asarray(rows @ smoothing_matrix(n, sd, rule), np.float32)


def padded_matrices(
    grid: Grid, *, degree: int, boundary: str, fwhm: Sequence[float] | np.ndarray = (0.0,) * 3
) -> tuple[jax.Array, ...]:
    """Return the matrices that turn a volume into padded coefficients, smoothed first.

    Parameters
    ----------
    grid : of the volume
    degree, boundary : of the spline
    fwhm : full width at half maximum of the smoothing along each axis, mm
    """
    return tuple(
        jnp.asarray(_matrix(n, float(wide) / FWHM_PER_SD / float(zoom), degree, boundary))
        for n, wide, zoom in zip(grid.shape, fwhm, grid.zooms, strict=True)
    )


def width(grid: Grid, options: RealignOptions) -> np.ndarray:
    """Return the full width at half maximum of the smoothing along each axis: (3,), mm."""
    if options.fwhm is not None:
        return np.full(3, options.fwhm)
    found: np.ndarray = np.maximum(LEAST_FWHM, LEAST_VOXELS * grid.zooms)
    return found


def spline_matrices(grid: Grid, options: RealignOptions) -> tuple[jax.Array, ...]:
    """Return the matrices that turn a volume into the padded coefficients of its smoothed self."""
    return padded_matrices(
        grid, degree=options.degree, boundary=options.boundary, fwhm=width(grid, options)
    )
