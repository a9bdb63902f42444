"""One image as arrays on the device, and the normal equations of its spline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline

RIDGE = 1e-6
"""added to the normal equations, relative to their mean diagonal"""


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
