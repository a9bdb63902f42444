"""The iterations of one fitting level, compiled: sharpen, fit, add, evaluate.

These functions run inside `jax.enable_x64(True)`; arrays are on the shrunk grid in raster order,
the image's first axis last.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline, convergence, sharpen


class Grid(NamedTuple):
    """What stays the same over the levels."""

    log_image: jax.Array
    mask: jax.Array
    weight: jax.Array
    n_voxels: jax.Array
    raster: jax.Array
    """raster index of each mask voxel in turn, filled up with the grid's size"""


class State(NamedTuple):
    """One level's loop."""

    iteration: jax.Array
    lattice: jax.Array
    previous: jax.Array
    """the lattice before the last iteration"""
    bias: jax.Array
    change: jax.Array
    """the exact convergence statistic of the last iteration"""


class Numbers(NamedTuple):
    """Options that may change without compiling again."""

    max_iterations: int
    stop_at: float
    """the loop ends when the exact statistic is not above this"""
    fwhm: float
    noise: float
    over_relaxation: float


class Matrices(NamedTuple):
    """One matrix per axis for each use of the lattice."""

    values: tuple[jax.Array, ...]
    """control points to voxels"""
    numerators: tuple[jax.Array, ...]
    denominators: tuple[jax.Array, ...]
    """of the Lee fit"""


def start(lattice: jax.Array, bias: jax.Array) -> State:
    """Return the state before a level's first iteration."""
    return State(np.asarray(0), lattice, lattice, bias, np.asarray(np.inf))


@partial(jax.jit, static_argnames=("n_bins", "can_stop", "skip_rising"))
def run(
    grid: Grid,
    state: State,
    matrices: Matrices,
    numbers: Numbers,
    *,
    n_bins: int,
    can_stop: bool,
    skip_rising: bool,
) -> tuple[State, jax.Array]:
    """Iterate until the last iteration or until the exact statistic is not above `stop_at`.

    Parameters
    ----------
    grid, state, matrices, numbers : what the level works on
    n_bins : int, of the histogram
    can_stop : bool, whether to compute the statistic in each iteration
    skip_rising : bool, whether to find the minimum as ITK 5 does

    Returns
    -------
    state : State
    change : float64 scalar, the exact statistic of the last iteration
    """
    weight_sum = bspline.contract(grid.weight, matrices.denominators)

    def goes_on(state):
        return (state.iteration < numbers.max_iterations) & (state.change > numbers.stop_at)

    def iterate(state):
        view = grid.log_image - state.bias
        residual = _residual(grid, view, numbers, n_bins, skip_rising)
        update = bspline.fit(grid.weight * residual, weight_sum, matrices.numerators)
        lattice = state.lattice + update * numbers.over_relaxation
        bias = bspline.expand(lattice, matrices.values)
        change = state.change
        if can_stop:
            change = convergence.exact(state.bias - bias, grid.mask, grid.n_voxels)
        return State(state.iteration + 1, lattice, state.lattice, bias, change)

    # Of a fixed type, as `start` gives it: a second call with the state compiles nothing anew.
    endless = jnp.asarray(np.inf, jnp.float64)
    state = jax.lax.while_loop(goes_on, iterate, state._replace(change=endless))
    difference = bspline.expand(state.previous, matrices.values) - state.bias
    return state, convergence.exact(difference, grid.mask, grid.n_voxels)


def _residual(grid: Grid, view: jax.Array, numbers: Numbers, n_bins: int, skip_rising: bool):
    """What the sharpening takes away from each voxel: v - E(u|v); 0 outside the mask."""
    infinity = jnp.asarray(np.inf, view.dtype)
    v_max = jnp.where(grid.mask, view, -infinity).max()
    v_min = jnp.where(grid.mask, view, infinity).min()
    if skip_rising:
        v_min = _minimum_after_rise(grid, view, v_min)
    width = (v_max - v_min).astype(jnp.float64)
    slope = (width / (n_bins - 1)).astype(view.dtype)
    flat = slope <= 0
    slope = jnp.where(flat, 1, slope)
    bins, offset = sharpen.bin_position(view, v_min, slope)
    counts = sharpen.histogram(bins, offset, grid.mask, n_bins)
    expected = sharpen.sharpening_map(counts, v_min, slope, fwhm=numbers.fwhm, noise=numbers.noise)
    residual = view - sharpen.sharpened(bins, offset, expected)
    return jnp.where(grid.mask & ~flat, residual, 0)


def _minimum_after_rise(grid: Grid, view: jax.Array, v_min: jax.Array) -> jax.Array:
    """The minimum as ITK 5 finds it: values of a rising run at the very start never count.

    Its scan asks "new maximum?" and only else "new minimum?" (docs/method.md §4.1).
    """
    block = min(256, view.size)
    values = view.ravel()

    def next_in_order(start):
        places = jnp.clip(start + jnp.arange(block + 1), 0, view.size - 1)
        return values.at[grid.raster[places]].get(mode="clip")

    def rises(start):
        here = next_in_order(start)
        return jnp.where(here[1:] > here[:-1], 0, 1).argmax(), (here[1:] > here[:-1]).all()

    def look(carry):
        start, _, _ = carry
        length, whole = rises(start)
        step = jnp.where(whole, block, length)
        return start + step, whole, (start + step + 1).astype(jnp.int64)

    def more(carry):
        start, whole, _ = carry
        return whole & (start + 1 < grid.n_voxels)

    start = jnp.zeros((), jnp.int64)
    _, _, after = jax.lax.while_loop(more, look, (start, jnp.asarray(True), start))
    first = grid.raster[jnp.minimum(after, view.size - 1)]
    place = jax.lax.broadcasted_iota(jnp.int32, (view.size,), 0).reshape(view.shape)
    infinity = jnp.asarray(np.inf, view.dtype)
    later = jnp.where(grid.mask & (place >= first), view, infinity).min()
    return jnp.where((after < grid.n_voxels) & jnp.isfinite(later), later, v_min)


@jax.jit
def last_difference(state: State, matrices: Matrices) -> jax.Array:
    """Return ln b before minus ln b after the last iteration, on the grid."""
    return bspline.expand(state.previous, matrices.values) - state.bias
