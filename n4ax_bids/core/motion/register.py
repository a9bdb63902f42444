"""Rigid registration of the volumes of a series to a reference, by least squares.

The residual at a sample x of the reference g is r = f(y(x; q)) - s g(x), with f the moving volume
and s its scale. Two forms find the motion q that minimises the weighted sum of r²:

- "reference" (Friston et al. 1995): the gradient is that of g, taken once. Each step finds the
  small motion that explains the difference, and puts it before the motion found so far. The scale
  is the ratio of the sums, in closed form. An iteration is one sampling and one solve of 6 × 6.
- "forward": Gauss-Newton in (s, q) with the gradient of f at each step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.devices import default_device
from n4ax_bids.core.memory_maps import make_room
from n4ax_bids.core.motion.samples import FEWEST, Model
from n4ax_bids.core.motion.smoothing import Grid, spline_matrices
from n4ax_bids.core.motion.steps import (
    COARSE,
    Search,
    State,
    forward_step,
    plain_solve,
    pseudo_solve,
    reference_step,
)
from n4ax_bids.core.spline_coefficients import apply_matrices
from n4ax_bids.options.realign import RealignOptions

FEWEST_COARSE = 1024
"""samples below which all are used from the start"""
CHUNK_BYTES = 2**27
"""memory for the volumes that are registered together, about"""
MOST_AT_ONCE = 16
"""volumes that are registered together; each waits for the one with the most steps"""
MOST_ON_CPU = 4
"""the same on a CPU, whose caches hold few volumes: with 16 the time for a volume is 1.6 times as
long"""


class Motion(NamedTuple):
    """The motion of the volumes of a series; numpy arrays of n rows."""

    q: np.ndarray
    """(n, 6), float64: translations (mm) and rotations (rad) about the centre of the grid"""
    scale: np.ndarray
    """intensity of the volume, as a multiple of the reference's"""
    n_iterations: np.ndarray
    converged: np.ndarray
    """whether the tolerance was met"""
    residual_before: np.ndarray
    """mean squared residual without motion, in the reference's intensity squared"""
    residual_after: np.ndarray
    n_samples: np.ndarray
    """samples within the moving volume"""
    rank: np.ndarray
    """of the normal equations: 6, or fewer where the image does not determine all of q"""

    @property
    def registered(self) -> np.ndarray:
        """Whether enough samples were within the volume; q is 0 where not."""
        return self.n_samples >= FEWEST


def _step_of(form: str) -> Callable[..., State]:
    return reference_step if form == "reference" else forward_step


def _start(q: jax.Array) -> State:
    zero = jnp.zeros((), jnp.int32)
    real = jnp.zeros((), q.dtype)
    return State(q, real + 1, real, real, zero - 1, zero, zero, zero, zero > 0)


def _registered(volume: jax.Array, q: jax.Array, model: Model, search: Search) -> State:
    """Register one smoothed volume, from a motion to start with."""

    def searched(state: State, model: Model, most: jax.Array | int) -> State:
        def goes_on(state: State) -> jax.Array:
            return (state.left != 0) & (state.n_steps < most)

        step = functools.partial(
            _step_of(search.form),
            volume=volume,
            model=model,
            search=search,
            solve=pseudo_solve,
        )
        return jax.lax.while_loop(goes_on, step, state)

    start = _start(q)
    if model.g.size >= COARSE * FEWEST_COARSE:
        coarse = start._replace(thin=start.n_steps == 0)
        thin = searched(coarse, model.thinned(COARSE), search.max_iterations)
        lost = thin.n_samples < FEWEST // COARSE  # this volume is not searched again
        start = start._replace(
            q=thin.q, scale=thin.scale, residual=thin.residual, left=jnp.where(lost, 0, start.left)
        )
        done = searched(start, model, search.n_fine)
        n_steps = thin.n_steps + done.n_steps
        return done._replace(n_steps=n_steps, before=thin.before)
    return searched(start, model, search.max_iterations)


@jax.jit
def _register_chunk(
    volumes: jax.Array,
    q: jax.Array,
    model: Model,
    matrices: tuple[jax.Array, ...],
    search: Search,
) -> State:
    smooth = jax.vmap(apply_matrices, (0, None))(volumes / model.unit, matrices)
    return jax.vmap(_registered, (0, 0, None, None))(smooth, q, model, search)


def final_residual(
    volume: jax.Array, model: Model, grid: Grid, options: RealignOptions, *, n_steps: int = 8
) -> jax.Array:
    """Return the mean squared residual after a fixed number of steps; differentiable.

    Parameters
    ----------
    volume : array (I, J, K), not smoothed yet
    model : of the reference, from `n4ax_bids.core.motion.samples.model_of`
    """
    smooth = apply_matrices(volume / model.unit, spline_matrices(grid, options))
    search = Search.of(options)

    def step(state: State, _: None) -> tuple[State, None]:
        return _step_of(search.form)(state, smooth, model, search, plain_solve), None

    start = _start(jnp.zeros(6, volume.dtype))
    return jax.lax.scan(step, start, None, length=n_steps + 1)[0].residual * model.unit**2


def chunk_size(grid: Grid, model: Model) -> int:
    """Return how many volumes are registered together; it does not depend on their number."""
    most = MOST_ON_CPU if default_device().platform == "cpu" else MOST_AT_ONCE
    each = 16 * int(np.prod(grid.shape)) + 64 * model.g.size
    return max(1, min(most, CHUNK_BYTES // each))


def register(
    volume_of: Callable[[int], np.ndarray],
    which: Sequence[int],
    model: Model,
    grid: Grid,
    options: RealignOptions,
    *,
    start: np.ndarray | None = None,
    n_fine: int | None = None,
) -> Motion:
    """Register volumes to a reference.

    Parameters
    ----------
    volume_of : returns a volume (I, J, K) by its number
    which : numbers of the volumes; the result has a row for each
    model : of the reference
    grid : of reference and volumes
    options : RealignOptions
    start : array (n, 6), motion to start from; default: none
    n_fine : most steps with all samples, after those with every n-th; default: as in the options.
        Where there are too few samples for two stages, it has no effect.

    Returns
    -------
    Motion
    """
    make_room()
    matrices = spline_matrices(grid, options)
    start = np.zeros((len(which), 6)) if start is None else np.asarray(start, np.float64)
    search = Search.of(options, n_fine)
    n_together = 1 if options.sequential else chunk_size(grid, model)
    states: list[State] = []
    for rows, volumes in stacks(volume_of, which, n_together):
        q = start[rows]
        if options.sequential and states:
            q = np.asarray(states[-1].q, np.float64) / options.start_shrink
        more = len(volumes) - len(q)
        q = np.concatenate([q, np.zeros((more, 6))]) if more else q
        from_here = jnp.asarray(q, jnp.float32)
        done = _register_chunk(volumes, from_here, model, matrices, search)
        states.append(jax.tree.map(lambda part: part[: rows.size], jax.device_get(done)))  # noqa: B023
    return _motion(states, float(model.unit))


def stacks(
    volume_of: Callable[[int], np.ndarray], which: Sequence[int], n_together: int
) -> Iterator[tuple[np.ndarray, jax.Array]]:
    """Yield the rows of `which` and their volumes, so many at a time; the last are padded."""
    for first in range(0, len(which), n_together):
        rows = np.arange(first, min(first + n_together, len(which)))
        volumes = [np.asarray(volume_of(which[int(row)]), np.float32) for row in rows]
        volumes += [volumes[-1]] * (n_together - len(rows))
        yield rows, jnp.asarray(np.stack(volumes))


def _motion(states: Sequence[State], unit: float) -> Motion:
    names = State._fields
    state = State(*(np.concatenate([getattr(each, name) for each in states]) for name in names))
    return Motion(
        q=np.asarray(state.q, np.float64),
        scale=np.asarray(state.scale, np.float64),
        n_iterations=np.asarray(state.n_steps),
        converged=np.asarray(state.left >= 0) & (np.asarray(state.n_samples) >= FEWEST),
        residual_before=np.asarray(state.before, np.float64) * unit**2,
        residual_after=np.asarray(state.residual, np.float64) * unit**2,
        n_samples=np.asarray(state.n_samples),
        rank=np.asarray(state.rank),
    )
