"""How the voxels of a solve are stored, and what the compiled program asks of them.

There are three kinds. `Listed` has the mask's voxels in one list, with the rows of the grid that
hold them; `Slabs` has such lists for a few rows at a time, where memory is short; `Dense` has
every voxel of a padded grid, for an image that lies on a GPU. All answer to the same names:

- `each(function)` applies a function to each part and stacks the results;
- `expand` evaluates a lattice on the part's voxels, `row_sums` and `plane_sum` project voxels onto
  a lattice;
- `range`, `tally` and `in_mask` look at values on the part's voxels.

These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.n4 import sharpen

Matrices = Sequence[jax.Array]
"""of two axes of the plane and of the rows"""
BY_SLAB = ("log_image", "weight", "listed", "voxel", "place")
"""fields of a list whose first axis counts slabs, where there are slabs"""


class Listed(NamedTuple):
    """M voxels of the mask in a list, which stand in R rows of N, at P0 × P1 places.

    The padding of the list repeats its last voxel, which changes no range and no row; only what
    counts voxels has to leave it out. At least one row is padding; empty places point to it.
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
    """(F,), the mask's first voxels in the list; M after the last"""
    voxel: jax.Array
    """(M,), where each voxel stands in the rows"""
    place: jax.Array
    """(R,), where each row stands in the plane of the other axes"""
    row: jax.Array
    """(P0·P1,), which row stands there; the last of the padding where none does"""

    def kept_bias(self, lattice: jax.Array, matrices: Matrices) -> jax.Array | None:
        """Return what is kept of ln b from one iteration to the next: its values on the list."""
        return self.expand(lattice, matrices)

    def known_bias(
        self, kept: jax.Array | None, part: Any, lattice: jax.Array, matrices: Matrices
    ) -> jax.Array:
        """Return ln b on the voxels of a part."""
        return kept

    def each(self, function: Callable[[Any], Any]) -> Any:
        """Apply a function to the one part that there is."""
        return _stacked_alone(function(self))

    def scratch(self, matrices: Matrices) -> jax.Array:
        """Return empty rows: iterations write to the same voxels, so they are made once."""
        return jnp.zeros(self.place.size * matrices[2].shape[-2], self.log_image.dtype)

    def expand(self, lattice: jax.Array, matrices: Matrices) -> jax.Array:
        """Evaluate a lattice on the list of voxels."""
        plane = _plane(lattice, matrices).at[self.place].get(mode="promise_in_bounds")
        on_rows = bspline.along(plane, matrices[2].T, 1).ravel()
        return on_rows.at[self.voxel].get(mode="promise_in_bounds")

    def on_rows(self, array: jax.Array, empty: jax.Array) -> jax.Array:
        """Put an array on the list of voxels where it belongs in the rows, flat."""
        return empty.at[self.voxel].set(array, mode="promise_in_bounds")

    def row_sums(self, array: jax.Array, matrices: Matrices) -> jax.Array:
        """Sum an array on the list of voxels against the matrix of the rows."""
        return _along_rows(self.on_rows(array, self.scratch(matrices)), matrices)

    def plane_sum(self, sums: jax.Array, matrices: Matrices) -> jax.Array:
        """Sum what `row_sums` made of each part against the matrices of the plane."""
        sums = sums.reshape(-1, sums.shape[-1]).at[self.row].get(mode="promise_in_bounds")
        return _contracted(sums, matrices)

    def in_mask(self) -> jax.Array:
        """Say which voxels of the list are in the mask, each of them once."""
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
        """Return the minimum from a place in the list on, and the maximum."""
        return _range(view, view, view, self.first, start)


class Dense(NamedTuple):
    """Every voxel of a padded grid, where it lies."""

    log_image: jax.Array
    """(M,), all voxels in raster order"""
    weight: jax.Array
    """(M,), > 0 in the mask, 0 elsewhere"""
    n_voxels: jax.Array
    """number of voxels in the mask"""
    first: jax.Array
    """(F,), the mask's first voxels; M after the last"""

    each = Listed.each
    known_bias = Listed.known_bias

    def kept_bias(self, lattice: jax.Array, matrices: Matrices) -> jax.Array:
        """Return ln b on all voxels."""
        return self.expand(lattice, matrices)

    def scratch(self, matrices: Matrices) -> None:
        """Nothing has to be kept: the voxels are the rows."""

    def expand(self, lattice: jax.Array, matrices: Matrices) -> jax.Array:
        """Evaluate a lattice on all voxels."""
        return bspline.along(_plane(lattice, matrices), matrices[2].T, 1).ravel()

    def on_rows(self, array: jax.Array, empty: None) -> jax.Array:
        """Return the array: the voxels are the rows."""
        return array

    def row_sums(self, array: jax.Array, matrices: Matrices) -> jax.Array:
        """Sum an array on all voxels against the matrix of the rows."""
        return _along_rows(array, matrices)

    def plane_sum(self, sums: jax.Array, matrices: Matrices) -> jax.Array:
        """Sum what `row_sums` made against the matrices of the plane."""
        return _contracted(sums.reshape(-1, sums.shape[-1]), matrices)

    def in_mask(self) -> jax.Array:
        """Say which voxels are in the mask."""
        return self.weight > 0

    def weights(self) -> jax.Array:
        """Return the weight of each voxel, 0 outside the mask."""
        return self.weight

    def weighted(self, residual: jax.Array) -> jax.Array:
        """Return a residual times the weights."""
        return residual * self.weight

    def tally(self, bins: sharpen.Bins, n_values: int, n_bins: int, copies: int) -> jax.Array:
        """Count the voxels of the mask in the bins of a histogram; see `sharpen.tally`."""
        return sharpen.tally(bins, self.in_mask(), n_bins, n_values, repeats=0, copies=copies)

    def range(self, view: jax.Array, start: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        """Return the minimum from a voxel on, and the maximum, inside the mask."""
        infinity, inside = jnp.asarray(np.inf, view.dtype), self.in_mask()
        low, high = jnp.where(inside, view, infinity), jnp.where(inside, view, -infinity)
        return _range(view, low, high, self.first, start)


class Slabs(NamedTuple):
    """Lists of voxels for a few rows at a time; nothing is kept from one pass to the next."""

    parts: Listed
    """the fields named in `BY_SLAB` have a first axis that counts slabs, S; `row` counts through
    all of them"""

    def kept_bias(self, lattice: jax.Array, matrices: Matrices) -> None:
        """Keep nothing."""

    def known_bias(
        self, kept: None, part: Listed, lattice: jax.Array, matrices: Matrices
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
        """Nothing is kept."""

    def plane_sum(self, sums: jax.Array, matrices: Matrices) -> jax.Array:
        """Sum what `row_sums` made of each slab against the matrices of the plane."""
        return self.parts.plane_sum(sums, matrices)


Storage = Listed | Dense | Slabs


def listed_on_host(storage: Storage) -> np.ndarray:
    """Say which voxels of the lists are in the mask, all slabs in turn, on the host."""
    if isinstance(storage, Dense):
        return np.asarray(storage.weight) > 0
    parts = storage.parts if isinstance(storage, Slabs) else storage
    length = parts.log_image.shape[-1]
    return (np.arange(length) < np.asarray(parts.listed).reshape(-1, 1)).ravel()


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
    view: jax.Array, low: jax.Array, high: jax.Array, first: jax.Array, start: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """Return the minimum of `low` from a place on, and the maximum of `high`."""
    infinity = jnp.asarray(np.inf, view.dtype)

    def from_start():
        place = jnp.arange(view.size, dtype=jnp.int32)
        return _by_columns(jnp.where(place >= start, low, infinity)).min(axis=0).min()

    lowest = _by_columns(low).min(axis=0).min()
    # A rising run starts at its minimum; rescan only if that is the global minimum.
    at_first = view.at[first[0]].get(mode="clip") <= lowest
    lowest = jax.lax.cond((start > 0) & at_first, from_start, lambda: lowest)
    return lowest, _by_columns(high).max(axis=0).max()


def _by_columns(values: jax.Array) -> jax.Array:
    """Give an array an axis along which it is reduced in vector registers: the first."""
    return values.reshape(-1, math.gcd(values.size, 1024))
