"""Volumes resampled on the grid of their reference, once, from the original data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.interpolate import sample_padded
from n4ax_bids.core.motion.register import CHUNK_BYTES, stacks
from n4ax_bids.core.motion.smoothing import Grid, padded_matrices
from n4ax_bids.core.motion.steps import moved_points
from n4ax_bids.core.spline_coefficients import apply_matrices

MOST_AT_ONCE = 8
"""volumes that are resampled together"""


@functools.partial(jax.jit, static_argnames=("degree", "boundary"))
def _reslice_chunk(
    volumes: jax.Array,
    q: jax.Array,
    to_mm: jax.Array,
    to_voxels: jax.Array,
    matrices: tuple[jax.Array, ...],
    *,
    degree: int,
    boundary: str,
) -> tuple[jax.Array, jax.Array]:
    shape = volumes.shape[1:]
    x = [
        jax.lax.broadcasted_iota(jnp.float32, shape, axis) - (n - 1) / 2
        for axis, n in enumerate(shape)
    ]

    def one(volume: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = sample_padded(
            apply_matrices(volume, matrices),
            moved_points(q, x, shape, to_mm, to_voxels),
            shape=shape,
            degree=degree,
            boundary=boundary,
        )
        return found.values, found.valid

    return jax.vmap(one)(volumes, q)


def finite(volume: np.ndarray) -> np.ndarray:
    """Return a volume with 0 where it is not finite."""
    odd = ~np.isfinite(volume)
    return np.where(odd, np.float32(0), volume) if odd.any() else volume


def reslice(
    volume_of: Callable[[int], np.ndarray],
    which: Sequence[int],
    q: np.ndarray,
    grid: Grid,
    *,
    degree: int = 4,
    boundary: str = "reflect",
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Resample volumes on the grid of the reference.

    Parameters
    ----------
    volume_of : returns a volume (I, J, K) by its number
    which : numbers of the volumes
    q : array (n, 6), their motion
    grid : of volumes and reference
    degree, boundary : of the spline

    Yields
    ------
    number of a volume; its values (I, J, K), 0 off its grid; and where they lie on it
    """
    matrices = padded_matrices(grid, degree=degree, boundary=boundary)
    to_mm = jnp.asarray(grid.linear, jnp.float32)
    to_voxels = jnp.asarray(np.linalg.inv(grid.linear), jnp.float32)
    n_together = max(1, min(MOST_AT_ONCE, CHUNK_BYTES // (16 * int(np.prod(grid.shape)))))
    for rows, volumes in stacks(volume_of, which, n_together):
        motion = np.zeros((n_together, 6), np.float32)
        motion[: len(rows)] = q[rows]
        done = _reslice_chunk(
            volumes,
            jnp.asarray(motion),
            to_mm,
            to_voxels,
            matrices,
            degree=degree,
            boundary=boundary,
        )
        values, valid = map(np.asarray, done)
        for row, number in enumerate(rows):
            yield which[number], values[row], valid[row]


def resampled_in_place(
    data: np.ndarray,
    which: Sequence[int],
    q: np.ndarray,
    grid: Grid,
    *,
    degree: int,
    boundary: str,
    mask: bool,
) -> dict[str, np.ndarray]:
    """Resample volumes of a series in its own memory.

    Parameters
    ----------
    data : array (I, J, K, n), overwritten
    which : numbers of the volumes
    q : array (n, 6), their motion
    grid : of the volumes
    degree, boundary : of the spline
    mask : set voxels to 0 in all volumes that lie off the grid of any of them

    Returns
    -------
    mean_image, variance_image and sd_image: (I, J, K), float32; each voxel over the volumes that
    have it
    """
    total, squares = np.zeros(grid.shape), np.zeros(grid.shape)
    n_valid = np.zeros(grid.shape, np.int32)

    for number, values, valid in reslice(
        lambda i: finite(data[..., i]), which, q, grid, degree=degree, boundary=boundary
    ):
        data[..., number] = values
        total += values
        squares += values.astype(np.float64) ** 2
        n_valid += valid
    n_used = np.maximum(n_valid, 1)
    mean = total / n_used
    variance = np.maximum(squares / n_used - mean**2, 0)
    made = {"mean_image": mean, "variance_image": variance, "sd_image": np.sqrt(variance)}
    if mask:
        for image in (data, *made.values()):
            image[n_valid < len(which)] = 0
    return {name: np.asarray(image, np.float32) for name, image in made.items()}
