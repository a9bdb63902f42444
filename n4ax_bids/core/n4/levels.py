"""The matrices of several fitting levels, padded to the size of the last one.

One compiled program can then run them all: a control point that a level does not have yet has
weight 0 in every matrix, and stays 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.field import LogField, basis_matrices
from n4ax_bids.core.n4.rows import Layout

MOST_SHARED_POINTS = 64
"""up to this length, all axes of a lattice are padded to the longest one, so that images share a
program"""
MOST_ENTRIES = 1 << 25
"""entries of all matrices; levels that have more are not stacked"""


class Levels(NamedTuple):
    """For each use, one array per axis (two of the plane, then the rows), a matrix per level."""

    values: tuple[jax.Array, ...]
    """(L, n, m), control points to voxels"""
    numerators: tuple[jax.Array, ...]
    denominators: tuple[jax.Array, ...]
    """(L, n, m), of the Lee fit"""
    refinement: tuple[jax.Array, ...]
    """(L, m, m), from the lattice of one level to that of the next; the identity at the last"""
    max_iterations: jax.Array
    """(L,)"""


class Counted(NamedTuple):
    """What the compiler knows of each level."""

    n_iterations: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]
    """of its lattice, where that is padded to the longest axis, as in `lattice_sizes`"""


def counted(fields: Sequence[LogField], levels: Levels) -> Counted:
    """Return what the compiler may know of levels that nothing can end."""
    *_, last = every = [lattice_sizes(field) for field in fields]
    sizes = tuple(tuple(map(min, size, last)) for size in every)
    return Counted(tuple(map(int, levels.max_iterations)), sizes)


def stack(fields: Sequence[LogField], most: Sequence[int], layout: Layout) -> Levels:
    """Compute the matrices of some levels on the host in float64, then round them.

    Parameters
    ----------
    fields : lattice of each level with its place on the grid, axes in raster order
    most : largest number of iterations of each level
    layout : Layout of the rows

    Returns
    -------
    Levels, of numpy arrays; all but the refinement in the dtype of the lattices
    """
    last = fields[-1]
    sizes = lattice_sizes(last)
    dtype = last.lattice.dtype
    groups: list[list[list[np.ndarray]]] = [[[] for _ in range(3)] for _ in range(4)]
    for number, field in enumerate(fields):
        matrices = _matrices(field, layout)
        later = fields[min(number + 1, len(fields) - 1)]
        points = _in_three(later.lattice).shape
        for axis, matrix in enumerate(matrices):
            n, m = layout.sizes[axis], sizes[axis]
            for group, made in zip(groups, (matrix, *bspline.fit_matrices(matrix)), strict=False):
                group[axis].append(_padded(made, n, m).astype(dtype))
            refined = _refinement(matrix.shape[1], points[axis], last.order)
            groups[3][axis].append(_padded(refined, m, m))
    stacked: Any = [tuple(np.stack(axis) for axis in group) for group in groups]
    values, numerators, denominators, refinement = stacked
    max_iterations: Any = np.asarray(most, np.int32)
    return Levels(values, numerators, denominators, refinement, max_iterations)


def lattice_sizes(last: LogField) -> tuple[int, ...]:
    """Return the padded number of control points of each of three axes."""
    sizes = _in_three(last.lattice).shape
    most = max(sizes)
    if most > MOST_SHARED_POINTS:
        return sizes
    return tuple(1 if n == 1 else most for n in sizes)


def padded_lattice(lattice: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Return a lattice with zeros up to its padded size."""
    padded = np.zeros(sizes, lattice.dtype)
    given = _in_three(lattice)
    padded[tuple(map(slice, given.shape))] = given
    return padded


def unpadded_lattice(padded: jax.Array | np.ndarray, like: Any) -> np.ndarray:
    """Return a padded lattice without its padding, in the shape of a level's own lattice."""
    part = tuple(map(slice, _in_three(like).shape))
    return np.asarray(padded)[part].reshape(like.shape)


def n_entries(field: LogField, layout: Layout) -> int:
    """Return how many entries the matrices of one level have."""
    sizes = lattice_sizes(field)
    return sum(m * (3 * n + m) for n, m in zip(layout.sizes, sizes, strict=True))


def _in_three(lattice: Any) -> Any:
    """Return a lattice with three axes: that of a 2D image gets a first axis of one point."""
    return lattice if lattice.ndim == 3 else lattice[np.newaxis]


def _matrices(field: LogField, layout: Layout) -> tuple[np.ndarray, ...]:
    """Return one matrix for each of three axes; [[1]] for the axis that a 2D image lacks."""
    made = basis_matrices(field, layout.box[-field.lattice.ndim :])
    return (np.ones((1, 1)),) * (3 - len(made)) + made


def _refinement(points: int, later: int, order: int) -> np.ndarray:
    """Return the product of the refinements from one number of control points to another."""
    matrix = np.eye(points)
    while matrix.shape[0] < later:
        matrix = bspline.refinement_matrix(matrix.shape[0], order) @ matrix
    return matrix


def _padded(matrix: np.ndarray, n: int, m: int) -> np.ndarray:
    full = np.zeros((n, m))
    full[: matrix.shape[0], : matrix.shape[1]] = matrix
    return full
