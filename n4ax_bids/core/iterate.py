"""The iterations, compiled: sharpen, fit, add, evaluate; one program for all fitting levels.

These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline, convergence, sharpen
from n4ax_bids.core.levels import Levels
from n4ax_bids.core.rows import Rows

BY_SLAB = ("log_image", "weight", "listed", "voxel", "place")
"""fields of `Rows` whose first axis counts slabs"""
SMALL_LIST = 1 << 18
"""voxels; what is looked up for so many fits into the processor's cache"""

Matrices = Sequence[jax.Array]
"""of two axes of the plane and of the rows"""


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
    bias: jax.Array | None
    """(M,), ln b on the list of voxels; not kept in slabs"""
    change: jax.Array
    """the exact convergence statistic of the last iteration, where it was computed"""
    unseen: jax.Array
    """whether a rising run went beyond the voxels that are looked at for it"""
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


def start(lattice: np.ndarray, bias: jax.Array | None, n_levels: int) -> State:
    """Return the state before the first iteration."""
    return State(
        level=np.int32(0),
        iteration=np.int32(0),
        waits=np.False_,
        lattice=lattice,
        previous=lattice,
        bias=bias,
        change=np.float64(np.inf),
        unseen=np.False_,
        done=np.zeros(n_levels, np.int32),
        changes=np.full(n_levels, np.nan),
    )


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


@partial(jax.jit, static_argnames="program")
def run(rows: Rows, state: State, levels: Levels, numbers: Numbers, program: Program) -> State:
    """Iterate to the end of the last level, or until the host has to decide."""
    return _run(rows, jax.tree.map(jnp.asarray, state), levels, numbers, program)


@partial(jax.jit, static_argnames="program")
def run_batch(
    rows: Rows, state: State, levels: Levels, numbers: Numbers, program: Program
) -> State:
    """Run several images of equal sizes, each with its levels; their first axis counts them.

    What only counts is shared as long as no statistic can end a level: `level`, `iteration`,
    `waits` and `done` of the state then have no such axis.
    """
    state = jax.tree.map(jnp.asarray, state)
    apart = jax.tree.map(lambda _: 0, state)
    if not program.can_stop:
        apart = apart._replace(level=None, iteration=None, waits=None, done=None)
    each = jax.tree.map(lambda _: 0, levels)._replace(max_iterations=None)
    mapped = jax.vmap(partial(_run, program=program), (0, apart, each, None), apart)
    return mapped(rows, state, levels, numbers)


def _run(rows: Rows, state: State, levels: Levels, numbers: Numbers, program: Program) -> State:
    n_levels = levels.max_iterations.shape[0]
    weight_sums = jax.lax.map(partial(_weight_sum, rows), levels.denominators)

    def goes_on(state):
        return (state.level < n_levels) & ~state.waits

    def iterate(state):
        values, numerators = (
            [matrix[state.level] for matrix in group]
            for group in (levels.values, levels.numerators)
        )
        if rows.n_slabs:
            delta, unseen = _residual_by_slab(
                rows, state.lattice, values, numerators, numbers, program
            )
        else:
            delta, unseen = _residual(rows, state.bias, numerators, numbers, program)
        update = bspline.quotient(delta, weight_sums[state.level])
        lattice = state.lattice + update * numbers.over_relaxation
        bias = None if rows.n_slabs else _expand(rows, lattice, values)

        n = state.iteration + 1
        last = n >= levels.max_iterations[state.level]
        statistic = partial(_statistic, rows, state.lattice, lattice, bias, values)
        change = statistic() if program.can_stop else state.change
        small = change <= numbers.stop_at if program.can_stop else jnp.bool_(False)
        waits = numbers.wait_always | (numbers.host_decides & small)
        if not program.can_stop:
            change = jax.lax.cond(last | waits, statistic, lambda: state.change)
        state = state._replace(
            iteration=n,
            lattice=lattice,
            previous=state.lattice,
            waits=waits,
            change=change,
            unseen=state.unseen | unseen,
            bias=None,  # what passes through a condition may be copied
        )
        ends = ~waits & (last | small)
        state = jax.lax.cond(ends, partial(_next_level, levels), lambda state: state, state)
        return state._replace(bias=bias)

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
        lattice=refined.astype(state.lattice.dtype),
        done=state.done.at[at].set(state.iteration),
        changes=state.changes.at[at].set(state.change),
    )


@jax.jit
def end_level(levels: Levels, state: State, change: jax.Array) -> State:
    """End a level on the host's word, with the statistic that the host found."""
    return _next_level(levels, jax.tree.map(jnp.asarray, state)._replace(change=change))


@jax.jit
def last_difference(rows: Rows, state: State, levels: Levels) -> jax.Array:
    """Return ln b before minus ln b after the last iteration, on the list of voxels."""
    values = [matrix[state.level] for matrix in levels.values]
    if rows.n_slabs:
        return _each(rows, lambda slab: _difference(slab, state, values)).ravel()
    return _expand(rows, state.previous, values) - state.bias


def _difference(slab: Rows, state: State, values: Matrices) -> jax.Array:
    return _expand(slab, state.previous, values) - _expand(slab, state.lattice, values)


def _each(rows: Rows, function: Callable[[Rows], Any]) -> Any:
    """Apply a function to each slab in turn and stack what it returns."""
    parts = {name: getattr(rows, name) for name in BY_SLAB}
    return jax.lax.map(lambda part: function(rows._replace(**part)), parts)


def _mask(rows: Rows) -> jax.Array:
    """Say which voxels of the list are in the mask."""
    if rows.weight is None:
        return jnp.arange(rows.log_image.size, dtype=jnp.int32) < rows.listed
    return rows.weight > 0


def _weight(rows: Rows) -> jax.Array:
    return _mask(rows).astype(rows.log_image.dtype) if rows.weight is None else rows.weight


def _weight_sum(rows: Rows, matrices: Matrices) -> jax.Array:
    if rows.n_slabs:
        sums = _each(rows, lambda slab: _row_sums(slab, _weight(slab), matrices))
        return _plane_sum(rows, sums, matrices)
    return _plane_sum(rows, _row_sums(rows, _weight(rows), matrices), matrices)


def _statistic(
    rows: Rows, before: jax.Array, after: jax.Array, bias: jax.Array | None, values: Matrices
) -> jax.Array:
    """The exact statistic, from the lattices before and after an iteration (or ln b after it)."""

    def sums(slab):
        now = _expand(slab, after, values) if bias is None else bias
        return convergence.sums(_expand(slab, before, values) - now, _mask(slab))

    if rows.n_slabs:
        return convergence.exact(*(part.sum() for part in _each(rows, sums)), rows.n_voxels)
    return convergence.exact(*sums(rows), rows.n_voxels)


def _row_sums(rows: Rows, array: jax.Array, matrices: Matrices) -> jax.Array:
    """Sum an array on the list of voxels against the matrix of the rows."""
    width = matrices[2].shape[0]
    if rows.voxel is not None:
        length = rows.place.size * width
        array = jnp.zeros(length, array.dtype).at[rows.voxel].set(array, mode="promise_in_bounds")
    return bspline.along(array.reshape(-1, width), matrices[2], 1)


def _plane_sum(rows: Rows, sums: jax.Array, matrices: Matrices) -> jax.Array:
    """Sum what `_row_sums` made against the matrices of the plane."""
    sums = sums.reshape(-1, sums.shape[-1])
    if rows.row is not None:
        sums = sums.at[rows.row].get(mode="promise_in_bounds")
    shape = (matrices[0].shape[0], matrices[1].shape[0], -1)
    return bspline.contract(sums.reshape(shape), matrices[:2])


def _expand(rows: Rows, lattice: jax.Array, matrices: Matrices) -> jax.Array:
    """Evaluate a lattice on the list of voxels."""
    plane = bspline.expand(lattice, matrices[:2]).reshape(-1, lattice.shape[2])
    if rows.place is not None:
        plane = plane.at[rows.place].get(mode="promise_in_bounds")
    on_rows = bspline.along(plane, matrices[2].T, 1).ravel()
    if rows.voxel is not None:
        on_rows = on_rows.at[rows.voxel].get(mode="promise_in_bounds")
    return on_rows


def _residual(
    rows: Rows, bias: jax.Array, numerators: Matrices, numbers: Numbers, program: Program
) -> tuple[jax.Array, jax.Array]:
    """Sum what the sharpening takes away: v - E(u|v), weighted, against the fit's matrices.

    Returns also whether the rising run at the start goes beyond the voxels that were looked at.
    """
    mask, view = _mask(rows), rows.log_image - bias
    start, unseen = _after_rise(rows, view, program)
    v_min, v_max = _range(mask, view, start)
    bin_width, flat = _bin_width(v_min, v_max, program.n_bins, view.dtype)
    # Behind conditions, because XLA on a CPU makes what stands behind one once and keeps it; else
    # histogram, lookup and residual would each make it anew, without vector registers.
    position = jax.lax.cond(
        flat,
        lambda: jnp.zeros_like(view),
        lambda: sharpen.find_position(view, v_min, bin_width, program.n_bins),
    )
    bins = sharpen.find_bins(position, program.n_bins)
    total = sharpen.tally(bins, mask, program.n_bins, view.size, program.copies)
    expected = _expected(total, view.size, v_min, bin_width, numbers)
    if view.size <= SMALL_LIST and view.dtype == jnp.float32:
        words = jax.lax.cond(
            flat,
            lambda: jnp.zeros(view.shape, jnp.int64),
            lambda: sharpen.look_up_words(bins.lower, expected),
        )
        looked_up = sharpen.halves(words)
    else:
        looked_up = sharpen.look_up(bins.lower, expected)
    sharp = jnp.where(flat, view, sharpen.sharpened(bins, *looked_up))
    residual = _weighted(rows, view, sharp)
    return _plane_sum(rows, _row_sums(rows, residual, numerators), numerators), unseen


def _residual_by_slab(
    rows: Rows,
    lattice: jax.Array,
    values: Matrices,
    numerators: Matrices,
    numbers: Numbers,
    program: Program,
) -> tuple[jax.Array, jax.Array]:
    """As `_residual`, but nothing is kept from one pass over the slabs to the next."""
    n_values, n_bins = rows.log_image.size, program.n_bins

    def view_of(slab):
        return slab.log_image - _expand(slab, lattice, values)

    head = {name: jax.tree.map(lambda part: part[0], getattr(rows, name)) for name in BY_SLAB}
    head = rows._replace(**head)
    start, unseen = _after_rise(head, view_of(head), program)

    def ranges(slab):
        view, mask = view_of(slab), _mask(slab)
        from_start, whole = _range(mask, view, start), _range(mask, view, 0)
        return (*from_start, *whole)

    low, high, whole_low, whole_high = _each(rows, ranges)
    v_min = jnp.minimum(low[0], whole_low[1:].min(initial=jnp.inf))
    v_max = whole_high.max()
    bin_width, flat = _bin_width(v_min, v_max, n_bins, rows.log_image.dtype)

    def bins_of(view):
        return sharpen.find_bins(sharpen.find_position(view, v_min, bin_width, n_bins), n_bins)

    def tallied(slab):
        bins = bins_of(view_of(slab))
        return sharpen.tally(bins, _mask(slab), n_bins, n_values, program.copies)

    total = _each(rows, tallied).sum(axis=0)
    expected = _expected(total, n_values, v_min, bin_width, numbers)

    def summed(slab):
        view = view_of(slab)
        bins = bins_of(view)
        sharp = sharpen.sharpened(bins, *sharpen.look_up(bins.lower, expected))
        return _row_sums(slab, _weighted(slab, view, jnp.where(flat, view, sharp)), numerators)

    return _plane_sum(rows, _each(rows, summed), numerators), unseen


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


def _weighted(rows: Rows, view: jax.Array, sharp: jax.Array) -> jax.Array:
    residual = view - sharp if rows.weight is None else (view - sharp) * rows.weight
    return jnp.where(_mask(rows), residual, 0)


def _range(
    mask: jax.Array, view: jax.Array, start: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """Return the minimum from a place in the list on, and the maximum."""
    infinity = jnp.asarray(np.inf, view.dtype)
    index = jnp.arange(view.size, dtype=jnp.int32)
    low = -jnp.where(mask & (index >= start), view, infinity)
    high = jnp.where(mask, view, -infinity)
    # Both in one go, and by columns first: that runs in vector registers.
    both = jnp.stack([low, high]).reshape(2, -1, math.gcd(view.size, 1024))
    low, high = both.max(axis=1).max(axis=1)
    return -low, high


def _after_rise(
    rows: Rows, view: jax.Array, program: Program
) -> tuple[jax.Array | int, jax.Array]:
    """Return the place in the list from which on voxels count for the minimum, as in ITK 5.

    Its scan asks "new maximum?" and only else "new minimum?" (docs/method.md §4.1), so those of a
    rising run at the very start never do. Where all voxels rise, all count. Returns also whether
    that run goes on beyond the voxels that `rows.first` lists.
    """
    if not program.skip_rising:
        return 0, jnp.bool_(False)
    values = view.at[rows.first].get(mode="clip")
    ends = (values[1:] <= values[:-1]) | (rows.first[1:] >= view.size)
    start = rows.first.at[jnp.argmax(ends) + 1].get(mode="clip")
    unseen = ~ends.any() & (rows.n_voxels > rows.first.size)
    return jnp.where((start < view.size) & ends.any(), start, 0), unseen
