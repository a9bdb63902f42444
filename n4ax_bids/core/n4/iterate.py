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

from n4ax_bids.core import bspline
from n4ax_bids.core.n4 import convergence, sharpen
from n4ax_bids.core.n4.levels import Levels
from n4ax_bids.core.n4.rows import Rows

BY_SLAB = ("log_image", "weight", "listed", "voxel", "place")
"""fields of `Rows` whose first axis counts slabs"""
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
    ranges: jax.Array
    """(4,), lowest and highest v before the solve, and ln b after it, of the mask's voxels"""


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
        ranges=np.zeros(4),
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

    def goes_on(now):
        state, _ = now
        return (state.level < n_levels) & ~state.waits

    def run_level(now):
        at = now[0].level
        values, numerators = (
            [matrix[at] for matrix in group] for group in (levels.values, levels.numerators)
        )

        def has_more(now):
            state, _ = now
            more = (state.iteration < levels.max_iterations[at]) & ~state.waits
            return more & (numbers.host_decides | ~_is_small(state, numbers, program))

        iterate = partial(
            _iteration, rows, values, numerators, weight_sums[at], numbers=numbers, program=program
        )
        state, on_rows = jax.lax.while_loop(has_more, lambda now: iterate(*now), now)
        if not program.can_stop:
            state = state._replace(change=_change(rows, state, values))
        # Without the list: what passes through a condition may be copied.
        bias, state = state.bias, state._replace(bias=None)
        state = jax.lax.cond(state.waits, lambda state: state, partial(_next_level, levels), state)
        return state._replace(bias=bias), on_rows

    # Each iteration writes to the same voxels of the rows, so what is empty is made so once.
    one_list = rows.voxel is not None and not rows.n_slabs
    on_rows = _empty_rows(rows, levels.values) if one_list else None
    state, _ = jax.lax.while_loop(goes_on, run_level, (state, on_rows))
    # Not each time that the host is asked: what it costs is a pass over the voxels.
    ranges = jax.lax.cond(
        state.level >= n_levels, lambda: _ranges(rows, state, levels), lambda: state.ranges
    )
    return state._replace(ranges=ranges)


def _ranges(rows: Rows, state: State, levels: Levels) -> jax.Array:
    """Return lowest and highest log intensity and ln b of the mask's voxels."""
    values = [matrix[-1] for matrix in levels.values]

    def ends(slab):
        bias = _expand(slab, state.lattice, values) if rows.n_slabs else state.bias
        return jnp.stack([*_range(slab, slab.log_image, 0), *_range(slab, bias, 0)])

    if not rows.n_slabs:
        return ends(rows).astype(jnp.float64)
    low, high, bias_low, bias_high = _each(rows, ends).T
    found = jnp.stack([low.min(), high.max(), bias_low.min(), bias_high.max()])
    return found.astype(jnp.float64)


def _iteration(
    rows: Rows,
    values: Matrices,
    numerators: Matrices,
    weight_sum: jax.Array,
    state: State,
    on_rows: jax.Array | None,
    *,
    numbers: Numbers,
    program: Program,
) -> tuple[State, jax.Array | None]:
    """Sharpen, fit, add and evaluate."""
    if rows.n_slabs:
        sums, unseen = _residual_by_slab(rows, state.lattice, values, numerators, numbers, program)
    else:
        residual, unseen = _residual(rows, state.bias, numbers, program)
        if on_rows is not None:
            residual = on_rows = _on_rows(rows, residual, on_rows)
        sums = bspline.along(residual.reshape(-1, numerators[2].shape[0]), numerators[2], 1)
    update = bspline.quotient(_plane_sum(rows, sums, numerators), weight_sum)
    lattice = state.lattice + update * numbers.over_relaxation
    state = state._replace(
        iteration=state.iteration + 1,
        waits=jnp.asarray(numbers.wait_always),
        lattice=lattice,
        previous=state.lattice,
        bias=None if rows.n_slabs else _expand(rows, lattice, values),
        unseen=state.unseen | unseen,
    )
    if program.can_stop:
        state = state._replace(change=_change(rows, state, values))
        small = _is_small(state, numbers, program)
        state = state._replace(waits=state.waits | (numbers.host_decides & small))
    return state, on_rows


def _is_small(state: State, numbers: Numbers, program: Program) -> jax.Array:
    return state.change <= numbers.stop_at if program.can_stop else jnp.bool_(False)


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
        change=jnp.full_like(state.change, jnp.inf),
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
    """Say which voxels of the list are in the mask, each of them once."""
    if rows.voxel is None:
        return rows.weight > 0
    return jnp.arange(rows.log_image.size, dtype=jnp.int32) < rows.listed


def _weight(rows: Rows) -> jax.Array:
    return jnp.ones_like(rows.log_image) if rows.weight is None else rows.weight


def _weight_sum(rows: Rows, matrices: Matrices) -> jax.Array:
    if rows.n_slabs:
        sums = _each(rows, lambda slab: _row_sums(slab, _weight(slab), matrices))
        return _plane_sum(rows, sums, matrices)
    return _plane_sum(rows, _row_sums(rows, _weight(rows), matrices), matrices)


def _change(rows: Rows, state: State, values: Matrices) -> jax.Array:
    """The exact statistic of the last iteration."""

    def sums(slab):
        now = _expand(slab, state.lattice, values) if rows.n_slabs else state.bias
        return convergence.sums(_expand(slab, state.previous, values) - now, _mask(slab))

    if rows.n_slabs:
        return convergence.exact(*(part.sum() for part in _each(rows, sums)), rows.n_voxels)
    return convergence.exact(*sums(rows), rows.n_voxels)


def _empty_rows(rows: Rows, matrices: Matrices) -> jax.Array:
    return jnp.zeros(rows.place.size * matrices[2].shape[-2], rows.log_image.dtype)


def _on_rows(rows: Rows, array: jax.Array, empty: jax.Array) -> jax.Array:
    """Put an array on the list of voxels where it belongs in the rows, flat."""
    return empty.at[rows.voxel].set(array, mode="promise_in_bounds")


def _row_sums(rows: Rows, array: jax.Array, matrices: Matrices) -> jax.Array:
    """Sum an array on the list of voxels against the matrix of the rows."""
    if rows.voxel is not None:
        array = _on_rows(rows, array, _empty_rows(rows, matrices))
    return bspline.along(array.reshape(-1, matrices[2].shape[0]), matrices[2], 1)


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
    rows: Rows, bias: jax.Array, numbers: Numbers, program: Program
) -> tuple[jax.Array, jax.Array]:
    """Return what the sharpening takes away, v - E(u|v), weighted, on the list of voxels.

    Returns also whether the rising run at the start goes beyond the voxels that were looked at.
    """
    view = rows.log_image - bias
    start, unseen = _after_rise(rows, view, program)
    v_min, v_max = _range(rows, view, start)
    bin_width, flat = _bin_width(v_min, v_max, program.n_bins, view.dtype)
    # Behind conditions, because XLA on a CPU makes what stands behind one once and keeps it; else
    # what uses it would make it anew for each voxel, without vector registers.
    position = jax.lax.cond(
        flat,
        lambda: jnp.zeros_like(view),
        lambda: sharpen.find_position(view, v_min, bin_width, program.n_bins),
    )
    bins = sharpen.find_bins(position, program.n_bins)
    counted = _tally(rows, bins, view.size, program)
    expected = _expected(counted, view.size, v_min, bin_width, numbers)
    rise = jax.lax.cond(flat, lambda: jnp.zeros_like(expected), lambda: sharpen.rise(expected))
    sharp = jnp.where(flat, view, sharpen.sharpened(bins, expected, rise))
    return _weighted(rows, view - sharp), unseen


def _tally(rows: Rows, bins: sharpen.Bins, n_values: int, program: Program) -> jax.Array:
    if rows.voxel is None:
        mask, repeats = rows.weight > 0, 0
    else:
        mask, repeats = None, rows.log_image.size - rows.listed
    return sharpen.tally(
        bins, mask, program.n_bins, n_values, repeats=repeats, copies=program.copies
    )


def _weighted(rows: Rows, residual: jax.Array) -> jax.Array:
    return residual if rows.weight is None else residual * rows.weight


def _residual_by_slab(
    rows: Rows,
    lattice: jax.Array,
    values: Matrices,
    numerators: Matrices,
    numbers: Numbers,
    program: Program,
) -> tuple[jax.Array, jax.Array]:
    """As `_residual`, summed along the rows; nothing is kept from one pass over the slabs to the
    next."""
    n_values, n_bins = rows.log_image.size, program.n_bins

    def view_of(slab):
        return slab.log_image - _expand(slab, lattice, values)

    head = {name: jax.tree.map(lambda part: part[0], getattr(rows, name)) for name in BY_SLAB}
    head = rows._replace(**head)
    start, unseen = _after_rise(head, view_of(head), program)

    def ranges(slab):
        view = view_of(slab)
        from_start, whole = _range(slab, view, start), _range(slab, view, 0)
        return (*from_start, *whole)

    low, high, whole_low, whole_high = _each(rows, ranges)
    v_min = jnp.minimum(low[0], whole_low[1:].min(initial=jnp.inf))
    v_max = whole_high.max()
    bin_width, flat = _bin_width(v_min, v_max, n_bins, rows.log_image.dtype)

    def bins_of(view):
        return sharpen.find_bins(sharpen.find_position(view, v_min, bin_width, n_bins), n_bins)

    def tallied(slab):
        return _tally(slab, bins_of(view_of(slab)), n_values, program)

    total = _each(rows, tallied).sum(axis=0)
    expected = _expected(total, n_values, v_min, bin_width, numbers)
    rise = sharpen.rise(expected)

    def summed(slab):
        view = view_of(slab)
        bins = bins_of(view)
        sharp = sharpen.sharpened(bins, expected, rise)
        residual = _weighted(slab, view - jnp.where(flat, view, sharp))
        return _row_sums(slab, residual, numerators)

    return _each(rows, summed), unseen


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


def _range(rows: Rows, view: jax.Array, start: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Return the minimum from a place in the list on, and the maximum."""
    infinity = jnp.asarray(np.inf, view.dtype)
    low = high = view
    if rows.voxel is None:
        inside = rows.weight > 0
        low, high = jnp.where(inside, view, infinity), jnp.where(inside, view, -infinity)

    def from_start():
        place = jnp.arange(view.size, dtype=jnp.int32)
        return _by_columns(jnp.where(place >= start, low, infinity)).min(axis=0).min()

    lowest = _by_columns(low).min(axis=0).min()
    # What rises to the start begins with its lowest value: seldom is that the lowest of all.
    at_first = view.at[rows.first[0]].get(mode="clip") <= lowest
    lowest = jax.lax.cond((start > 0) & at_first, from_start, lambda: lowest)
    return lowest, _by_columns(high).max(axis=0).max()


def _by_columns(values: jax.Array) -> jax.Array:
    """Give an array an axis along which it is reduced in vector registers: the first."""
    return values.reshape(-1, math.gcd(values.size, 1024))


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
    listed = rows.first < view.size
    ends = (values[1:] <= values[:-1]) & listed[1:]
    unseen = ~ends.any() & (rows.n_voxels > jnp.count_nonzero(listed))
    return jnp.where(ends.any(), rows.first[jnp.argmax(ends) + 1], 0), unseen
