"""The compiled estimate: the classes of each image and one field, in turn."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.tissue import mixture
from n4ax_bids.core.tissue.equations import RIDGE, Arrays, normal, pair_matrices, solved
from n4ax_bids.core.tissue.mixture import Classes

RELAXED = 1.3
"""a step of the field, relative to the solution of its equations"""
PULL = 1e-3
"""pull on the levels of tissues, relative to their weights"""
FEWEST_ROUNDS = 7
"""rounds before the estimate may end"""
FIRST_STEPS, STEPS = 30, 8
"""steps of expectation maximisation in the first round and in each later one"""
ALONE = 2
"""rounds in which each area has the shares of the whole image"""
SHARE_STEPS = 2
"""steps by which the shares of each area follow in each round"""
WHOLE = 200.0
"""pull of an area's shares to those of the whole image, in blocks"""


class Numbers(NamedTuple):
    """Numbers that may change without another compilation."""

    stiffness: float
    balance: float
    least_sd: float
    convergence: float
    n_rounds: int


class Seen(NamedTuple):
    """What is known of one image."""

    field: jax.Array
    """ln b at the blocks, of weighted mean 0"""
    classes: Classes
    shares: jax.Array
    """(areas, K), of the classes in each area"""


class State(NamedTuple):
    """What a round changes."""

    round: jax.Array
    lattice: jax.Array
    """(K,), float64"""
    images: tuple[Seen, ...]
    change: jax.Array
    changes: jax.Array
    """(limit,), the change of each round"""


class Solved(NamedTuple):
    """What was estimated; tuples have one entry for each image."""

    lattice: jax.Array
    classes: tuple[Classes, ...]
    n_rounds: jax.Array
    changes: jax.Array
    misfit: tuple[jax.Array, ...]
    """sd of what regions differ from their classes and the field"""
    sd: jax.Array
    """of ln b at the blocks"""


@partial(jax.jit, static_argnames=("n_classes", "limit"))
def solve(
    images: tuple[Arrays, ...],
    numbers: Numbers,
    lattice: jax.Array,
    *,
    n_classes: int,
    limit: int,
) -> Solved:
    """Estimate the classes of each image, and the field that all of them share.

    Parameters
    ----------
    images : of one grid and one spline
    numbers : of the options
    lattice : (K,), float64, where the estimate begins
    n_classes : Gaussian classes of each image
    limit : most rounds that can be recorded; at least `numbers.n_rounds`
    """
    pairs = pair_matrices(images[0].bases)
    begun = tuple(_begun(each, lattice, n_classes) for each in images)
    one = jnp.ones((), images[0].x.dtype)
    state = State(jnp.int32(0), lattice, begun, one, jnp.zeros(limit))

    def going(s: State) -> jax.Array:
        early = (s.round < FEWEST_ROUNDS) | (s.change > numbers.convergence)
        return (s.round < numbers.n_rounds) & early

    end = jax.lax.while_loop(going, lambda s: _round(s, images, numbers, pairs), state)
    both = list(zip(images, end.images, strict=True))
    square = _mean_square([(arrays.h, seen.field) for arrays, seen in both])
    return Solved(
        end.lattice,
        tuple(seen.classes for seen in end.images),
        end.round,
        end.changes,
        tuple(_misfit(seen, arrays, numbers) for arrays, seen in both),
        jnp.sqrt(square),
    )


def _begun(arrays: Arrays, lattice: jax.Array, n_classes: int) -> Seen:
    """Return what is known of an image before the first round."""
    zero = jnp.zeros((), arrays.x.dtype)
    nothing = jnp.zeros(n_classes, arrays.x.dtype)
    shares = jnp.zeros((_n_areas(arrays), n_classes), arrays.x.dtype)
    classes = Classes(nothing, nothing, nothing, zero)
    return Seen(_field(lattice, arrays), classes, shares)


def _mean_square(fields: Sequence[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Return the mean square of pairs of weights and values."""
    squares = jnp.stack([(h * values**2).sum() for h, values in fields])
    return squares.sum() / jnp.stack([h.sum() for h, _ in fields]).sum()


def _round(
    s: State, images: tuple[Arrays, ...], numbers: Numbers, pairs: list[jax.Array]
) -> State:
    """Estimate the classes, then the field."""
    classified = [
        _classified(seen, arrays, numbers, s.round)
        for seen, arrays in zip(s.images, images, strict=True)
    ]
    stiffness = numbers.stiffness * jnp.stack([arrays.h.sum() for arrays in images]).sum()
    found = _demanded([wanted for _, wanted in classified], images, stiffness, pairs)
    lattice = s.lattice + RELAXED * (found - s.lattice)
    fields = [_field(lattice, arrays) for arrays in images]
    change = jnp.sqrt(
        _mean_square(
            [
                (arrays.h, field - seen.field)
                for arrays, field, seen in zip(images, fields, s.images, strict=True)
            ]
        )
    )
    now = tuple(
        seen._replace(field=field) for (seen, _), field in zip(classified, fields, strict=True)
    )
    return State(s.round + 1, lattice, now, change, s.changes.at[s.round].set(change))


def _classified(
    s: Seen, arrays: Arrays, numbers: Numbers, number: jax.Array
) -> tuple[Seen, mixture.Demands]:
    """Estimate the classes of one image, and what they demand of the field."""
    seen = _counted(arrays, s.field)
    n_classes = len(s.classes.mean)
    classes = jax.lax.cond(
        number == 0,
        lambda: mixture.maximised(
            seen, mixture.first_classes(seen, n_classes), FIRST_STEPS, numbers.least_sd
        ),
        lambda: mixture.maximised(seen, s.classes, STEPS, numbers.least_sd),
    )
    shares = jnp.where(number < ALONE, classes.share[None], s.shares)
    for _ in range(SHARE_STEPS):
        shares = mixture.local_shares(seen, classes, shares, arrays.smoothing, WHOLE)
    wanted = mixture.demands(seen, classes, shares, numbers.balance)
    return s._replace(classes=classes, shares=shares), wanted


def _n_areas(arrays: Arrays) -> int:
    """Return the number of areas."""
    return int(np.prod([len(each) for each in arrays.smoothing]))


def _counted(arrays: Arrays, field: jax.Array) -> mixture.Histogram:
    """Count the intensities that a field leaves."""
    a = arrays
    r = a.x - field
    return mixture.histogram(r, a.h, a.noise_bin, a.nu, a.listed, a.area, _n_areas(a))


def _demanded(
    wanted: Sequence[mixture.Demands],
    images: Sequence[Arrays],
    stiffness: jax.Array,
    pairs: list[jax.Array],
) -> jax.Array:
    """Return the lattice that fits the demands best if the level of each tissue is free as well.

    Tissues lie in different places, so their levels and the field trade off against each other.
    Solved together, the levels follow from places where tissues are neighbours. Each image has
    levels of its own, and its equations for the field are added to those of the others.
    """
    bases = images[0].bases
    every, crosses, forces = [], [], []
    for each, arrays in zip(wanted, images, strict=True):
        for weights, targets in zip(each.weights, each.targets, strict=True):
            weights = weights * arrays.h
            every.append(weights)
            crosses.append(bspline.contract(weights, bases).ravel())
            left = weights * arrays.x - targets * arrays.h
            forces.append(bspline.contract(left, bases).ravel())
    cross, force = (jnp.stack(each, axis=1).astype(jnp.float64) for each in (crosses, forces))
    matrix = normal(_added(every), pairs, bases)
    n_points = len(matrix)
    ridge = RIDGE * jnp.trace(matrix) / n_points
    # The splines of all control points add up to 1, so sums over them are sums over blocks.
    own = jnp.diag(cross.sum(axis=0)) * (1 + PULL)
    whole = jnp.block([[matrix + ridge * jnp.eye(n_points), cross], [cross.T, own]])
    right = jnp.concatenate([force.sum(axis=1), force.sum(axis=0)])
    penalty = jnp.pad(stiffness * images[0].penalty, (0, len(own)))
    return solved(whole, penalty, right)[:n_points]


def _added(arrays: Sequence[jax.Array]) -> jax.Array:
    """Return the sum of arrays."""
    return reduce(operator.add, arrays)


def _field(lattice: jax.Array, arrays: Arrays) -> jax.Array:
    """Return ln b at the blocks, without its weighted mean."""
    points = [basis.shape[1] for basis in arrays.bases]
    field = bspline.expand(lattice.astype(arrays.x.dtype).reshape(points), arrays.bases)
    return field - (arrays.h * field).sum() / arrays.h.sum()


def _misfit(s: Seen, arrays: Arrays, numbers: Numbers) -> jax.Array:
    """Return the sd over regions of what classes and field leave, weighted by their blocks."""
    seen = _counted(arrays, s.field)
    wanted = mixture.demands(seen, s.classes, s.shares, numbers.balance)
    weight, target = _added(wanted.weights), _added(wanted.targets)
    left = weight * (arrays.x - s.field) - target
    n = bspline.contract(weight * arrays.h, arrays.cells)
    mean = bspline.contract(left * arrays.h, arrays.cells) / jnp.maximum(n, mixture.TINY)
    return jnp.sqrt((n * mean**2).sum() / n.sum())
