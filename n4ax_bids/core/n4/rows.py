"""The voxels of a solve: those of the mask, and the rows of the grid that contain them.

Two thirds of a head's grid are air. Sharpening works on a list of the mask's voxels, the spline
on the rows along the image's first axis that contain such voxels, cut to the columns that contain
any. Both are padded to one of a few sizes, so that images of many shapes share a compiled program.
If memory is short, the rows are processed in slabs. For a GPU see `rows_on_device`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from n4ax_bids.core.n4.storage import Listed, Slabs

MOST_COARSE = 1 << 18
"""voxels in the mask; with more, a grid is padded to one of many sizes"""
FIRST = 1024
"""voxels at the start of the scan that are searched for a rising run"""


class Layout(NamedTuple):
    """The place of the rows in the grid, in raster order: the image's first axis is last."""

    shape: tuple[int, int, int]
    """of the grid; 1 for the axis that a 2D image lacks"""
    columns: tuple[int, int]
    """first and last + 1 of the grid's columns that the rows contain"""
    sizes: tuple[int, int, int]
    """P0, P1, N"""

    @property
    def box(self) -> tuple[tuple[int, int], ...]:
        """Range of the grid's voxels on each axis that the matrices are computed for."""
        return ((0, self.shape[0]), (0, self.shape[1]), self.columns)


class Found(NamedTuple):
    """The mask's voxels before padding."""

    rows: np.ndarray
    """indices in the grid's plane of the rows that contain voxels of the mask"""
    columns: tuple[int, int]
    inside: np.ndarray
    """bool (rows, columns)"""
    intensities: np.ndarray
    """float32, at the voxels in raster order"""
    weights: np.ndarray | None

    @property
    def n_listed(self) -> int:
        return self.intensities.size


def find(values: np.ndarray, inside: np.ndarray, weight: np.ndarray | None) -> Found:
    """Find the rows and columns that contain voxels of a mask, which must not be empty.

    Parameters
    ----------
    values : float32 array (Z, Y, X), intensities on the grid in raster order
    inside : bool array like `values`
    weight : float32 array like `values`, or None for weight 1
    """
    plane = inside.reshape(-1, inside.shape[2])
    columns = np.flatnonzero(plane.any(axis=0))
    begin, end = int(columns[0]), int(columns[-1]) + 1
    rows = np.flatnonzero(plane.any(axis=1))
    weights = None if weight is None else weight[inside]
    return Found(rows, (begin, end), plane[rows, begin:end], values[inside], weights)


def sizes_of(found: Found, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the padded sizes of the list, the rows, the plane and a row."""
    n_listed, width = found.n_listed, found.inside.shape[1]
    plane, coarse = (shape[0], shape[1]), n_listed < MOST_COARSE
    return _padded_sizes(n_listed, found.rows.size, plane, width, coarse)


def n_bytes(found: Found, itemsize: int, slabs: int = 0) -> int:
    """Return about how many bytes the program takes for its voxels.

    The logarithm, place and weight of each voxel are kept throughout, and ln b before and after an
    iteration, which slabs compute again each time. Positions, bins, counts, the residual and its
    values on the rows are temporary.

    Parameters
    ----------
    found : from `find`
    itemsize : bytes of a number of the solve
    slabs : number of slabs; 0 for `Listed`
    """
    parts = max(1, slabs)
    n_listed, n_rows = found.n_listed, found.rows.size
    coarse = not slabs and n_listed < MOST_COARSE
    listed, rows, _, width = _padded_sizes(
        -(-n_listed // parts), -(-n_rows // parts), (1, 1), found.inside.shape[1], coarse
    )
    lasting = itemsize * (1 if found.weights is None else 2) + 4 + (0 if slabs else 2 * itemsize)
    passing = listed * (2 * itemsize + 16) + rows * width * 2 * itemsize
    if slabs:
        passing += listed * (2 * itemsize + 8) + rows * width * itemsize
    return parts * listed * lasting + passing


def lay_out(
    found: Found,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    slabs: int = 0,
    first: int = FIRST,
    least: int = 1,
) -> tuple[Listed | Slabs, Layout]:
    """List the mask's voxels with the logarithm of their intensity, and their rows.

    Parameters
    ----------
    found : from `find`
    shape : (Z, Y, X) of the grid
    dtype : of the solve
    slabs : number of slabs; 0 for `Listed`
    first : number of voxels that are searched for a rising run
    least : smallest length of the padded list, so that masks of many sizes share a compiled
        program; only for lists that are padded coarsely

    Returns
    -------
    voxels : Listed, or Slabs if `slabs` is not 0, of numpy arrays; intensities <= 0 are kept
        without logarithm, as in ITK
    layout : Layout
    """
    n0, n1, n2 = shape
    n_columns = found.inside.shape[1]
    parts = [
        part for part in np.array_split(np.arange(found.rows.size), max(1, slabs)) if part.size
    ]
    counts = np.array([np.count_nonzero(found.inside[part[0] : part[-1] + 1]) for part in parts])
    coarse = not slabs and found.n_listed < MOST_COARSE
    n_listed, n_rows, (p0, p1), width = _padded_sizes(
        int(counts.max()), parts[0].size, (n0, n1), n_columns, coarse, least
    )
    logs = np.empty((len(parts), n_listed), dtype)
    weights = None if found.weights is None else np.empty_like(logs)
    voxel = np.empty((len(parts), n_listed), np.int32)
    place = np.zeros((len(parts), n_rows), np.int32)
    row = np.full(p0 * p1, n_rows - 1, np.int32)
    for slab, (part, begin) in enumerate(zip(parts, np.cumsum(counts) - counts, strict=True)):
        n_here = counts[slab]
        listed = slice(begin, begin + n_here)
        _fill_logarithms(logs[slab, :n_here], found.intensities[listed])
        if weights is not None and found.weights is not None:
            weights[slab, :n_here] = found.weights[listed]
        on_rows = np.zeros((part.size, width), bool)
        on_rows[:, :n_columns] = found.inside[part[0] : part[-1] + 1]
        voxel[slab, :n_here] = np.flatnonzero(on_rows)
        for array in (logs, voxel) if weights is None else (logs, voxel, weights):
            array[slab, n_here:] = array[slab, n_here - 1]
        place[slab, : part.size] = found.rows[part] // n1 * p1 + found.rows[part] % n1
        row[place[slab, : part.size]] = slab * n_rows + np.arange(part.size)
    start = np.arange(max(2, min(first, n_listed)), dtype=np.int32)
    start[counts[0] :] = n_listed
    by_slab: tuple[Any, ...] = (logs, weights, counts, voxel, place)
    if not slabs:
        by_slab = tuple(None if array is None else array[0] for array in by_slab)
    made = _listed(by_slab, np.asarray(found.n_listed), start, row)
    return Slabs(made) if slabs else made, Layout((n0, n1, n2), found.columns, (p0, p1, width))


def _listed(by_slab: tuple[Any, ...], n_voxels: Any, start: Any, row: Any) -> Listed:
    """Return `Listed` of numpy arrays, which the compiled program takes as jax's."""
    logs, weights, counts, voxel, place = by_slab
    listed: Any = np.asarray(counts)
    return Listed(logs, weights, listed, n_voxels, start, voxel, place, row)


def _fill_logarithms(out: np.ndarray, intensities: np.ndarray) -> None:
    """Fill an array with ln of the intensities; those <= 0 are copied."""
    out[:] = intensities
    positive = out > 0
    # Without `where` the logarithm uses vector registers.
    np.log(out, out=out, where=True if positive.all() else positive)


def _padded_sizes(
    n_listed: int,
    n_rows: int,
    plane: tuple[int, int],
    width: int,
    coarse: bool,
    least: int = 1,
) -> tuple[int, int, tuple[int, int], int]:
    """Return the sizes of list, rows, plane and row that a grid is padded to.

    With `coarse`, there is one size for each doubling of the mask, whatever the grid's shape:
    7·2^k voxels, because a head of 1 mm at shrink 4 has 50 to 57 thousand, with three rows for 64
    voxels, which is enough for most. A large grid is padded little, because its solve takes longer
    than a compilation.
    """
    if not coarse:
        p0, p1 = (1 << (n - 1).bit_length() for n in plane)
        return eighth(n_listed), eighth(n_rows + 1), (p0, p1), multiple(width, 32)
    octave = max(6, (-(-max(n_listed, least) // 7) - 1).bit_length())
    side = 1 << octave // 2
    rows = 21 << (octave - 6)
    while rows <= n_rows:
        rows *= 2
    p0, p1 = (max(side, 1 << (n - 1).bit_length()) if n > 1 else 1 for n in plane)
    return 7 << octave, rows, (p0, p1), max(min(side, 80), multiple(width, 16))


def eighth(n: int) -> int:
    """Round up to one of eight sizes between powers of two."""
    return multiple(n, 1 << max(0, (n - 1).bit_length() - 4))


def multiple(n: int, step: int) -> int:
    return -(-n // step) * step
