"""The voxels of a solve: those of the mask, and the rows of the grid that hold them.

Two thirds of a head's grid are air. Sharpening works on the list of the mask's voxels, the spline
on the rows along the image's first axis that hold any, cut to the columns that do. Both are
padded to one of few sizes, so that images of many shapes share a compiled program.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np


MOST_COARSE = 1 << 18
"""voxels in the mask; beyond, a grid is padded to one of many sizes"""


class Rows(NamedTuple):
    """What the compiled program works on: M voxels, in R rows of N, at P0 × P1 places.

    The padding has at least one voxel and one row: they stand for all that there is not.
    """

    log_image: jax.Array
    """(M,), voxels of the mask in raster order; 0 in the padding"""
    weight: jax.Array
    """(M,), > 0; 0 in the padding"""
    n_voxels: jax.Array
    """number of voxels in the mask"""
    voxel: jax.Array
    """(M,), where each voxel stands in the rows"""
    place: jax.Array
    """(R,), where each row stands in the plane of the other axes"""
    row: jax.Array
    """(P0·P1,), which row stands there; the last of the padding where none does"""


class Layout(NamedTuple):
    """How the rows lie in the grid, in raster order: the image's first axis last."""

    shape: tuple[int, int, int]
    """of the grid; 1 for the axis that a 2D image lacks"""
    columns: tuple[int, int]
    """of the grid, first and last + 1 that the rows hold"""
    sizes: tuple[int, int, int]
    """P0, P1, N"""

    @property
    def box(self) -> tuple[tuple[int, int], ...]:
        """The grid's voxels on each axis that the matrices are made for."""
        return ((0, self.shape[0]), (0, self.shape[1]), self.columns)


def lay_out(
    values: np.ndarray, inside: np.ndarray, weight: np.ndarray | None, dtype: np.dtype
) -> tuple[Rows, Layout]:
    """List the mask's voxels with the logarithm of their intensity, and their rows.

    Parameters
    ----------
    values : float32 array (Z, Y, X), intensities on the grid in raster order
    inside : bool array (Z, Y, X), with at least one voxel
    weight : float32 array (Z, Y, X), or None for 1 inside
    dtype : of the solve

    Returns
    -------
    rows : Rows, numpy arrays; intensities <= 0 stand without logarithm, as in ITK
    layout : Layout
    """
    n0, n1, n = inside.shape
    holds = inside.reshape(n0 * n1, n)
    columns = np.flatnonzero(holds.any(axis=0))
    begin, end = int(columns[0]), int(columns[-1]) + 1
    kept = np.flatnonzero(holds.any(axis=1))
    holds = holds[kept, begin:end]
    found = np.flatnonzero(holds)
    n_listed, n_rows, (p0, p1), width = _padded_sizes(
        found.size, kept.size, (n0, n1), end - begin
    )

    logs, weights = np.zeros(n_listed, dtype), np.zeros(n_listed, dtype)
    logs[: found.size] = values.reshape(n0 * n1, n)[kept, begin:end][holds]
    np.log(logs, out=logs, where=logs > 0)
    weights[: found.size] = (
        1 if weight is None else weight.reshape(n0 * n1, n)[kept, begin:end][holds]
    )
    # The padding stands in the last row, which is of the padding too.
    voxel = np.full(n_listed, n_rows * width - 1, np.int32)
    voxel[: found.size] = found + found // (end - begin) * (width - (end - begin))
    place = np.zeros(n_rows, np.int32)
    place[: kept.size] = kept // n1 * p1 + kept % n1
    row = np.full(p0 * p1, n_rows - 1, np.int32)
    row[place[: kept.size]] = np.arange(kept.size)
    rows = Rows(logs, weights, np.asarray(found.size), voxel, place, row)
    return rows, Layout(inside.shape, (begin, end), (p0, p1, width))


def _padded_sizes(
    n_listed: int, n_rows: int, plane: tuple[int, int], width: int
) -> tuple[int, int, tuple[int, int], int]:
    """Return the sizes of list, rows, plane and row that a grid is padded to.

    The usual grids, a head at shrink 4, fall on one size for each doubling of the mask, whatever
    their shape; three rows for 64 voxels are enough for most. A large grid is padded little: its
    solve takes longer than a compilation.
    """
    if n_listed >= MOST_COARSE:
        plane = tuple(1 << (n - 1).bit_length() for n in plane)
        return _eighth(n_listed + 1), _eighth(n_rows + 1), plane, _multiple(width, 32)
    octave = max(8, n_listed.bit_length())
    side = 1 << (octave - 3) // 2
    rows = 3 << (octave - 6)
    while rows <= n_rows:
        rows *= 2
    plane = tuple(max(side, 1 << (n - 1).bit_length()) if n > 1 else 1 for n in plane)
    return 1 << octave, rows, plane, max(min(side, 80), _multiple(width, 16))


def _eighth(n: int) -> int:
    """The next of eight sizes to an octave."""
    return _multiple(n, 1 << max(0, (n - 1).bit_length() - 4))


def _multiple(n: int, step: int) -> int:
    return -(-n // step) * step
