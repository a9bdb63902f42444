"""What the sharpening takes away of an image: v - E(u|v), of all voxels at once or slab by slab.

These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.n4 import sharpen
from n4ax_bids.core.n4.storage import Dense, Listed, Matrices, Slabs


class Numbers(NamedTuple):
    """Options that may change without compiling again."""

    stop_at: float
    """a level ends when the exact statistic is not above this"""
    host_decides: bool
    """then it only waits, for the host to say whether the level ends"""
    wait_always: bool
    """wait after each iteration"""
    fwhm: float
    noise: float
    over_relaxation: float


class Program(NamedTuple):
    """Options for which a program is compiled."""

    n_bins: int
    """of the histogram"""
    can_stop: bool
    """whether to compute the statistic in each iteration"""
    skip_rising: bool
    """whether to find the minimum as ITK 5 does"""
    copies: int
    """of the histogram; see `sharpen.tally`"""


Sums = tuple[jax.Array, jax.Array, jax.Array | None]
"""sums along the rows; whether the rising run at the start goes beyond the voxels that are looked
at for it; what is to be passed on to the next iteration as `scratch`"""


@singledispatch
def sums(
    voxels: Listed | Dense,
    lattice: jax.Array,
    bias: jax.Array | None,
    values: Matrices,
    numerators: Matrices,
    scratch: jax.Array | None,
    numbers: Numbers,
    program: Program,
) -> Sums:
    """Return the sums along the rows of what the sharpening takes away.

    Parameters
    ----------
    voxels : storage of the voxels
    lattice : of ln b
    bias : ln b on the voxels, where it is kept
    values, numerators : matrices of the level
    scratch : from `voxels.scratch` or the last iteration
    """
    found, unseen = _residual(voxels, bias, numbers, program)
    on_rows = voxels.on_rows(found, scratch)
    along = bspline.along(on_rows.reshape(-1, numerators[2].shape[0]), numerators[2], 1)
    return along, unseen, None if scratch is None else on_rows


def _residual(
    voxels: Listed | Dense, bias: jax.Array, numbers: Numbers, program: Program
) -> tuple[jax.Array, jax.Array]:
    """Return v - E(u|v), weighted, on the voxels, and whether a rising run goes on unseen."""
    view = voxels.log_image - bias
    start, unseen = _after_rise(voxels, view, program)
    v_min, v_max = voxels.range(view, start)
    bin_width, flat = _bin_width(v_min, v_max, program.n_bins, view.dtype)
    # `lax.cond` stops XLA:CPU recomputing this per voxel in its consumers, without vector
    # registers.
    position = jax.lax.cond(
        flat,
        lambda: jnp.zeros_like(view),
        lambda: sharpen.find_position(view, v_min, bin_width, program.n_bins),
    )
    bins = sharpen.find_bins(position, program.n_bins)
    counted = voxels.tally(bins, view.size, program.n_bins, program.copies)
    expected = _expected(counted, view.size, v_min, bin_width, numbers)
    rise = jax.lax.cond(flat, lambda: jnp.zeros_like(expected), lambda: sharpen.rise(expected))
    sharp = jnp.where(flat, view, sharpen.sharpened(bins, expected, rise))
    return voxels.weighted(view - sharp), unseen


@sums.register(Slabs)
def _by_slab(
    slabs: Slabs,
    lattice: jax.Array,
    bias: None,
    values: Matrices,
    numerators: Matrices,
    scratch: None,
    numbers: Numbers,
    program: Program,
) -> Sums:
    """Pass over the slabs three times: for the range, the histogram and the sums."""
    n_values, n_bins = slabs.log_image.size, program.n_bins

    def view_of(slab):
        return slab.log_image - slab.expand(lattice, values)

    start, unseen = _after_rise(slabs.head, view_of(slabs.head), program)

    def ranges(slab):
        view = view_of(slab)
        return (*slab.range(view, start), *slab.range(view, 0))

    low, _, whole_low, whole_high = slabs.each(ranges)
    v_min = jnp.minimum(low[0], whole_low[1:].min(initial=jnp.inf))
    v_max = whole_high.max()
    bin_width, flat = _bin_width(v_min, v_max, n_bins, slabs.log_image.dtype)

    def bins_of(view):
        return sharpen.find_bins(sharpen.find_position(view, v_min, bin_width, n_bins), n_bins)

    def tallied(slab):
        return slab.tally(bins_of(view_of(slab)), n_values, n_bins, program.copies)

    total = slabs.each(tallied).sum(axis=0)
    expected = _expected(total, n_values, v_min, bin_width, numbers)
    rise = sharpen.rise(expected)

    def summed(slab):
        view = view_of(slab)
        sharp = sharpen.sharpened(bins_of(view), expected, rise)
        residual = slab.weighted(view - jnp.where(flat, view, sharp))
        return slab.row_sums(residual, numerators)

    return slabs.each(summed), unseen, scratch


def _bin_width(
    v_min: jax.Array, v_max: jax.Array, n_bins: int, dtype: np.dtype
) -> tuple[jax.Array, jax.Array]:
    """Return the width of a bin, and whether there is none; then it is 1."""
    width = ((v_max - v_min).astype(jnp.float64) / (n_bins - 1)).astype(dtype)
    return jnp.where(width <= 0, 1, width), width <= 0


def _expected(
    total: jax.Array, n_values: int, v_min: jax.Array, bin_width: jax.Array, numbers: Numbers
) -> jax.Array:
    counts = sharpen.histogram(total, n_values)
    return sharpen.sharpening_map(counts, v_min, bin_width, fwhm=numbers.fwhm, noise=numbers.noise)


def _after_rise(
    voxels: Listed | Dense, view: jax.Array, program: Program
) -> tuple[jax.Array | int, jax.Array]:
    """Return the place in the list from which on voxels count for the minimum, as in ITK 5.

    Its scan asks "new maximum?" and only else "new minimum?" (docs/method.md §4.1), so the voxels
    of a rising run at the very start never count for it. Where all voxels rise, all count. Returns
    also whether that run goes on beyond the voxels that `first` lists.
    """
    if not program.skip_rising:
        return 0, jnp.bool_(False)
    first = voxels.first
    values = view.at[first].get(mode="clip")
    listed = first < view.size
    ends = (values[1:] <= values[:-1]) & listed[1:]
    unseen = ~ends.any() & (voxels.n_voxels > jnp.count_nonzero(listed))
    return jnp.where(ends.any(), first[jnp.argmax(ends) + 1], 0), unseen
