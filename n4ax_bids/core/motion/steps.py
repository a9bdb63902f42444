"""One step of a rigid registration, in either of the forms of `n4ax_bids.core.motion.register`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from n4ax_bids.core.interpolate import sample_padded
from n4ax_bids.core.motion import rigid
from n4ax_bids.core.motion.samples import FEWEST, Model
from n4ax_bids.core.products import matmul
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


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["max_iterations", "n_fine", "tolerance", "damping"],
    meta_fields=["form", "degree", "boundary"],
)
@dataclass(frozen=True)
class Search:
    """The options of a search; only another form, degree or boundary needs another program."""

    max_iterations: jax.Array | int
    n_fine: jax.Array | int
    """most steps with all samples, after those with every n-th"""
    tolerance: jax.Array | float
    damping: jax.Array | float
    form: str
    degree: int
    boundary: str

    @classmethod
    def of(cls, options: RealignOptions, n_fine: int | None = None) -> Search:
        """Return the part of the options that a search needs."""
        most = options.max_iterations
        return cls(
            max_iterations=most,
            n_fine=most if n_fine is None else n_fine,
            tolerance=options.tolerance,
            damping=options.damping,
            form=options.form,
            degree=options.degree,
            boundary=options.boundary,
        )


class State(NamedTuple):
    """A search after some steps."""

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


def moved_points(
    q: jax.Array,
    x: Sequence[jax.Array] | jax.Array,
    shape: Sequence[int],
    to_mm: jax.Array,
    to_voxels: jax.Array,
) -> jax.Array:
    """Return where a motion puts points of the reference in the moving volume.

    Parameters
    ----------
    q : array (6,)
    x : three arrays that broadcast, voxels from the grid's centre along each axis
    shape : of the grid
    to_mm, to_voxels : 3×3

    Returns
    -------
    array (..., 3), voxels; what rounding puts beyond the edge of the grid lies on it
    """
    back = rigid.inverse(rigid.matrix(q))
    turn = matmul(matmul(to_voxels, back[:3, :3]), to_mm)
    move = matmul(to_voxels, back[:3, 3])
    axes = []
    for axis, n in enumerate(shape):
        y = turn[axis, 0] * x[0] + turn[axis, 1] * x[1] + turn[axis, 2] * x[2]
        y = y + move[axis] + (n - 1) / 2
        held = jnp.clip(y, 0, n - 1)
        axes.append(jnp.where(jnp.abs(held - y) <= EDGE, held, y))
    return jnp.stack(axes, axis=-1)


def _sampled(q: jax.Array, volume: jax.Array, model: Model, search: Search) -> AtSamples:
    """Sample a moving volume, padded coefficients, where a motion puts the samples."""
    degree, boundary = search.degree, search.boundary
    shape = tuple(n - 2 * margin(degree, boundary) for n in volume.shape)
    at = moved_points(q, model.x, shape, model.to_mm, model.to_voxels)
    found = sample_padded(volume, at, shape=shape, degree=degree, boundary=boundary)
    last = jnp.asarray(shape, at.dtype) - 1
    within = ((at >= model.border[None]) & (at <= (last - model.border)[None])).all(axis=-1)
    weight = jnp.where(found.valid & within, model.weight, 0)
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
    solution = matmul(vectors, inverse * matmul(vectors.T, right / size)) / size
    return solution, usable.sum()


def plain_solve(normal: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solve regular equations; unlike the pseudo-inverse this has a derivative everywhere."""
    size = jnp.sqrt(jnp.diagonal(normal))
    scaled = normal / size[:, None] / size[None, :]
    return jnp.linalg.solve(scaled, right / size) / size, jnp.array(len(right))


Solve = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def reference_step(
    state: State, volume: jax.Array, model: Model, search: Search, solve: Solve
) -> State:
    """One step with the gradient of the reference."""
    f, weight, n_samples = _sampled(state.q, volume, model, search)
    shrink = _ratio((weight * model.g).sum(), (weight * f).sum())
    r = shrink * f - model.g
    jacobian = matmul(model.jacobian, model.free)
    weighted = weight[:, None] * jacobian
    normal = matmul(weighted.T, jacobian)
    delta, rank = solve(normal, matmul(weighted.T, r))
    change = matmul(model.free, delta)
    small = rigid.matrix(search.damping * change)
    moved = matmul(small, rigid.matrix(state.q))
    residual = (weight * r**2).sum() / jnp.maximum(weight.sum(), 1e-30)
    return _advanced(
        state,
        rigid.parameters(moved),
        change,
        _ratio(jnp.ones(()), shrink),
        residual,
        n_samples,
        rank,
        search,
    )


def forward_step(
    state: State, volume: jax.Array, model: Model, search: Search, solve: Solve
) -> State:
    """One Gauss-Newton step in scale and motion, with the gradient of the moving volume."""

    def values(free: jax.Array) -> tuple[jax.Array, AtSamples]:
        q = state.q + matmul(model.free, free)
        found = _sampled(q, volume, model, search)
        return found.f, found

    start = jnp.zeros(model.free.shape[1:], model.g.dtype)
    slopes, (f, weight, n_samples) = jax.jacfwd(values, has_aux=True)(start)
    r = f - state.scale * model.g
    jacobian = jnp.concatenate([-model.g[:, None], slopes], axis=1)
    weighted = weight[:, None] * jacobian
    normal = matmul(weighted.T, jacobian)
    delta, rank = solve(normal, matmul(weighted.T, r))
    step = matmul(model.free, delta[1:])
    q = state.q - search.damping * step
    scale = state.scale - search.damping * delta[0]
    residual = (weight * r**2).sum() / jnp.maximum(weight.sum(), 1e-30)
    residual = residual / jnp.maximum(state.scale**2, 1e-30)
    return _advanced(state, q, step, scale, residual, n_samples, rank - 1, search)


def _advanced(
    state: State,
    q: jax.Array,
    step: jax.Array,
    scale: jax.Array,
    residual: jax.Array,
    n_samples: jax.Array,
    rank: jax.Array,
    search: Search,
) -> State:
    """Return the state after a step, with the steps that are still to go."""
    fewest = jnp.where(state.thin, FEWEST // COARSE, FEWEST)
    fall = (state.residual - residual) / jnp.maximum(state.residual, 1e-30)
    met = (state.n_steps > 0) & (fall < search.tolerance)
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
