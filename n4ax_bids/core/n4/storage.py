"""How the voxels of a solve are stored, and the operations on them in the compiled program.

There are three kinds. `Listed` has the mask's voxels in one list, with the rows of the grid that
contain them; `Slabs` has such lists for a few rows at a time, for when memory is short;
`WholeRows` has all voxels of these rows, for a GPU. All have the same methods:

- `each(function)` applies a function to each part and stacks the results;
- `expand` evaluates a lattice on the part's voxels, `row_sums` and `plane_sum` project voxels onto
  a lattice;
- `range`, `tally` and `in_mask` look at values on the part's voxels.

These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.n4 import sharpen
from n4ax_bids.core.n4.whole_rows import Matrices, WholeRows

BY_SLAB = ("log_image", "weight", "listed", "voxel", "place")
"""fields of a list whose first axis counts slabs in `Slabs`"""


class Listed(NamedTuple):
    """A list of the mask's M voxels. They lie in R rows of length N, at P0 × P1 places.

    The padding of the list repeats its last voxel, which changes no range and no row; only
    functions that count voxels must leave it out. At least one row is padding; empty places point
    to it.
    """

    log_image: jax.Array
    """(M,), voxels of the mask in raster order"""
    weight: jax.Array | None
    """(M,), > 0 in the mask, 0 elsewhere; None: 1"""
    listed: jax.Array
    """number of voxels of the mask in the list"""
    n_voxels: jax.Array
    """number of voxels in the mask"""
    first: jax.Array
    """(F,), indices of the mask's first voxels in the list; M after the last"""
    voxel: jax.Array
    """(M,), index of each voxel in the rows"""
    place: jax.Array
    """(R,), index of each row in the plane of the other axes"""
    row: jax.Array
    """(P0·P1,), index of the row at each place; an empty place has the last row of the padding"""

    def kept_bias(self, lattice: jax.Array, matrices: Matrices) -> jax.Array | None:
        """Return ln b on the list, which is kept for the next iteration."""
        return self.expand(lattice, matrices)

    def known_bias(
        self, kept: jax.Array | None, part: Any, lattice: jax.Array, matrices: Matrices
    ) -> jax.Array:
        """Return ln b on the voxels of a part."""
        return _known(kept)

    def each(self, function: Callable[[Any], Any]) -> Any:
        """Apply a function to the only part."""
        return _stacked_alone(function(self))

    def scratch(self, matrices: Matrices) -> jax.Array:
        """Return empty rows. They are made once, because iterations write to the same voxels."""
        return jnp.zeros(self.place.size * matrices[2].shape[-2], self.log_image.dtype)

    def expand(self, lattice: jax.Array, matrices: Matrices) -> jax.Array:
        """Evaluate a lattice on the list of voxels."""
        plane = _plane(lattice, matrices).at[self.place].get(mode="promise_in_bounds")
        on_rows = bspline.along(plane, matrices[2].T, 1).ravel()
        return on_rows.at[self.voxel].get(mode="promise_in_bounds")

    def on_rows(self, array: jax.Array, empty: jax.Array | None) -> jax.Array:
        """Move an array from the list of voxels to their places in the rows, flat."""
        return _known(empty).at[self.voxel].set(array, mode="promise_in_bounds")

    def row_sums(self, array: jax.Array, matrices: Matrices) -> jax.Array:
        """Sum an array on the list of voxels against the matrix of the rows."""
        return _along_rows(self.on_rows(array, self.scratch(matrices)), matrices)

    def plane_sum(self, sums: jax.Array, matrices: Matrices) -> jax.Array:
        """Sum the results of `row_sums` for all parts against the matrices of the plane."""
        sums = sums.reshape(-1, sums.shape[-1]).at[self.row].get(mode="promise_in_bounds")
        return _contracted(sums, matrices)

    def in_mask(self) -> jax.Array:
        """Return which entries of the list are voxels of the mask, without the padding."""
        return jnp.arange(self.log_image.size, dtype=jnp.int32) < self.listed

    def weights(self) -> jax.Array:
        """Return the weight of each voxel."""
        return jnp.ones_like(self.log_image) if self.weight is None else self.weight

    def weighted(self, residual: jax.Array) -> jax.Array:
        """Return a residual times the weights."""
        return residual if self.weight is None else residual * self.weight

    def tally(self, bins: sharpen.Bins, n_values: int, n_bins: int, copies: int) -> jax.Array:
        """Count the voxels of the mask in the bins of a histogram; see `sharpen.tally`."""
        repeats = self.log_image.size - self.listed
        return sharpen.tally(bins, None, n_bins, n_values, repeats=repeats, copies=copies)

    def range(self, view: jax.Array, start: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        """Return the minimum from the index `start` on, and the maximum."""
        return _range(view, self.first, start)


class Slabs(NamedTuple):
    """Lists of voxels for a few rows at a time; nothing is kept from one pass to the next."""

    parts: Listed
    """the fields named in `BY_SLAB` have a first axis that counts slabs, S; `row` counts through
    all of them"""

    def kept_bias(self, lattice: jax.Array, matrices: Matrices) -> None:
        """Return None: ln b is not kept."""

    def known_bias(
        self, kept: jax.Array | None, part: Listed, lattice: jax.Array, matrices: Matrices
    ) -> jax.Array:
        """Evaluate ln b on the voxels of a slab."""
        return part.expand(lattice, matrices)

    @property
    def log_image(self) -> jax.Array:
        """(S, M), voxels of the mask in raster order."""
        return self.parts.log_image

    @property
    def n_voxels(self) -> jax.Array:
        """Number of voxels in the mask."""
        return self.parts.n_voxels

    @property
    def head(self) -> Listed:
        """The first slab."""
        first = {
            name: jax.tree.map(lambda part: part[0], getattr(self.parts, name)) for name in BY_SLAB
        }
        return self.parts._replace(**first)

    def each(self, function: Callable[[Any], Any]) -> Any:
        """Apply a function to each slab in turn and stack what it returns."""
        by_slab = {name: getattr(self.parts, name) for name in BY_SLAB}
        return jax.lax.map(lambda part: function(self.parts._replace(**part)), by_slab)

    def scratch(self, matrices: Matrices) -> None:
        """Return None: rows are not kept."""

    def plane_sum(self, sums: jax.Array, matrices: Matrices) -> jax.Array:
        """Sum the results of `row_sums` for all slabs against the matrices of the plane."""
        return self.parts.plane_sum(sums, matrices)


Storage = Listed | WholeRows | Slabs


def listed_on_host(storage: Storage) -> np.ndarray:
    """Return which entries of the lists are voxels of the mask, slab by slab, on the host."""
    if isinstance(storage, WholeRows):
        return ~np.isnan(np.asarray(storage.log_image)).ravel()
    parts = storage.parts if isinstance(storage, Slabs) else storage
    length = parts.log_image.shape[-1]
    return (np.arange(length) < np.asarray(parts.listed).reshape(-1, 1)).ravel()


def _known(array: jax.Array | None) -> jax.Array:
    """Return an array that this kind of storage always keeps."""
    assert array is not None
    return array


def _stacked_alone(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)


def _plane(lattice: jax.Array, matrices: Matrices) -> jax.Array:
    """Evaluate a lattice on the plane, (P0·P1, control points along the rows)."""
    return bspline.expand(lattice, matrices[:2]).reshape(-1, lattice.shape[2])


def _along_rows(on_rows: jax.Array, matrices: Matrices) -> jax.Array:
    return bspline.along(on_rows.reshape(-1, matrices[2].shape[0]), matrices[2], 1)


def _contracted(sums: jax.Array, matrices: Matrices) -> jax.Array:
    shape = (matrices[0].shape[0], matrices[1].shape[0], -1)
    return bspline.contract(sums.reshape(shape), matrices[:2])


def _range(
    view: jax.Array, first: jax.Array, start: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """Return the minimum from the index `start` on, and the maximum."""

    def from_start() -> jax.Array:
        place = jnp.arange(view.size, dtype=jnp.int32)
        behind = jnp.where(place >= start, view, jnp.asarray(np.inf, view.dtype))
        return _by_columns(behind).min(axis=0).min()

    lowest = _by_columns(view).min(axis=0).min()
    # A rising run starts at its minimum; rescan only if that is the global minimum.
    at_first = view.at[first[0]].get(mode="clip") <= lowest
    lowest = jax.lax.cond((start > 0) & at_first, from_start, lambda: lowest)
    return lowest, _by_columns(view).max(axis=0).max()


def _by_columns(values: jax.Array) -> jax.Array:
    """Reshape an array so that reducing its first axis uses vector registers."""
    return values.reshape(-1, math.gcd(values.size, 1024))
