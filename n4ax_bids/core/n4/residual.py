"""The residual v - E(u|v) that the sharpening removes, for all voxels at once or slab by slab.

These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.n4 import residual_of_rows, sharpen, sharpen_direct
from n4ax_bids.core.n4.levels import Counted
from n4ax_bids.core.n4.residual_of_rows import RowTaps
from n4ax_bids.core.n4.storage import Listed, Slabs, Storage
from n4ax_bids.core.n4.whole_rows import Matrices, WholeRows


class Numbers(NamedTuple):
    """Options that may change without compiling again."""

    stop_at: float
    """a level ends when the exact statistic is at most this"""
    host_decides: bool
    """the level then waits instead, and the host decides whether it ends"""
    wait_always: bool
    """wait for the host after each iteration"""
    fwhm: float
    noise: float
    over_relaxation: float


class Program(NamedTuple):
    """Options that are fixed when the program is compiled."""

    n_bins: int
    """of the histogram"""
    can_stop: bool
    """whether to compute the statistic in each iteration"""
    skip_rising: bool
    """whether to find the minimum as ITK 5 does"""
    copies: int
    """of the histogram; see `sharpen.tally`"""
    order: int
    """of the spline"""
    counted: Counted | None = None
    """on a GPU, where nothing can end a level; None: the numbers of iterations are in `Levels`"""


Sums = tuple[jax.Array, jax.Array, jax.Array | None]
"""sums along the rows; whether the rising run at the start extends beyond the voxels that are
searched for it; `scratch` for the next iteration"""


def taps_of(voxels: Storage, values: Matrices, program: Program) -> RowTaps | None:
    """Return how a lattice is evaluated on whole rows at one level; None for other storage."""
    if isinstance(voxels, WholeRows):
        return residual_of_rows.row_taps(voxels, values, program.order)
    return None


def sums(
    voxels: Storage,
    lattice: jax.Array,
    bias: jax.Array | None,
    values: Matrices,
    numerators: Matrices,
    scratch: jax.Array | None,
    taps: RowTaps | None,
    numbers: Numbers,
    program: Program,
) -> Sums:
    """Return the sums of the residual along the rows.

    Parameters
    ----------
    voxels : storage of the voxels
    lattice : of ln b
    bias : ln b on the voxels; None in slabs, where it is not kept
    values, numerators : matrices of the level
    scratch : from `voxels.scratch` or the last iteration
    taps : from `taps_of`
    """
    if isinstance(voxels, Slabs):
        return _by_slab(voxels, lattice, values, numerators, numbers, program)
    if isinstance(voxels, WholeRows):
        assert taps is not None
        found = of_rows(voxels, lattice, taps, numerators, numbers, program)
        more = voxels.n_voxels > voxels.first.size
        return found, more & jnp.isnan(found).any(), None
    found, unseen = _residual(voxels, bias, numbers, program)
    on_rows = voxels.on_rows(found, scratch)
    along = bspline.along(on_rows.reshape(-1, numerators[2].shape[0]), numerators[2], 1)
    return along, unseen, None if scratch is None else on_rows


def of_rows(
    voxels: WholeRows,
    lattice: jax.Array,
    taps: RowTaps,
    numerators: Matrices,
    numbers: Numbers,
    program: Program,
) -> jax.Array:
    """Return the sums along whole rows; NaN if a rising run was not seen whole."""
    view = residual_of_rows.view_of(voxels, lattice, taps)
    v_min, v_max = residual_of_rows.range_of(voxels, view, skip_rising=program.skip_rising)
    n_bins = program.n_bins
    bin_width, flat = width_of(v_min, v_max, n_bins, view.dtype)
    position = sharpen.find_position(view.ravel(), v_min, bin_width, n_bins)
    bins = sharpen.find_bins(position, n_bins)
    total = sharpen.tally(bins, None, n_bins, view.size, copies=program.copies)
    expected = sharpen_direct.sharpening_map(
        sharpen.histogram(total, view.size),
        v_min,
        bin_width,
        fwhm=numbers.fwhm,
        noise=numbers.noise,
    )
    # So the positions are found twice rather than kept: they take as much memory as v.
    view, expected = jax.lax.optimization_barrier((view, expected))
    sharp = residual_of_rows.sharpened(view, v_min, bin_width, expected)
    found = voxels.weighted(view - jnp.where(flat, view, sharp), ~jnp.isnan(view))
    return voxels.row_sums(found, numerators)


def _residual(
    voxels: Listed, bias: jax.Array | None, numbers: Numbers, program: Program
) -> tuple[jax.Array, jax.Array]:
    """Return v - E(u|v), weighted, on the voxels, and whether a rising run was not seen whole."""
    assert bias is not None  # only slabs do not keep it
    view = voxels.log_image - bias
    start, unseen = _after_rise(voxels, view, program)
    v_min, v_max = voxels.range(view, start)
    bin_width, flat = width_of(v_min, v_max, program.n_bins, view.dtype)
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


def _by_slab(
    slabs: Slabs,
    lattice: jax.Array,
    values: Matrices,
    numerators: Matrices,
    numbers: Numbers,
    program: Program,
) -> Sums:
    """Pass over the slabs three times: for the range, the histogram and the sums."""
    n_values, n_bins = slabs.log_image.size, program.n_bins

    def view_of(slab: Listed) -> jax.Array:
        return slab.log_image - slab.expand(lattice, values)

    start, unseen = _after_rise(slabs.head, view_of(slabs.head), program)

    def ranges(slab: Listed) -> tuple[jax.Array, ...]:
        view = view_of(slab)
        return (*slab.range(view, start), *slab.range(view, 0))

    low, _, whole_low, whole_high = slabs.each(ranges)
    v_min = jnp.minimum(low[0], whole_low[1:].min(initial=jnp.inf))
    v_max = whole_high.max()
    bin_width, flat = width_of(v_min, v_max, n_bins, slabs.log_image.dtype)

    def bins_of(view: jax.Array) -> sharpen.Bins:
        return sharpen.find_bins(sharpen.find_position(view, v_min, bin_width, n_bins), n_bins)

    def tallied(slab: Listed) -> jax.Array:
        return slab.tally(bins_of(view_of(slab)), n_values, n_bins, program.copies)

    total = slabs.each(tallied).sum(axis=0)
    expected = _expected(total, n_values, v_min, bin_width, numbers)
    rise = sharpen.rise(expected)

    def summed(slab: Listed) -> jax.Array:
        view = view_of(slab)
        sharp = sharpen.sharpened(bins_of(view), expected, rise)
        residual = slab.weighted(view - jnp.where(flat, view, sharp))
        return slab.row_sums(residual, numerators)

    return slabs.each(summed), unseen, None


def width_of(
    v_min: jax.Array, v_max: jax.Array, n_bins: int, dtype: np.dtype
) -> tuple[jax.Array, jax.Array]:
    """Return the width of a bin and whether the values are all equal; the width is 1 then."""
    width = sharpen.rounded((v_max - v_min).astype(jnp.float64) / (n_bins - 1), dtype)
    width = width.astype(dtype)
    return jnp.where(width <= 0, 1, width), width <= 0


def _expected(
    total: jax.Array, n_values: int, v_min: jax.Array, bin_width: jax.Array, numbers: Numbers
) -> jax.Array:
    counts = sharpen.histogram(total, n_values)
    return sharpen.sharpening_map(counts, v_min, bin_width, fwhm=numbers.fwhm, noise=numbers.noise)


def _after_rise(
    voxels: Listed, view: jax.Array, program: Program
) -> tuple[jax.Array | int, jax.Array]:
    """Return the index from which voxels count for the minimum, as in ITK 5.

    ITK's scan looks for a new minimum only where it finds no new maximum (docs/method.md §4.1).
    The voxels of a rising run at the very start are therefore left out of the minimum, unless all
    voxels rise. Also return whether that run extends beyond the voxels in `first`.
    """
    if not program.skip_rising:
        return 0, jnp.bool_(False)
    first = voxels.first
    values = view.at[first].get(mode="clip")
    listed = first < view.size
    ends = (values[1:] <= values[:-1]) & listed[1:]
    unseen = ~ends.any() & (voxels.n_voxels > jnp.count_nonzero(listed))
    return jnp.where(ends.any(), first[jnp.argmax(ends) + 1], 0), unseen
