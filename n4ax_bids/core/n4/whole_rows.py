"""The voxels of a solve on a GPU: whole rows of the grid, with the methods of `storage`.

These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline

Matrices = Sequence[jax.Array]
"""of two axes of the plane and of the rows"""

FEW_POINTS = 16
"""control points of an axis"""


@jax.custom_batching.custom_vmap
def looked_up(table: jax.Array, index: jax.Array) -> jax.Array:
    """Return the entries of a table, by their index on its first axis.

    In a batch, the tables are put one behind the other, so that a GPU reads one number for each
    entry; for a gather of two axes, the compiler would store pairs of them first.
    """
    return table.at[index].get(mode="promise_in_bounds")


@looked_up.def_vmap
def _looked_up_each(
    n: int, batched: Sequence[bool], table: jax.Array, index: jax.Array
) -> tuple[jax.Array, bool]:
    if batched[0]:
        index = index if batched[1] else jnp.broadcast_to(index, (n, *index.shape))
        if n * table.shape[1] > np.iinfo(np.int32).max:
            index = index.astype(jnp.int64)
        before = (table.shape[1] * jnp.arange(n)).astype(index.dtype)
        index = index + before.reshape(n, *(1,) * (index.ndim - 1))
        table = table.reshape(-1, *table.shape[2:])
    return looked_up(table, index), True


def _of_one(sums: jax.Array, row: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    return _summed(sums.at[row].get(mode="promise_in_bounds"), first, second)


@jax.custom_batching.custom_vmap
def _plane_sum(sums: jax.Array, row: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Sum rows (R, n) at places (P0, P1) against matrices (P0, m0) and (P1, m1): (m0, m1, n).

    In a batch with common matrices of many control points, the images lie side by side in the last
    axis, so that nothing is transposed between the two products.
    """
    return _of_one(sums, row, first, second)


@_plane_sum.def_vmap
def _plane_sum_each(
    n: int,
    batched: Sequence[bool],
    sums: jax.Array,
    row: jax.Array,
    first: jax.Array,
    second: jax.Array,
) -> tuple[jax.Array, bool]:
    if list(batched) != [True, True, False, False] or second.shape[1] <= FEW_POINTS:
        axes = tuple(0 if has_images else None for has_images in batched)
        return jax.vmap(_of_one, axes)(sums, row, first, second), True
    image, place = (jnp.arange(size, dtype=row.dtype) for size in (n, row[0].size))
    # The rows are looked up: to transpose them would take a kernel of its own.
    at = place.size * image[None] + place[:, None]
    at = row.ravel().at[at].get(mode="promise_in_bounds") + sums.shape[1] * image[None]
    on_plane = sums.reshape(-1, sums.shape[-1]).at[at].get(mode="promise_in_bounds")
    summed = _summed(on_plane.reshape(*row.shape[1:], -1), first, second)
    return jnp.moveaxis(summed.reshape(*summed.shape[:2], n, -1), 2, 0), True


def _summed(on_plane: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Sum an array (P0, P1, n) against matrices (P0, m0) and (P1, m1).

    On few control points, the second axis is summed by hand: a matrix product would take longer
    there, and much shorter on many.
    """
    along = bspline.first_summed(first, on_plane)
    if second.shape[1] <= FEW_POINTS:
        return (along[:, :, None, :] * second[None, :, :, None]).sum(axis=1)
    return jax.lax.dot_general(
        jnp.broadcast_to(second, (along.shape[0], *second.shape)),
        along,
        (((1,), (1,)), ((0,), (0,))),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=along.dtype,
    )


class WholeRows(NamedTuple):
    """The R rows of length N that contain voxels of the mask, at P0 × P1 places, on a GPU.

    The values outside the mask are NaN, so that neither a list nor a mask has to be read. Rows are
    in raster order; the last one is padding, and empty places point to it. `Levels` has matrices
    for all columns of the grid, so that images of one plan share them; `own` cuts them.
    """

    log_image: jax.Array
    """(R, N)"""
    weight: jax.Array | None
    """(R, N), > 0 in the mask; None: 1"""
    n_voxels: jax.Array
    """number of voxels in the mask"""
    first: jax.Array
    """(F,), flat indices of the mask's first voxels; R·N after the last"""
    place: jax.Array
    """(R,), index of each row in the plane of the other axes"""
    row: jax.Array
    """(P0, P1), index of the row at each place"""
    begin: jax.Array
    """the grid's column that the rows begin with"""

    def own(self, matrices: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Return the matrices of each level for the columns of these rows."""
        width = self.log_image.shape[1]
        cut = jax.lax.dynamic_slice_in_dim(matrices[2], self.begin, width, axis=1)
        return (*matrices[:2], cut)

    def each(self, function: Callable[[Any], Any]) -> Any:
        """Apply a function to the only part."""
        return jax.tree.map(lambda leaf: leaf[None], function(self))

    def kept_bias(self, lattice: jax.Array, matrices: Matrices) -> None:
        """Return None: ln b is not kept."""

    def known_bias(
        self, kept: jax.Array | None, part: Any, lattice: jax.Array, matrices: Matrices
    ) -> jax.Array:
        """Evaluate ln b on the rows."""
        return self.expand(lattice, matrices)

    def scratch(self, matrices: Matrices) -> None:
        """Return None: the voxels are in their rows, so no empty rows are needed."""

    def expand(self, lattice: jax.Array, matrices: Matrices) -> jax.Array:
        """Evaluate a lattice on the rows."""
        plane = bspline.expand(lattice, matrices[:2]).reshape(-1, lattice.shape[2])
        plane = plane.at[self.place].get(mode="promise_in_bounds")
        return bspline.along(plane, matrices[2].T, 1)

    def row_sums(self, array: jax.Array, matrices: Matrices) -> jax.Array:
        """Sum an array on the rows against the matrix of the rows."""
        return bspline.along(array, matrices[2], 1)

    def plane_sum(self, sums: jax.Array, matrices: Matrices) -> jax.Array:
        """Sum the result of `row_sums` against the matrices of the plane."""
        return _plane_sum(sums.reshape(-1, sums.shape[-1]), self.row, *matrices[:2])

    def in_mask(self) -> jax.Array:
        """Return which voxels are in the mask."""
        return ~jnp.isnan(self.log_image)

    def weights(self) -> jax.Array:
        """Return the weight of each voxel, 0 outside the mask."""
        return self.weighted(jnp.ones_like(self.log_image), self.in_mask())

    def weighted(self, values: jax.Array, inside: jax.Array) -> jax.Array:
        """Return values times the weights, 0 outside the mask."""
        return jnp.where(inside, values if self.weight is None else values * self.weight, 0)

    def range(self, view: jax.Array, start: int) -> tuple[jax.Array, jax.Array]:
        """Return minimum and maximum inside the mask."""
        inside, infinity = self.in_mask(), jnp.asarray(np.inf, view.dtype)
        low, high = jnp.where(inside, view, infinity), jnp.where(inside, view, -infinity)
        return low.min(), high.max()
