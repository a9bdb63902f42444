"""Where a registration samples its reference, and what it knows of it there."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.interpolate import sample, sample_padded
from n4ax_bids.core.motion.smoothing import Grid, spline_matrices, width
from n4ax_bids.core.spline_coefficients import apply_matrices
from n4ax_bids.options.realign import RealignOptions

FEWEST = 32
"""samples below which a volume is not registered"""
SEED = 19950201
"""of the jitter"""


class Model(NamedTuple):
    """The samples of a reference; all arrays are float32 and have K samples."""

    x: jax.Array
    """(3, K), voxels from the grid's centre"""
    g: jax.Array
    """(K,), the smoothed reference"""
    jacobian: jax.Array
    """(K, 6), derivative of g in the parameters q of a motion at q = 0"""
    weight: jax.Array
    """(K,), 0 for padding"""
    free: jax.Array
    """(6, m), the directions of q that are estimated"""
    border: jax.Array
    """(3,), voxels; samples this near to the end of an axis of the moving volume have no weight"""
    unit: jax.Array
    """a power of 2, by which volumes are divided: squares of intensities might leave float32"""
    to_mm: jax.Array
    """3×3, voxels to mm"""
    to_voxels: jax.Array
    """its inverse"""

    def thinned(self, step: int) -> Model:
        """Return a model with every n-th sample."""
        return self._replace(
            x=self.x[:, ::step],
            g=self.g[::step],
            jacobian=self.jacobian[::step],
            weight=self.weight[::step],
        )


def positions(grid: Grid, options: RealignOptions) -> np.ndarray:
    """Return the voxel coordinates of the samples: (K, 3), float64."""
    axes = []
    for n, zoom in zip(grid.shape, grid.zooms, strict=True):
        axes.append(np.arange(0, max(n - 0.5, 1), options.separation / zoom))
    found = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    if options.jitter:
        # On both sides, so that the mean phase is that of the grid. Between voxels, interpolated
        # noise is weaker; a shift to one side alone would make the noise of the reference
        # correlate with its gradient, and all motion would be off by the same amount.
        found += np.random.default_rng(SEED).uniform(-0.25, 0.25, found.shape)
    last = np.array(grid.shape) - 1
    found[:, last == 0] = 0
    near = border(grid, options)
    return found[((found >= near) & (found <= last - near)).all(axis=1)]


def border(grid: Grid, options: RealignOptions) -> np.ndarray:
    """Return how near to the end of each axis samples are not used: (3,), voxels.

    There the smoothing sees the assumed values beyond the grid, which do not move with the head.
    At most an eighth of an axis is left out at each end.
    """
    if options.boundary == "wrap":
        return np.zeros(3)
    near: np.ndarray = np.minimum(
        width(grid, options) / grid.zooms, (np.array(grid.shape) - 1) / 8
    )
    return near


def free_directions(grid: Grid) -> np.ndarray:
    """Return the directions of q that can be estimated: (6, m).

    With fewer than three slices these are the motions within the slice: two translations and the
    rotation about its normal.
    """
    if grid.shape[2] >= 3:
        return np.eye(6)
    in_plane, _ = np.linalg.qr(grid.linear[:, :2])
    normal = np.cross(in_plane[:, 0], in_plane[:, 1])
    free = np.zeros((6, 3))
    free[:3, :2] = in_plane
    free[3:, 2] = normal * [-1, 1, -1]  # R1 and R3 turn against the right hand, R2 with it
    return free


@functools.partial(jax.jit, static_argnames=("shape", "degree", "boundary"))
def _values(
    padded: jax.Array, points: jax.Array, *, shape: tuple[int, ...], degree: int, boundary: str
) -> tuple[jax.Array, jax.Array]:
    """Return the values (K,) and the gradients (K, 3) of a spline at points, per voxel."""

    def value(at: jax.Array) -> jax.Array:
        found = sample_padded(padded, at, shape=shape, degree=degree, boundary=boundary)
        return found.values

    def along(axis: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(value, (points,), (jnp.broadcast_to(axis, points.shape),))

    # A loop over the axes rather than a copy of the program for each of them.
    g, slopes = jax.lax.map(along, jnp.eye(3, dtype=points.dtype))
    return g[0], slopes.T


_smoothed = jax.jit(apply_matrices)


def motion_jacobian(grid: Grid, points: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Return the derivative of an image in q at q = 0, at points: (K, 6).

    Parameters
    ----------
    points : array (K, 3), voxels
    slopes : array (K, 3), gradient of the image, per voxel
    """
    per_mm = slopes.astype(np.float64) @ np.linalg.inv(grid.linear)
    mm = (points - grid.centre) @ grid.linear.T
    gx, gy, gz = per_mm.T
    x, y, z = mm.T
    turned = (gy * z - gz * y, gx * z - gz * x, gx * y - gy * x)
    return np.concatenate([per_mm, np.stack(turned, axis=-1)], axis=1)


def informative(
    jacobian: np.ndarray, g: np.ndarray, weight: np.ndarray, quality: float
) -> np.ndarray:
    """Return the indices of the samples that are kept.

    A sample with the row v of [J g] changes det(A), A = [J g]ᵀ[J g], by the factor
    1 - vᵀA⁻¹v. The tenth with the smallest changes is dropped, again and again, while more than
    `quality` of the first determinant is left.
    """
    rows = np.column_stack([jacobian, g]) * np.sqrt(weight)[:, None]
    rows = rows / np.maximum(np.sqrt((rows**2).mean(axis=0)), 1e-30)
    kept = np.flatnonzero(weight > 0)
    if quality >= 1 or len(kept) <= FEWEST:
        return kept
    first = np.linalg.slogdet(rows[kept].T @ rows[kept])[1]
    while True:
        normal = rows[kept].T @ rows[kept]
        if not np.linalg.slogdet(normal)[1] - first > np.log(quality):
            return np.sort(kept)
        change = (rows[kept] * (rows[kept] @ np.linalg.pinv(normal))).sum(axis=1)
        n_kept = len(kept) - max(1, round(len(kept) / 10))
        if n_kept < FEWEST:
            return np.sort(kept)
        kept = kept[np.argsort(-change, kind="stable")[:n_kept]]


def bucket(n: int) -> int:
    """Return a size to which n samples are padded, so that few programs are compiled."""
    step = 1 << max(n.bit_length() - 3, 6)
    return -(-n // step) * step


def unit_of(reference: Any) -> np.float32:
    """Return the power of 2 that is next below the largest absolute intensity of a reference."""
    largest = float(np.abs(np.asarray(reference, np.float32)).max())
    return np.float32(2.0 ** np.clip(np.frexp(largest)[1] - 1, -120, 120))


def model_of(
    reference: Any,
    grid: Grid,
    options: RealignOptions,
    weight: np.ndarray | None = None,
    *,
    size: int = 0,
) -> Model:
    """Sample a reference.

    Parameters
    ----------
    reference : array (I, J, K)
    weight : array like it, in proportion to 1/sd; samples are weighted by its square
    size : pad to so many samples if there are fewer; models of one size share a program

    Raises
    ------
    ValueError
        If there is too little to register to: a constant image, or weights of 0.
    """
    matrices = spline_matrices(grid, options)
    points = positions(grid, options)
    unit = unit_of(reference)
    smooth = _smoothed(jnp.asarray(np.asarray(reference, np.float32) / unit), matrices)
    # Padded as the samples are, so that grids of one shape share a program.
    at = np.pad(points, [(0, bucket(len(points)) - len(points)), (0, 0)]).astype(np.float32)
    how: Any = {"degree": options.degree, "boundary": options.boundary}
    found = _values(smooth, jnp.asarray(at), shape=grid.shape, **how)
    g, slopes = (np.asarray(part)[: len(points)] for part in found)
    weights = np.ones(len(points)) if weight is None else _weights(weight, points)
    jacobian = motion_jacobian(grid, points, slopes)
    free = free_directions(grid)
    kept = informative(jacobian @ free, g.astype(np.float64), weights, options.quality)
    enough = len(kept) >= FEWEST and np.ptp(g[kept]) > 0
    if not enough:
        low, high = g.min() * unit, g.max() * unit
        raise ValueError(
            f"the reference has {len(kept)} samples with a weight, of values {low:g} to {high:g}; "
            f"expected at least {FEWEST} and an image that is not constant"
        )
    near = border(grid, options)
    made = _padded(grid, free, points[kept], g[kept], jacobian[kept], weights[kept], near, size)
    return made._replace(unit=jnp.float32(unit))


_linear = jax.jit(functools.partial(sample, degree=1))


def _weights(weight: np.ndarray, points: np.ndarray) -> np.ndarray:
    values = _linear(jnp.asarray(weight, jnp.float32), jnp.asarray(points, jnp.float32))
    return np.maximum(np.nan_to_num(np.asarray(values, np.float64)), 0) ** 2


def _padded(
    grid: Grid,
    free: np.ndarray,
    points: np.ndarray,
    g: np.ndarray,
    jacobian: np.ndarray,
    weight: np.ndarray,
    near: np.ndarray,
    size: int,
) -> Model:
    more = (size if size >= len(points) else bucket(len(points))) - len(points)

    def filled(array: np.ndarray) -> jax.Array:
        return jnp.asarray(np.pad(array, [(0, more)] + [(0, 0)] * (array.ndim - 1)), jnp.float32)

    return Model(
        x=filled(points - grid.centre).T,
        g=filled(g),
        jacobian=filled(jacobian),
        weight=filled(weight / weight.max()),
        free=jnp.asarray(free, jnp.float32),
        border=jnp.asarray(near, jnp.float32),
        unit=jnp.ones((), jnp.float32),
        to_mm=jnp.asarray(grid.linear, jnp.float32),
        to_voxels=jnp.asarray(np.linalg.inv(grid.linear), jnp.float32),
    )
