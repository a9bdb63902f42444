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

from n4ax_bids.core import rigid
from n4ax_bids.core.interpolate import apply_matrices, margin, sample_padded
from n4ax_bids.core.samples import FEWEST, Grid, Model, spline_matrices
from n4ax_bids.options.realign import RealignOptions

MORE_STEPS = 3
"""steps after the tolerance is met"""
STILL = 1e-4
"""mm; a step that moves no point of a head by more ends the search as well"""
COARSE = 8
"""the first steps use every n-th sample"""
FEWEST_COARSE = 1024
"""samples below which all are used from the start"""
EDGE = 1e-3
"""voxels beyond the grid that count as its edge, because of rounding"""
CHUNK_BYTES = 2**27
"""memory for the volumes that are registered together, about"""
MOST_AT_ONCE = 16
"""volumes that are registered together; each waits for the one with the most steps"""


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


class _State(NamedTuple):
    q: jax.Array
    """(6,)"""
    scale: jax.Array
    residual: jax.Array
    """mean squared residual at the motion before the last step"""
    before: jax.Array
    left: jax.Array
    """steps to go after the tolerance was met; -1 until then"""
    n_steps: jax.Array
    n_samples: jax.Array
    rank: jax.Array
    thin: jax.Array
    """whether every n-th sample is used"""


class _Sampled(NamedTuple):
    f: jax.Array
    weight: jax.Array
    n_samples: jax.Array


def _sampled(
    q: jax.Array, volume: jax.Array, model: Model, degree: int, boundary: str
) -> _Sampled:
    """Sample a moving volume, padded coefficients, where a motion puts the samples."""
    back = rigid.inverse(rigid.matrix(q))
    turn = model.to_voxels @ back[:3, :3] @ model.to_mm
    move = model.to_voxels @ back[:3, 3]
    shape = tuple(n - 2 * margin(degree, boundary) for n in volume.shape)
    axes = []
    for axis, n in enumerate(shape):
        y = turn[axis, 0] * model.x[0] + turn[axis, 1] * model.x[1] + turn[axis, 2] * model.x[2]
        y = y + move[axis] + (n - 1) / 2
        held = jnp.clip(y, 0, n - 1)
        axes.append(jnp.where(jnp.abs(held - y) <= EDGE, held, y))
    at = jnp.stack(axes, axis=-1)
    found = sample_padded(volume, at, shape=shape, degree=degree, boundary=boundary)
    inside = found.valid
    for axis, n in enumerate(shape):
        inside &= (axes[axis] >= model.border[axis]) & (axes[axis] <= n - 1 - model.border[axis])
    weight = jnp.where(inside, model.weight, 0)
    return _Sampled(found.values, weight, (weight > 0).sum())


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """Divide, with 1 where the denominator is 0."""
    return jnp.where(below == 0, 1, above) / jnp.where(below == 0, 1, below)


def _pseudo_solve(normal: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solve symmetric equations by their pseudo-inverse; return the solution and the rank."""
    size = jnp.sqrt(jnp.diagonal(normal))
    size = jnp.where(size > 0, size, 1)
    values, vectors = jnp.linalg.eigh(normal / size[:, None] / size[None, :])
    usable = values > 1e-5 * values[-1:]
    inverse = jnp.where(usable, 1 / jnp.where(usable, values, 1), 0)
    solution = vectors @ (inverse * (vectors.T @ (right / size))) / size
    return solution, usable.sum()


def _plain_solve(normal: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solve regular equations; unlike the pseudo-inverse this has a derivative everywhere."""
    size = jnp.sqrt(jnp.diagonal(normal))
    scaled = normal / size[:, None] / size[None, :]
    return jnp.linalg.solve(scaled, right / size) / size, jnp.array(len(right))


_Solve = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _reference_step(
    state: _State, volume: jax.Array, model: Model, options: RealignOptions, solve: _Solve
) -> _State:
    """One step with the gradient of the reference."""
    f, weight, n_samples = _sampled(state.q, volume, model, options.degree, options.boundary)
    shrink = _ratio((weight * model.g).sum(), (weight * f).sum())
    r = shrink * f - model.g
    jacobian = jnp.matmul(model.jacobian, model.free, precision="highest")
    weighted = weight[:, None] * jacobian
    normal = jnp.matmul(weighted.T, jacobian, precision="highest")
    delta, rank = solve(normal, jnp.matmul(weighted.T, r, precision="highest"))
    small = rigid.matrix(options.damping * (model.free @ delta))
    moved = jnp.matmul(small, rigid.matrix(state.q), precision="highest")
    residual = (weight * r**2).sum() / jnp.maximum(weight.sum(), 1e-30)
    return _advanced(
        state,
        rigid.parameters(moved),
        model.free @ delta,
        _ratio(jnp.ones(()), shrink),
        residual,
        n_samples,
        rank,
        options,
    )


def _forward_step(
    state: _State, volume: jax.Array, model: Model, options: RealignOptions, solve: _Solve
) -> _State:
    """One Gauss-Newton step in scale and motion, with the gradient of the moving volume."""

    def values(free: jax.Array) -> tuple[jax.Array, _Sampled]:
        q = state.q + model.free @ free
        found = _sampled(q, volume, model, options.degree, options.boundary)
        return found.f, found

    start = jnp.zeros(model.free.shape[1:], model.g.dtype)
    slopes, (f, weight, n_samples) = jax.jacfwd(values, has_aux=True)(start)
    r = f - state.scale * model.g
    jacobian = jnp.concatenate([-model.g[:, None], slopes], axis=1)
    weighted = weight[:, None] * jacobian
    normal = jnp.matmul(weighted.T, jacobian, precision="highest")
    delta, rank = solve(normal, jnp.matmul(weighted.T, r, precision="highest"))
    q = state.q - options.damping * (model.free @ delta[1:])
    scale = state.scale - options.damping * delta[0]
    residual = (weight * r**2).sum() / jnp.maximum(weight.sum(), 1e-30)
    residual = residual / jnp.maximum(state.scale**2, 1e-30)
    step = model.free @ delta[1:]
    return _advanced(state, q, step, scale, residual, n_samples, rank - 1, options)


def _advanced(
    state: _State,
    q: jax.Array,
    step: jax.Array,
    scale: jax.Array,
    residual: jax.Array,
    n_samples: jax.Array,
    rank: jax.Array,
    options: RealignOptions,
) -> _State:
    """Return the state after a step, with the steps that are still to go."""
    fewest = jnp.where(state.thin, FEWEST // COARSE, FEWEST)
    fall = (state.residual - residual) / jnp.maximum(state.residual, 1e-30)
    met = (state.n_steps > 0) & (fall < options.tolerance)
    left = jnp.where(state.left >= 0, state.left - 1, jnp.where(met, MORE_STEPS - 1, -1))
    moved = jnp.maximum(jnp.abs(step[:3]).max(), rigid.HEAD_RADIUS * jnp.abs(step[3:]).max())
    left = jnp.where(moved < STILL, 0, left)
    enough = n_samples >= fewest
    return _State(
        q=jnp.where(enough, q, 0),
        scale=jnp.where(enough, scale, 1),
        residual=residual,
        before=jnp.where(state.n_steps == 0, residual, state.before),
        left=jnp.where(enough, left, 0),  # a lost volume needs no more steps
        n_steps=state.n_steps + 1,
        n_samples=n_samples,
        rank=rank,
        thin=state.thin,
    )


def _step_of(form: str) -> Callable[..., _State]:
    return _reference_step if form == "reference" else _forward_step


def _start(q: jax.Array) -> _State:
    zero = jnp.zeros((), jnp.int32)
    real = jnp.zeros((), q.dtype)
    return _State(q, real + 1, real, real, zero - 1, zero, zero, zero, zero > 0)


def _registered(volume: jax.Array, q: jax.Array, model: Model, options: RealignOptions) -> _State:
    """Register one smoothed volume, from a motion to start with."""

    def goes_on(state: _State) -> jax.Array:
        return (state.left != 0) & (state.n_steps < options.max_iterations)

    def searched(state: _State, model: Model) -> _State:
        step = functools.partial(
            _step_of(options.form),
            volume=volume,
            model=model,
            options=options,
            solve=_pseudo_solve,
        )
        return jax.lax.while_loop(goes_on, step, state)

    start = _start(q)
    if model.g.size >= COARSE * FEWEST_COARSE:
        thin = searched(start._replace(thin=start.n_steps == 0), model.thinned(COARSE))
        lost = thin.n_samples < FEWEST // COARSE  # this volume is not searched again
        start = start._replace(
            q=thin.q, scale=thin.scale, residual=thin.residual, left=jnp.where(lost, 0, start.left)
        )
        done = searched(start, model)
        n_steps = thin.n_steps + done.n_steps
        return done._replace(n_steps=n_steps, before=thin.before)
    return searched(start, model)


@functools.partial(jax.jit, static_argnames=("options",))
def _register_chunk(
    volumes: jax.Array,
    q: jax.Array,
    model: Model,
    matrices: tuple[jax.Array, ...],
    options: RealignOptions,
) -> _State:
    smooth = jax.vmap(apply_matrices, (0, None))(volumes, matrices)
    each = functools.partial(_registered, options=options)
    return jax.vmap(each, (0, 0, None))(smooth, q, model)


def final_residual(
    volume: jax.Array, model: Model, grid: Grid, options: RealignOptions, *, n_steps: int = 8
) -> jax.Array:
    """Return the mean squared residual after a fixed number of steps; differentiable.

    Parameters
    ----------
    volume : array (I, J, K), not smoothed yet
    model : of the reference, from `n4ax_bids.core.samples.model_of`
    """
    smooth = apply_matrices(volume, spline_matrices(grid, options))

    def step(state: _State, _: None) -> tuple[_State, None]:
        return _step_of(options.form)(state, smooth, model, options, _plain_solve), None

    start = _start(jnp.zeros(6, volume.dtype))
    return jax.lax.scan(step, start, None, length=n_steps + 1)[0].residual


def chunk_size(grid: Grid, model: Model) -> int:
    """Return how many volumes are registered together; it depends on memory alone."""
    each = 16 * int(np.prod(grid.shape)) + 64 * model.g.size
    return max(1, min(MOST_AT_ONCE, CHUNK_BYTES // each))


def register(
    volume_of: Callable[[int], np.ndarray],
    which: Sequence[int],
    model: Model,
    grid: Grid,
    options: RealignOptions,
    *,
    start: np.ndarray | None = None,
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

    Returns
    -------
    Motion
    """
    matrices = spline_matrices(grid, options)
    start = np.zeros((len(which), 6)) if start is None else np.asarray(start, np.float64)
    n_together = 1 if options.sequential else chunk_size(grid, model)
    states: list[_State] = []
    for rows, volumes in stacks(volume_of, which, n_together):
        q = start[rows]
        if options.sequential and states:
            q = np.asarray(states[-1].q, np.float64) / options.start_shrink
        more = len(volumes) - len(q)
        q = np.concatenate([q, np.zeros((more, 6))]) if more else q
        done = _register_chunk(volumes, jnp.asarray(q, jnp.float32), model, matrices, options)
        states.append(jax.tree.map(lambda part: part[: rows.size], jax.device_get(done)))  # noqa: B023
    return _motion(states)


def stacks(
    volume_of: Callable[[int], np.ndarray], which: Sequence[int], n_together: int
) -> Iterator[tuple[np.ndarray, jax.Array]]:
    """Yield the rows of `which` and their volumes, so many at a time; the last are padded."""
    for first in range(0, len(which), n_together):
        rows = np.arange(first, min(first + n_together, len(which)))
        volumes = [np.asarray(volume_of(which[int(row)]), np.float32) for row in rows]
        volumes += [volumes[-1]] * (n_together - len(rows))
        yield rows, jnp.asarray(np.stack(volumes))


def _motion(states: Sequence[_State]) -> Motion:
    names = _State._fields
    state = _State(*(np.concatenate([getattr(each, name) for each in states]) for name in names))
    return Motion(
        q=np.asarray(state.q, np.float64),
        scale=np.asarray(state.scale, np.float64),
        n_iterations=np.asarray(state.n_steps),
        converged=np.asarray(state.left >= 0) & (np.asarray(state.n_samples) >= FEWEST),
        residual_before=np.asarray(state.before, np.float64),
        residual_after=np.asarray(state.residual, np.float64),
        n_samples=np.asarray(state.n_samples),
        rank=np.asarray(state.rank),
    )
