"""The compiled estimate: a start from differences; classes and field in turn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.tissue import mixture
from n4ax_bids.core.tissue.mixture import Classes

RIDGE = 1e-6
"""added to the normal equations, relative to their mean diagonal"""
RELAXED = 1.3
"""a step of the field, relative to the solution of its equations"""
PULL = 1e-3
"""pull on the levels of tissues, relative to their weights"""
FEWEST_ROUNDS = 7
"""rounds before the estimate may end"""
FIRST_STEPS, STEPS = 30, 8
"""steps of expectation maximisation in the first round and in each later one"""
APART = 12.0
"""distance of the blocks whose differences give the start, mm"""
COARSE = 6.0
"""distance of the blocks that are used there, mm"""
ALONE = 2
"""rounds in which each area has the shares of the whole image"""
SHARE_STEPS = 2
"""steps by which the shares of each area follow in each later round"""
WHOLE = 200.0
"""pull of an area's shares to those of the whole image, in blocks"""
SCALES = tuple(float(each) for each in np.geomspace(0.3, 0.08, 8))
"""differences above these are outliers in the steps of the start"""
START_STIFFNESS = 1e8
"""mm^6"""


class Arrays(NamedTuple):
    """One image; arrays of blocks are padded, with h = 0."""

    x: jax.Array
    """float32, ln of intensity"""
    h: jax.Array
    """float32, weight of a block, 0 to 1"""
    ok: jax.Array
    """bool, whether a block takes part in the start"""
    noise_bin: jax.Array
    """int32"""
    nu: jax.Array
    """(noises,)"""
    listed: jax.Array
    """(n,), int32, flat indices of the blocks with a weight, padded with the number of blocks"""
    bases: tuple[jax.Array, ...]
    """(blocks, control points) of each axis, float32"""
    penalty: jax.Array
    """(K, K), float64"""
    area: jax.Array
    """int32, the area of each block, within which shares of classes are estimated"""
    smoothing: tuple[jax.Array, ...]
    """(areas, areas) of each axis, averages an area with its neighbours"""
    cells: tuple[jax.Array, ...]
    """(blocks, regions) of each axis, float32: which region of the misfit a block lies in"""


class Numbers(NamedTuple):
    """Numbers that may change without another compilation."""

    stiffness: float
    balance: float
    least_sd: float
    convergence: float
    n_rounds: int


class State(NamedTuple):
    """What a round changes."""

    round: jax.Array
    lattice: jax.Array
    """(K,), float64"""
    field: jax.Array
    """ln b at the blocks, of weighted mean 0"""
    classes: Classes
    change: jax.Array
    changes: jax.Array
    """(limit,), the change of each round"""
    shares: jax.Array
    """(areas, K), of the classes in each area"""
    likelihood: jax.Array


class Solved(NamedTuple):
    """What was estimated."""

    lattice: jax.Array
    classes: Classes
    n_rounds: jax.Array
    changes: jax.Array
    likelihood: jax.Array
    misfit: jax.Array
    """sd of what regions differ from their classes and the field"""
    sd: jax.Array
    """of ln b at the blocks"""


@partial(jax.jit, static_argnames=("n_classes", "limit"))
def solve(
    arrays: Arrays, numbers: Numbers, lattice: jax.Array, *, n_classes: int, limit: int
) -> Solved:
    """Estimate classes and field.

    Parameters
    ----------
    arrays, numbers : of the image
    lattice : (K,), float64, where the estimate begins
    n_classes : Gaussian classes
    limit : most rounds that can be recorded; at least `numbers.n_rounds`
    """
    pairs = pair_matrices(arrays.bases)
    n = arrays.h.sum()
    zero = jnp.zeros((), arrays.x.dtype)
    nothing = jnp.zeros(n_classes, arrays.x.dtype)
    classes = Classes(nothing, nothing, nothing, zero)
    state = State(
        jnp.int32(0),
        lattice,
        _field(lattice, arrays, n),
        classes,
        zero + 1,
        jnp.zeros(limit),
        jnp.zeros((_n_areas(arrays), n_classes), arrays.x.dtype),
        zero,
    )

    def going(s: State) -> jax.Array:
        early = (s.round < FEWEST_ROUNDS) | (s.change > numbers.convergence)
        return (s.round < numbers.n_rounds) & early

    end = jax.lax.while_loop(going, lambda s: _round(s, arrays, numbers, pairs, n_classes), state)
    sd = jnp.sqrt((arrays.h * end.field**2).sum() / n)
    misfit = _misfit(end, arrays, numbers)
    return Solved(end.lattice, end.classes, end.round, end.changes, end.likelihood, misfit, sd)


def _round(
    s: State, arrays: Arrays, numbers: Numbers, pairs: list[jax.Array], n_classes: int
) -> State:
    """Estimate the classes, then the field."""
    h, n = arrays.h, arrays.h.sum()
    seen = _seen(arrays, s.field)
    classes = jax.lax.cond(
        s.round == 0,
        lambda: mixture.maximised(
            seen, mixture.first_classes(seen, n_classes), FIRST_STEPS, numbers.least_sd
        ),
        lambda: mixture.maximised(seen, s.classes, STEPS, numbers.least_sd),
    )
    shares = jnp.where(s.round < ALONE, classes.share[None], s.shares)
    for _ in range(SHARE_STEPS):
        shares = mixture.local_shares(seen, classes, shares, arrays.smoothing, WHOLE)
    wanted = mixture.demands(seen, classes, shares, numbers.balance)
    found = _demanded(wanted, arrays, numbers.stiffness * n, pairs)
    lattice = s.lattice + RELAXED * (found - s.lattice)
    field = _field(lattice, arrays, n)
    change = jnp.sqrt((h * (field - s.field) ** 2).sum() / n)
    changes = s.changes.at[s.round].set(change)
    return State(s.round + 1, lattice, field, classes, change, changes, shares, wanted.likelihood)


def _n_areas(arrays: Arrays) -> int:
    """Return the number of areas."""
    return int(np.prod([len(each) for each in arrays.smoothing]))


def _seen(arrays: Arrays, field: jax.Array) -> mixture.Histogram:
    """Count the intensities that a field leaves."""
    a = arrays
    r = a.x - field
    return mixture.histogram(r, a.h, a.noise_bin, a.nu, a.listed, a.area, _n_areas(a))


def _demanded(
    wanted: mixture.Demands, arrays: Arrays, stiffness: jax.Array, pairs: list[jax.Array]
) -> jax.Array:
    """Return the lattice that fits the demands best if the level of each tissue is free as well.

    Tissues lie in different places, so their levels and the field trade off against each other.
    Solved together, the levels follow from places where tissues are neighbours.
    """
    h = arrays.h[..., None]
    weights, targets = wanted.weights * h, wanted.targets * h
    left = weights * arrays.x[..., None] - targets
    matrix = normal(weights.sum(axis=-1), pairs, arrays.bases)
    n_points, axes = len(matrix), tuple(range(arrays.x.ndim))
    ridge = RIDGE * jnp.trace(matrix) / n_points
    cross = bspline.contract(weights, arrays.bases).reshape(n_points, -1).astype(jnp.float64)
    own = jnp.diag(weights.sum(axis=axes).astype(jnp.float64)) * (1 + PULL)
    whole = jnp.block([[matrix + ridge * jnp.eye(n_points), cross], [cross.T, own]])
    right = jnp.concatenate(
        [
            bspline.contract(left.sum(axis=-1), arrays.bases).ravel().astype(jnp.float64),
            left.sum(axis=axes).astype(jnp.float64),
        ]
    )
    penalty = jnp.pad(stiffness * arrays.penalty, (0, len(own)))
    return solved(whole, penalty, right)[:n_points]


def _field(lattice: jax.Array, arrays: Arrays, n: jax.Array) -> jax.Array:
    """Return ln b at the blocks, without its weighted mean."""
    points = [basis.shape[1] for basis in arrays.bases]
    field = bspline.expand(lattice.astype(arrays.x.dtype).reshape(points), arrays.bases)
    return field - (arrays.h * field).sum() / n


def _misfit(end: State, arrays: Arrays, numbers: Numbers) -> jax.Array:
    """Return the sd over regions of what classes and field leave, weighted by their blocks."""
    seen = _seen(arrays, end.field)
    wanted = mixture.demands(seen, end.classes, end.shares, numbers.balance)
    weight = wanted.weights.sum(axis=-1)
    left = weight * (arrays.x - end.field) - wanted.targets.sum(axis=-1)
    n = bspline.contract(weight * arrays.h, arrays.cells)
    mean = bspline.contract(left * arrays.h, arrays.cells) / jnp.maximum(n, mixture.TINY)
    return jnp.sqrt((n * mean**2).sum() / n.sum())


def pair_matrices(bases: Sequence[jax.Array]) -> list[jax.Array]:
    """Return, for each axis, the products of all pairs of control points' weights (n, m²)."""
    return [(b[:, :, None] * b[:, None, :]).reshape(len(b), -1) for b in bases]


def normal(weight: jax.Array, pairs: Sequence[jax.Array], bases: Sequence[jax.Array]) -> jax.Array:
    """Return Σ w b_i b_j for all pairs of control points: (K, K), float64."""
    sizes = [basis.shape[1] for basis in bases]
    sums = bspline.contract(weight, pairs).astype(jnp.float64)
    sums = sums.reshape([size for each in sizes for size in (each, each)])
    order = range(0, 2 * len(sizes), 2)
    n_points = int(np.prod(sizes))
    return sums.transpose(*order, *(axis + 1 for axis in order)).reshape(n_points, n_points)


def solved(matrix: jax.Array, penalty: jax.Array, right: jax.Array) -> jax.Array:
    """Solve penalised normal equations in float64, scaled to a diagonal of 1."""
    ridge = RIDGE * jnp.trace(matrix) / len(matrix)
    whole = matrix + penalty + ridge * jnp.eye(len(matrix))
    scale = jax.lax.rsqrt(jnp.diag(whole))
    factor = jax.scipy.linalg.cho_factor(whole * scale[:, None] * scale[None])
    found: jax.Array = jax.scipy.linalg.cho_solve(factor, scale * right.astype(jnp.float64))
    return scale * found


@partial(jax.jit, static_argnames="strides")
def start(arrays: Arrays, *, strides: Sequence[Any]) -> jax.Array:
    """Return the lattice of a robust fit of differences of blocks that lie 12 mm apart.

    Neighbours mostly belong to one tissue, so most of their differences show the field alone.

    Parameters
    ----------
    arrays : of the image
    strides : (blocks between those that are used, and between the two of a difference in such
        steps) of each axis
    """
    thin = tuple(slice(None, None, step) for step, _ in strides)
    x, ok = arrays.x[thin], arrays.ok[thin]
    bases = [b[each] for b, each in zip(arrays.bases, thin, strict=True)]
    terms = []
    for axis, (_, apart) in enumerate(strides):
        if not 0 < apart < x.shape[axis]:
            continue
        low, high = [slice(None)] * x.ndim, [slice(None)] * x.ndim
        low[axis], high[axis] = slice(None, -apart), slice(apart, None)
        both = ok[tuple(low)] & ok[tuple(high)]
        its = list(bases)
        its[axis] = bases[axis][apart:] - bases[axis][:-apart]
        difference = x[tuple(high)] - x[tuple(low)]
        terms.append((both, difference, its, pair_matrices(its)))
    points = [basis.shape[1] for basis in bases]

    def step(lattice: jax.Array, scale: jax.Array) -> tuple[jax.Array, None]:
        matrix, right = jnp.zeros(arrays.penalty.shape), jnp.zeros(len(lattice))
        n = jnp.zeros(())
        for both, difference, its, pairs in terms:
            rest = difference - bspline.expand(lattice.astype(x.dtype).reshape(points), its)
            weight = jnp.where(both, (1 + (rest / scale) ** 2) ** -2, 0).astype(x.dtype)
            matrix += normal(weight, pairs, its)
            right += bspline.contract(weight * difference, its).ravel()
            n += weight.sum()
        penalty = START_STIFFNESS * n / len(points) * arrays.penalty
        return jnp.where(n > 0, solved(matrix, penalty, right), lattice), None

    scales = jnp.asarray(SCALES, x.dtype)
    found, _ = jax.lax.scan(step, jnp.zeros(len(arrays.penalty)), scales)
    return found
