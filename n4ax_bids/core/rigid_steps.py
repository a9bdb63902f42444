"""One step of a rigid registration, in either of the forms of `n4ax_bids.core.register`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from n4ax_bids.core import rigid
from n4ax_bids.core.interpolate import sample_padded
from n4ax_bids.core.samples import FEWEST, Model
from n4ax_bids.core.spline_basis import margin
from n4ax_bids.options.realign import RealignOptions

MORE_STEPS = 3
"""steps after the tolerance is met"""
STILL = 1e-4
"""mm; a step that moves no point of a head by more ends the search as well"""
COARSE = 8
"""the first steps use every n-th sample"""
EDGE = 1e-3
"""voxels beyond the grid that count as its edge, because of rounding"""


class State(NamedTuple):
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


class AtSamples(NamedTuple):
    f: jax.Array
    weight: jax.Array
    n_samples: jax.Array


def _sampled(
    q: jax.Array, volume: jax.Array, model: Model, degree: int, boundary: str
) -> AtSamples:
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
    return AtSamples(found.values, weight, (weight > 0).sum())


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """Divide, with 1 where the denominator is 0."""
    return jnp.where(below == 0, 1, above) / jnp.where(below == 0, 1, below)


def pseudo_solve(normal: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solve symmetric equations by their pseudo-inverse; return the solution and the rank."""
    size = jnp.sqrt(jnp.diagonal(normal))
    size = jnp.where(size > 0, size, 1)
    values, vectors = jnp.linalg.eigh(normal / size[:, None] / size[None, :])
    usable = values > 1e-5 * values[-1:]
    inverse = jnp.where(usable, 1 / jnp.where(usable, values, 1), 0)
    solution = vectors @ (inverse * (vectors.T @ (right / size))) / size
    return solution, usable.sum()


def plain_solve(normal: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solve regular equations; unlike the pseudo-inverse this has a derivative everywhere."""
    size = jnp.sqrt(jnp.diagonal(normal))
    scaled = normal / size[:, None] / size[None, :]
    return jnp.linalg.solve(scaled, right / size) / size, jnp.array(len(right))


Solve = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def reference_step(
    state: State, volume: jax.Array, model: Model, options: RealignOptions, solve: Solve
) -> State:
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


def forward_step(
    state: State, volume: jax.Array, model: Model, options: RealignOptions, solve: Solve
) -> State:
    """One Gauss-Newton step in scale and motion, with the gradient of the moving volume."""

    def values(free: jax.Array) -> tuple[jax.Array, AtSamples]:
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
    state: State,
    q: jax.Array,
    step: jax.Array,
    scale: jax.Array,
    residual: jax.Array,
    n_samples: jax.Array,
    rank: jax.Array,
    options: RealignOptions,
) -> State:
    """Return the state after a step, with the steps that are still to go."""
    fewest = jnp.where(state.thin, FEWEST // COARSE, FEWEST)
    fall = (state.residual - residual) / jnp.maximum(state.residual, 1e-30)
    met = (state.n_steps > 0) & (fall < options.tolerance)
    left = jnp.where(state.left >= 0, state.left - 1, jnp.where(met, MORE_STEPS - 1, -1))
    moved = jnp.maximum(jnp.abs(step[:3]).max(), rigid.HEAD_RADIUS * jnp.abs(step[3:]).max())
    left = jnp.where(moved < STILL, 0, left)
    enough = n_samples >= fewest
    return State(
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
