"""The residual v - E(u|v) on whole rows, in as few and as small passes as a GPU allows.

ln b is never stored: each voxel sums the few control points that its position along the row
touches, after the lattice was evaluated at the rows' places. These functions run inside
`jax.enable_x64(True)`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.n4 import sharpen
from n4ax_bids.core.n4.whole_rows import Matrices, WholeRows, looked_up


class Taps(NamedTuple):
    """The neighbouring control points that each position of one axis touches."""

    start: jax.Array
    """(n,), index of the first one"""
    weights: jax.Array
    """(n, order + 1), or as many as there are control points"""


def taps_of(matrix: jax.Array, order: int) -> Taps:
    """Return what a matrix (n, m) of B-splines has beside zeros."""
    m = matrix.shape[1]
    width = min(order + 1, m)
    start = jnp.minimum(jnp.argmax(matrix != 0, axis=1), m - width)
    at = start[:, None] + jnp.arange(width)[None]
    return Taps(start.astype(jnp.int32), jnp.take_along_axis(matrix, at, axis=1))


class RowTaps(NamedTuple):
    """How a lattice of one level is evaluated on whole rows."""

    base: jax.Array
    """(R,), index in the flat lattice of the first control point that a row touches"""
    steps: jax.Array
    """(K,), from there to each one that it touches"""
    weights: jax.Array
    """(R, K)"""
    along: Taps
    """on the axis of the rows"""
    n_along: int
    """control points on that axis"""


def row_taps(voxels: WholeRows, matrices: Matrices, order: int) -> RowTaps:
    """Return the taps of a level, which do not change within it."""
    first, second, along = (taps_of(matrix, order) for matrix in matrices)
    n_second, n_along = matrices[1].shape[1], matrices[2].shape[1]
    z, y = jnp.divmod(voxels.place, matrices[1].shape[0])
    widths = first.weights.shape[1], second.weights.shape[1]
    steps = np.add.outer(np.arange(widths[0]) * n_second, np.arange(widths[1])) * n_along
    base = (first.start[z] * n_second + second.start[y]) * n_along
    weights = first.weights[z][:, :, None] * second.weights[y][:, None, :]
    return RowTaps(
        base.astype(jnp.int32),
        jnp.asarray(steps.ravel(), jnp.int32),
        weights.reshape(base.size, -1),
        along,
        n_along,
    )


def view_of(voxels: WholeRows, lattice: jax.Array, taps: RowTaps) -> jax.Array:
    """Return v = ln(image) - ln b on the rows, NaN outside the mask."""
    along = jnp.arange(taps.n_along, dtype=jnp.int32)
    at = taps.base[:, None, None] + taps.steps[None, :, None] + along[None, None]
    touched = lattice.ravel().at[at].get(mode="promise_in_bounds")
    on_plane = (touched * taps.weights[:, :, None]).sum(axis=1)
    row = taps.n_along * jnp.arange(voxels.place.size, dtype=jnp.int32)[:, None]
    bias = jnp.zeros_like(voxels.log_image)  # summed first, so that v is rounded only once
    for k in range(taps.along.weights.shape[1]):
        value = on_plane.ravel().at[row + taps.along.start[None] + k].get(mode="promise_in_bounds")
        bias = bias + value * taps.along.weights[:, k][None]
    return voxels.log_image - bias


def range_of(
    voxels: WholeRows, view: jax.Array, *, skip_rising: bool
) -> tuple[jax.Array, jax.Array]:
    """Return lowest and highest v; the lowest is NaN if a rising run was not seen whole.

    With `skip_rising`, ITK 5's minimum leaves out the rising run at the start (docs/method.md
    §4.1). Behind it, the lowest value is not higher than the one before it, so of the first
    voxels, those that are not higher than the one before them are enough.
    """
    infinity = jnp.asarray(np.inf, view.dtype)
    inside = ~jnp.isnan(view)
    counts = inside
    if skip_rising:
        n_rows, length = view.shape
        row = length * jnp.arange(n_rows, dtype=jnp.int32)[:, None]
        counts = inside & (row + jnp.arange(length, dtype=jnp.int32)[None] > voxels.first[-1])
    both = jnp.where(counts, view, infinity), jnp.where(inside, view, -infinity)
    if not skip_rising:
        low, high, _ = _lowest_and_highest(*both, jnp.full(1, infinity))
        return low, high
    values = looked_up(view.ravel(), jnp.minimum(voxels.first, view.size - 1))
    listed = voxels.first < view.size
    falls = (values[1:] <= values[:-1]) & listed[1:]
    low, high, behind = _lowest_and_highest(*both, jnp.where(falls, values[1:], infinity))
    # Without a fall, the first value is the lowest, if these are all voxels.
    more = listed[-1] & (voxels.n_voxels > listed.size)
    rising = jnp.where(more, jnp.asarray(np.nan, view.dtype), values[0])
    return jnp.where(behind < infinity, jnp.minimum(behind, low), rising), high


def _lowest_and_highest(
    low: jax.Array, high: jax.Array, few: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the minimum of one array, the maximum of another, and the minimum of few values.

    In one pass over both arrays, and one over what is left of them beside the few values.
    """
    infinity = jnp.asarray(np.inf, low.dtype)
    blocks = math.gcd(low.size, 1024)
    two = jax.lax.reduce(
        (low.reshape(blocks, -1), high.reshape(blocks, -1)),
        (infinity, -infinity),
        lambda a, b: (jnp.minimum(a[0], b[0]), jnp.maximum(a[1], b[1])),
        (1,),
    )
    ends = (infinity, -infinity, infinity)
    most = max(blocks, few.size)
    three = (
        jnp.pad(each, (0, most - each.size), constant_values=end)
        for each, end in zip((*two, few), ends, strict=True)
    )
    lowest, highest, lowest_of_few = jax.lax.reduce(
        tuple(three),
        ends,
        lambda a, b: (
            jnp.minimum(a[0], b[0]),
            jnp.maximum(a[1], b[1]),
            jnp.minimum(a[2], b[2]),
        ),
        (0,),
    )
    return lowest, highest, lowest_of_few


def sharpened(
    view: jax.Array, v_min: jax.Array, bin_width: jax.Array, expected: jax.Array
) -> jax.Array:
    """Return the expected true log intensity of every voxel, as `sharpen.sharpened`."""
    last = expected.size - 1
    position = sharpen.quotient(view, v_min, bin_width)
    # One comparison, because the compiler would keep the result of two.
    position = jnp.where(position >= 0, jnp.minimum(position, last), last)
    lower = position.astype(jnp.uint32)
    bottom, rise = (looked_up(table, lower) for table in (expected, sharpen.rise(expected)))
    return bottom + rise * (position - lower.astype(position.dtype))
