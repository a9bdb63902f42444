"""The stopping statistic, which measures how much the field still changes: exact, and as in ITK.

Both are the coefficient of variation of exp(b_old - b_new) over the mask.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

MARGIN = 1.05
"""ITK's statistic is computed only if the exact one is at most the threshold times this. ITK's was
never below 0.989 of the exact one (72 fields of up to 13 million voxels)."""


def sums(difference: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the sums of exp(difference) - 1 over the mask and of its square, in float64.

    The sums of several parts of an image can be added.

    Parameters
    ----------
    difference : array (n,), ln b before minus ln b after an iteration
    mask : bool array (n,)
    """
    excess = jnp.where(mask, jnp.expm1(difference), 0).astype(jnp.float64)
    return excess.sum(), (excess**2).sum()


def exact(total: jax.Array, squares: jax.Array, n_voxels: jax.Array) -> jax.Array:
    """Return the coefficient of variation of exp(difference).

    Parameters
    ----------
    total, squares : scalars, from `sums`
    n_voxels : scalar, number of values

    Returns
    -------
    float64 scalar; 0 for a single voxel
    """
    variance = (squares - total**2 / n_voxels) / jnp.maximum(n_voxels - 1, 1)
    return jnp.sqrt(jnp.maximum(variance, 0)) / (1 + total / n_voxels)


def itk(difference: np.ndarray) -> float:
    """Return the coefficient of variation as ITK computes it, voxel after voxel in float32.

    ITK updates a mean and a sum of squares in float32. Once a voxel's share of the mean is below
    the mean's last digit, the mean keeps its value from the first slices and the result is biased:
    9.4e-4 on a head whose true value is 5.9e-4 (docs/method.md §8). The number of iterations at a
    threshold depends on it.

    Parameters
    ----------
    difference : float32 array (n,), of the mask's voxels in raster order, first axis fastest

    Returns
    -------
    float
    """
    n = difference.size
    padded = np.zeros(1 << max(0, n - 1).bit_length(), np.float32)
    padded[:n] = difference
    with jax.enable_x64(True), jax.default_device(_host()):
        return float(_running(padded, np.int32(n)))


def _host() -> jax.Device | None:
    """Return the CPU; None where JAX_PLATFORMS leaves none, and the statistic takes longer."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


@jax.jit
def _running(difference: jax.Array, n: jax.Array) -> jax.Array:
    """Compute the recursion in ITK's types: float32 state, products in float64, e/N in float32."""
    exponential = jnp.exp(difference.astype(jnp.float64)).astype(jnp.float32)

    def step(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        mean, squares = state
        count = (i + 1).astype(jnp.float32)
        value = exponential[i]
        wide = count.astype(jnp.float64)
        term = jnp.square(value - mean).astype(jnp.float64) * (wide - 1) / wide
        squares = (squares.astype(jnp.float64) + term).astype(jnp.float32)
        mean = mean.astype(jnp.float64) * (1 - 1 / wide) + (value / count).astype(jnp.float64)
        return mean.astype(jnp.float32), squares

    mean, squares = jax.lax.fori_loop(0, n, step, (jnp.float32(0), jnp.float32(0)))
    spread = jnp.sqrt(squares / (n - 1).astype(jnp.float32)).astype(jnp.float32)
    return spread / mean
