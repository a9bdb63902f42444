"""The iterations, compiled: sharpen, fit, add, evaluate; one program for all fitting levels.

These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline, convergence, sharpen
from n4ax_bids.core.levels import Levels
from n4ax_bids.core.rows import Rows

RUN = 1024
"""voxels at the start of the scan that are looked at first"""


class State(NamedTuple):
    """Where the solve stands."""

    level: jax.Array
    iteration: jax.Array
    """iterations done of this level"""
    waits: jax.Array
    """whether the host has to decide how to go on"""
    lattice: jax.Array
    previous: jax.Array
    """the lattice before the last iteration"""
    bias: jax.Array
    """(M,), ln b at the voxels of the mask"""
    change: jax.Array
    """the exact convergence statistic of the last iteration, where it was computed"""
    done: jax.Array
    """(L,), iterations done at each level"""
    changes: jax.Array
    """(L,), the exact statistic at the end of each level"""


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


def start(lattice: np.ndarray, bias: jax.Array, n_levels: int) -> State:
    """Return the state before the first iteration."""
    return State(
        level=np.int32(0),
        iteration=np.int32(0),
        waits=np.False_,
        lattice=lattice,
        previous=lattice,
        bias=bias,
        change=np.float64(np.inf),
        done=np.zeros(n_levels, np.int32),
        changes=np.full(n_levels, np.nan),
    )


@partial(jax.jit, static_argnames=("n_bins", "can_stop", "skip_rising", "copies"))
def run(
    rows: Rows,
    state: State,
    levels: Levels,
    numbers: Numbers,
    *,
    n_bins: int,
    can_stop: bool,
    skip_rising: bool,
    copies: int,
) -> State:
    """Iterate to the end of the last level, or until the host has to decide.

    Parameters
    ----------
    rows, state, levels, numbers : what the solve works on
    n_bins : int, of the histogram
    can_stop : bool, whether to compute the statistic in each iteration
    skip_rising : bool, whether to find the minimum as ITK 5 does
    copies : int, of the histogram; see `sharpen.histogram`
    """
    state = jax.tree.map(jnp.asarray, state)
    n_levels = levels.max_iterations.shape[0]
    weight_sums = jax.lax.map(partial(_contract, rows, rows.weight), levels.denominators)

    def goes_on(state):
        return (state.level < n_levels) & ~state.waits

    def iterate(state):
        values, numerators = (
            [matrix[state.level] for matrix in group]
            for group in (levels.values, levels.numerators)
        )
        residual = _residual(rows, state.bias, numbers, n_bins, skip_rising, copies)
        delta = _contract(rows, residual, numerators)
        update = bspline.quotient(delta, weight_sums[state.level])
        lattice = state.lattice + update * numbers.over_relaxation
        bias = _expand(rows, lattice, values)

        n = state.iteration + 1
        last = n >= levels.max_iterations[state.level]
        statistic = partial(_statistic, rows, state.lattice, bias, values)
        change = statistic() if can_stop else state.change
        small = can_stop & (change <= numbers.stop_at)
        waits = numbers.wait_always | (numbers.host_decides & small)
        if not can_stop:
            change = jax.lax.cond(last | waits, statistic, lambda: state.change)
        state = state._replace(
            iteration=n,
            lattice=lattice,
            previous=state.lattice,
            bias=bias,
            waits=waits,
            change=change,
        )
        ends = ~waits & (last | small)
        light = state._replace(bias=None)  # what passes through a condition may be copied
        light = jax.lax.cond(ends, partial(_next_level, levels), lambda state: state, light)
        return light._replace(bias=bias)

    return jax.lax.while_loop(goes_on, iterate, state)


def _next_level(levels: Levels, state: State) -> State:
    """Note how a level ended and refine the lattice for the next one."""
    at = state.level
    refined = state.lattice.astype(jnp.float64)
    for axis, matrix in enumerate(levels.refinement):
        refined = bspline.along(refined, matrix[at].T, axis)
    return state._replace(
        level=at + 1,
        iteration=jnp.int32(0),
        waits=jnp.bool_(False),
        lattice=jnp.where(
            at + 1 < levels.max_iterations.shape[0],
            refined.astype(state.lattice.dtype),
            state.lattice,
        ),
        done=state.done.at[at].set(state.iteration),
        changes=state.changes.at[at].set(state.change),
    )


@jax.jit
def end_level(levels: Levels, state: State, change: jax.Array) -> State:
    """End a level on the host's word, with the statistic that the host found."""
    return _next_level(levels, jax.tree.map(jnp.asarray, state)._replace(change=change))


@jax.jit
def last_difference(rows: Rows, state: State, levels: Levels) -> jax.Array:
    """Return ln b before minus ln b after the last iteration, at the voxels of the mask."""
    values = [matrix[state.level] for matrix in levels.values]
    return _expand(rows, state.previous, values) - state.bias


def _statistic(
    rows: Rows, before: jax.Array, bias: jax.Array, values: Sequence[jax.Array]
) -> jax.Array:
    """The exact statistic, from the lattice before an iteration and ln b after it."""
    return convergence.exact(_expand(rows, before, values) - bias, rows.weight > 0, rows.n_voxels)


def _contract(rows: Rows, array: jax.Array, matrices: Sequence[jax.Array]) -> jax.Array:
    """Sum an array over the voxels of the mask against the matrices of plane and rows."""
    on_rows = jnp.zeros(rows.place.size * matrices[2].shape[0], array.dtype)
    on_rows = on_rows.at[rows.voxel].set(array, mode="promise_in_bounds")
    on_rows = on_rows.reshape(rows.place.size, -1)
    summed = bspline.along(on_rows, matrices[2], 1).at[rows.row].get(mode="promise_in_bounds")
    plane = summed.reshape(matrices[0].shape[0], matrices[1].shape[0], -1)
    return bspline.contract(plane, matrices[:2])


def _expand(rows: Rows, lattice: jax.Array, matrices: Sequence[jax.Array]) -> jax.Array:
    """Evaluate a lattice at the voxels of the mask."""
    plane = bspline.expand(lattice, matrices[:2]).reshape(-1, lattice.shape[2])
    on_rows = plane.at[rows.place].get(mode="promise_in_bounds")
    on_rows = bspline.along(on_rows, matrices[2].T, 1)
    return on_rows.ravel().at[rows.voxel].get(mode="promise_in_bounds")


def _residual(
    rows: Rows, bias: jax.Array, numbers: Numbers, n_bins: int, skip_rising: bool, copies: int
) -> jax.Array:
    """What the sharpening takes away from each voxel, times its weight."""
    mask, view = rows.weight > 0, rows.log_image - bias
    infinity = jnp.asarray(np.inf, view.dtype)
    v_max = _reduced(jnp.max, jnp.where(mask, view, -infinity))
    counts = mask & _after_rise(rows, view) if skip_rising else mask
    v_min = _reduced(jnp.min, jnp.where(counts, view, infinity))
    width = (v_max - v_min).astype(jnp.float64)
    slope = (width / (n_bins - 1)).astype(view.dtype)
    flat = slope <= 0
    slope = jnp.where(flat, 1, slope)
    # Behind a condition, because XLA on a CPU makes what stands behind it once and keeps it;
    # else histogram, lookup and residual would each make it anew, without vector registers.
    bins = jax.lax.cond(
        flat,
        lambda: sharpen.Bins(jnp.zeros(view.shape, jnp.int32), jnp.zeros_like(view)),
        lambda: sharpen.find_bins(view, v_min, slope, n_bins),
    )
    counts = sharpen.histogram(bins, mask, n_bins, copies)
    expected = sharpen.sharpening_map(counts, v_min, slope, fwhm=numbers.fwhm, noise=numbers.noise)
    residual = (view - sharpen.sharpened(bins, expected)) * rows.weight
    return jnp.where(mask & ~flat, residual, 0)


def _reduced(reduce, values: jax.Array) -> jax.Array:
    """Reduce a list whose length is a multiple of 8 by columns first, in vector registers."""
    columns = math.gcd(values.size, 1024)
    return reduce(reduce(values.reshape(-1, columns), axis=0))


def _after_rise(rows: Rows, view: jax.Array) -> jax.Array:
    """Say which voxels count for the minimum as ITK 5 finds it.

    Its scan asks "new maximum?" and only else "new minimum?" (docs/method.md §4.1), so those of a
    rising run at the very start never do. Where all voxels rise, all count.
    """

    def first_fall(values):
        index = jnp.arange(1, values.size, dtype=jnp.int32)
        return jnp.where(values[1:] <= values[:-1], index, view.size).min()

    # The run is short, if it is not the whole of a ramp made by a program.
    start = first_fall(view[:RUN])
    start = jax.lax.cond(start < view.size, lambda: start, lambda: first_fall(view))
    index = jnp.arange(view.size, dtype=jnp.int32)
    return index >= jnp.where(start < rows.n_voxels, start, 0)
