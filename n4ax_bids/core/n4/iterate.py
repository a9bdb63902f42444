"""The iterations, compiled: sharpen, fit, add, evaluate; one program for all fitting levels.

These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.n4 import convergence, residual
from n4ax_bids.core.n4.levels import Levels
from n4ax_bids.core.n4.residual import Numbers, Program
from n4ax_bids.core.n4.residual_of_rows import RowTaps
from n4ax_bids.core.n4.storage import Listed, Storage
from n4ax_bids.core.n4.whole_rows import Matrices, WholeRows


class State(NamedTuple):
    """The progress of a solve."""

    level: jax.Array
    iteration: jax.Array
    """iterations done at this level"""
    waits: jax.Array
    """whether the host must decide how to continue"""
    lattice: jax.Array
    previous: jax.Array
    """the lattice before the last iteration"""
    bias: jax.Array | None
    """(M,), ln b on the voxels; not kept in slabs"""
    change: jax.Array
    """the exact convergence statistic of the last iteration, if it was computed"""
    unseen: jax.Array
    """whether a rising run extended beyond the voxels that are searched for it"""
    done: jax.Array
    """(L,), iterations done at each level"""
    changes: jax.Array
    """(L,), the exact statistic at the end of each level"""
    ranges: jax.Array
    """(4,), lowest and highest v and, after the solve, ln b, at the mask's voxels"""


def start(lattice: np.ndarray, bias: jax.Array | np.ndarray | None, n_levels: int) -> State:
    """Return the state before the first iteration, on the host: nothing is compiled for it."""
    first: dict[str, Any] = {
        "level": np.int32(0),
        "iteration": np.int32(0),
        "waits": np.False_,
        "lattice": lattice,
        "previous": lattice,
        "bias": bias,
        "change": np.float64(np.inf),
        "unseen": np.False_,
        "done": np.zeros(n_levels, np.int32),
        "changes": np.full(n_levels, np.nan),
        "ranges": np.zeros(4),
    }
    return State(**first)


_Loop = tuple[State, jax.Array | None]
"""a state and the rows that iterations write to, as `scratch` of the storage returns them"""


def run_levels(
    voxels: Storage, state: State, levels: Levels, numbers: Numbers, program: Program
) -> State:
    levels = _own(voxels, levels)
    if program.counted is not None:
        return _run_counted(voxels, state, levels, numbers, program)
    n_levels = levels.max_iterations.shape[0]
    weight_sums = jax.lax.map(partial(_weight_sum, voxels), levels.denominators)

    def goes_on(now: _Loop) -> jax.Array:
        state, _ = now
        return (state.level < n_levels) & ~state.waits

    def run_level(now: _Loop) -> _Loop:
        at = now[0].level
        values, numerators = (
            [matrix[at] for matrix in group] for group in (levels.values, levels.numerators)
        )

        taps = residual.taps_of(voxels, values, program)

        def has_more(now: _Loop) -> jax.Array:
            state, _ = now
            more = (state.iteration < levels.max_iterations[at]) & ~state.waits
            return more & (numbers.host_decides | ~_is_small(state, numbers, program))

        iterate = partial(
            _iteration,
            voxels,
            values,
            numerators,
            weight_sums[at],
            taps=taps,
            numbers=numbers,
            program=program,
        )
        state, scratch = jax.lax.while_loop(has_more, lambda now: iterate(*now), now)
        if not program.can_stop:
            state = state._replace(change=_change(voxels, state, values))
        # The list stays out of the condition, whose operands may be copied.
        bias, state = state.bias, state._replace(bias=None)
        state = jax.lax.cond(state.waits, lambda state: state, partial(_next_level, levels), state)
        return state._replace(bias=bias), scratch

    scratch = voxels.scratch(levels.values)
    state, _ = jax.lax.while_loop(goes_on, run_level, (state, scratch))
    # Only at the very end, because it takes a pass over the voxels.
    ranges = jax.lax.cond(
        state.level >= n_levels, lambda: _ranges(voxels, state, levels), lambda: state.ranges
    )
    return state._replace(ranges=ranges)


def _own(voxels: Storage, levels: Levels) -> Levels:
    """Return the matrices that belong to the voxels of one image."""
    if not isinstance(voxels, WholeRows):
        return levels
    return levels._replace(
        values=voxels.own(levels.values),
        numerators=voxels.own(levels.numerators),
        denominators=voxels.own(levels.denominators),
    )


def _run_counted(
    voxels: Storage, state: State, levels: Levels, numbers: Numbers, program: Program
) -> State:
    """Run all levels with numbers of iterations and sizes of lattices that the compiler knows.

    A GPU then never waits for the host: it is not asked after each iteration whether to go on.
    """
    assert isinstance(voxels, WholeRows) and program.counted is not None
    for at, (n, size) in enumerate(zip(*program.counted, strict=True)):
        values, numerators, denominators = (
            [matrix[at][:, :m] for matrix, m in zip(group, size, strict=True)]
            for group in (levels.values, levels.numerators, levels.denominators)
        )
        weight_sum = _weight_sum(voxels, denominators)
        taps = residual.taps_of(voxels, values, program)
        assert taps is not None

        def once(
            _: Any,
            now: tuple[jax.Array, jax.Array],
            taps: RowTaps = taps,
            numerators: Matrices = numerators,
            weight_sum: jax.Array = weight_sum,
        ) -> tuple[jax.Array, jax.Array]:
            sums = residual.of_rows(voxels, now[0], taps, numerators, numbers, program)
            update = bspline.quotient(voxels.plane_sum(sums, numerators), weight_sum)
            update = update * numbers.over_relaxation
            return now[0] + update, update

        # Only this level's control points; those of later ones are 0.
        own = tuple(map(slice, size))
        later = [(0, most - m) for most, m in zip(state.lattice.shape, size, strict=True)]
        first = state.lattice[own]
        lattice, update = jax.lax.fori_loop(0, n, once, (first, first))
        # The lattice before the last iteration is not kept in the loop: that would be a copy.
        before, after = (jnp.pad(each, later) for each in (lattice - update, lattice))
        state = state._replace(lattice=after, previous=before, iteration=jnp.int32(n))
        change = _change(voxels, state, [matrix[at] for matrix in levels.values])
        state = _next_level(levels, state._replace(change=change))
    unseen = jnp.isnan(state.lattice).any() & (voxels.n_voxels > voxels.first.size)
    return state._replace(ranges=_ranges(voxels, state, levels), unseen=unseen)


def _iteration(
    voxels: Storage,
    values: Matrices,
    numerators: Matrices,
    weight_sum: jax.Array,
    state: State,
    scratch: jax.Array | None,
    *,
    taps: RowTaps | None,
    numbers: Numbers,
    program: Program,
) -> tuple[State, jax.Array | None]:
    """Sharpen, fit, add and evaluate."""
    sums, unseen, scratch = residual.sums(
        voxels,
        state.lattice,
        state.bias,
        values,
        numerators,
        scratch,
        taps,
        numbers,
        program,
    )
    update = bspline.quotient(voxels.plane_sum(sums, numerators), weight_sum)
    lattice = state.lattice + update * numbers.over_relaxation
    state = state._replace(
        iteration=state.iteration + 1,
        waits=jnp.asarray(numbers.wait_always),
        lattice=lattice,
        previous=state.lattice,
        bias=voxels.kept_bias(lattice, values),
        unseen=state.unseen | unseen,
    )
    if program.can_stop:
        state = state._replace(change=_change(voxels, state, values))
        small = _is_small(state, numbers, program)
        state = state._replace(waits=state.waits | (numbers.host_decides & small))
    return state, scratch


def _is_small(state: State, numbers: Numbers, program: Program) -> jax.Array:
    return state.change <= numbers.stop_at if program.can_stop else jnp.bool_(False)


def _next_level(levels: Levels, state: State) -> State:
    """Record how a level ended and refine the lattice for the next one."""
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
    """End a level as the host has decided, with the statistic that the host computed."""
    return _next_level(levels, jax.tree.map(jnp.asarray, state)._replace(change=change))


@jax.jit
def last_difference(voxels: Storage, state: State, levels: Levels) -> jax.Array:
    """Return ln b before the last iteration minus ln b after it, on the list of voxels."""
    values = [matrix[state.level] for matrix in _own(voxels, levels).values]
    return voxels.each(partial(_difference, voxels, state, values)).ravel()


def _difference(voxels: Storage, state: State, values: Matrices, part: Any) -> jax.Array:
    return part.expand(state.previous, values) - _bias(voxels, state, values, part)


def _bias(voxels: Storage, state: State, values: Matrices, part: Any) -> jax.Array:
    """Return ln b on the voxels of a part."""
    return voxels.known_bias(state.bias, part, state.lattice, values)


def _weight_sum(voxels: Storage, matrices: Matrices) -> jax.Array:
    sums = voxels.each(lambda part: part.row_sums(part.weights(), matrices))
    return voxels.plane_sum(sums, matrices)


def _change(voxels: Storage, state: State, values: Matrices) -> jax.Array:
    """Return the exact statistic of the last iteration."""

    def sums(part: Listed | WholeRows) -> tuple[jax.Array, jax.Array]:
        return convergence.sums(_difference(voxels, state, values, part), part.in_mask())

    total, squares = (part.sum(axis=0) for part in voxels.each(sums))
    return convergence.exact(total, squares, voxels.n_voxels)


def _ranges(voxels: Storage, state: State, levels: Levels) -> jax.Array:
    """Return lowest and highest log intensity and ln b of the mask's voxels."""
    values = [matrix[-1] for matrix in levels.values]

    def ends(part: Listed | WholeRows) -> jax.Array:
        bias = _bias(voxels, state, values, part)
        return jnp.stack([*part.range(part.log_image, 0), *part.range(bias, 0)])

    low, high, bias_low, bias_high = voxels.each(ends).T
    found = jnp.stack([low.min(), high.max(), bias_low.min(), bias_high.max()])
    return found.astype(jnp.float64)
