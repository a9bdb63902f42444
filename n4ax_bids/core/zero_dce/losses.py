"""The tone curve and the terms of the loss, on the grid of blocks of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Neighbours = Literal["faces", "corners"]
Array = TypeVar("Array", jax.Array, np.ndarray)


class Terms(NamedTuple):
    """The terms of the loss, or the factor of each."""

    smooth: jax.Array | float
    spatial: jax.Array | float
    exposure: jax.Array | float
    prior: jax.Array | float
    smooth_bias: jax.Array | float


class Regions(NamedTuple):
    """Sizes of regions in blocks on each axis, and which regions are neighbours."""

    spatial: tuple[int, ...]
    exposure: tuple[int, ...]
    neighbours: Neighbours


def curve(image: Array, alpha: Array, n_curves: int) -> Array:
    """Brighten or darken: I ← I + α·I·(1 - I), `n_curves` times.

    Parameters
    ----------
    image : array, 0 to 1
    alpha : array like `image`, -1 to 1
    n_curves : int

    Returns
    -------
    array like `image`, 0 to 1, and monotone in it
    """
    for _ in range(n_curves):
        image = image + alpha * image * (1 - image)
    return image


def smoothness(values: jax.Array, per_block: jax.Array, n_blocks: jax.Array) -> jax.Array:
    """Return the mean of (sum over axes of abs of forward differences)².

    Parameters
    ----------
    values : array (n_1, ..., n_D), constant in padding
    per_block : array (D,), factor on the differences of each axis: its blocks / 256
    n_blocks : number of blocks that are not padding
    """
    total = jnp.zeros_like(values)
    for axis in range(values.ndim):
        ahead = jnp.diff(
            values, axis=axis, append=jax.lax.slice_in_dim(values, -1, None, axis=axis)
        )
        total = total + jnp.abs(ahead) * per_block[axis]
    return jnp.sum(total**2) / n_blocks


def pooled(values: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Return the means over cubes of the given sizes."""
    shape = [
        part for n, size in zip(values.shape, sizes, strict=True) for part in (n // size, size)
    ]
    return values.reshape(shape).mean(axis=tuple(range(1, 2 * values.ndim, 2)))


def regional(values: jax.Array, weight: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Return weighted means over cubes; 0 where a cube has no weight."""
    whole = pooled(weight, sizes)
    return pooled(values * weight, sizes) / jnp.where(whole > 0, whole, 1)


def spatial(
    bright: jax.Array, image: jax.Array, weight: jax.Array, sizes: Sequence[int], kind: Neighbours
) -> jax.Array:
    """Compare the contrast of neighbouring regions before and after.

    mean over regions i of Σ_{j next to i} (|X_i - X_j| - |Y_i - Y_j|)², a region weighted by its
    share of weight, and a pair by both.

    Parameters
    ----------
    bright, image, weight : arrays of one shape: X, Y and the weight of each block
    sizes : of a region, in blocks
    kind : "faces", neighbours along one axis; "corners", along all axes at once
    """
    x, y = regional(bright, weight, sizes), regional(image, weight, sizes)
    share = pooled(weight, sizes)
    total = jnp.zeros((), x.dtype)
    for shift in _shifts(x.ndim, kind):
        (xi, xj), (yi, yj), (wi, wj) = (_pairs(each, shift) for each in (x, y, share))
        # Each pair counts twice: once from either side.
        total += 2 * jnp.sum(wi * wj * (jnp.abs(xi - xj) - jnp.abs(yi - yj)) ** 2)
    return total / jnp.maximum(jnp.sum(share), 1e-6)


def exposure(
    bright: jax.Array, target: float, weight: jax.Array, sizes: Sequence[int]
) -> jax.Array:
    """Return the mean over regions of (X - E)², a region weighted by its share of weight.

    Parameters
    ----------
    bright, weight : arrays of one shape: X and the weight of each block
    target : E
    sizes : of a region, in blocks
    """
    share = pooled(weight, sizes)
    away = regional(bright - target, weight, sizes)
    return jnp.sum(share * away**2) / jnp.maximum(jnp.sum(share), 1e-6)


def prior(bright: jax.Array, bias: jax.Array, image: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the weighted mean of |Y - X·B|."""
    return jnp.sum(weight * jnp.abs(image - bright * bias)) / jnp.maximum(jnp.sum(weight), 1e-6)


def _shifts(n_axes: int, kind: Neighbours) -> list[tuple[int, ...]]:
    """Return the way to half of a region's neighbours; the others lie opposite."""
    if kind == "faces":
        return [tuple(int(d == axis) for d in range(n_axes)) for axis in range(n_axes)]
    return [(1, *rest) for rest in product((1, -1), repeat=n_axes - 1)]


def _pairs(values: jax.Array, shift: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Return the values of all regions that have this neighbour, and those of the neighbours."""
    ends = {0: (slice(None),) * 2, 1: (slice(None, -1), slice(1, None))}
    ends[-1] = ends[1][::-1]
    here, there = zip(*(ends[s] for s in shift), strict=True)
    return values[here], values[there]
