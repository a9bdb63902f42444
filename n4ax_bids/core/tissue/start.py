"""Where the estimate begins: a robust fit of differences between blocks of one image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.tissue.equations import Arrays, normal, pair_matrices, solved

APART = 12.0
"""distance of the blocks whose differences are used, mm"""
COARSE = 6.0
"""distance of the blocks that are used, mm"""
SCALES = tuple(float(each) for each in np.geomspace(0.3, 0.08, 8))
"""differences above these are outliers in the steps of the fit"""
STIFFNESS = 1e8
"""mm^6"""


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
        penalty = STIFFNESS * n / len(points) * arrays.penalty
        return jnp.where(n > 0, solved(matrix, penalty, right), lattice), None

    scales = jnp.asarray(SCALES, x.dtype)
    found, _ = jax.lax.scan(step, jnp.zeros(len(arrays.penalty)), scales)
    return found
