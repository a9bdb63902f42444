"""A log field at the places of the voxels of another image."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.field import LogField, sample
from n4ax_bids.core.interpolate import sample_flagged
from n4ax_bids.core.spline_coefficients import coefficients

POINTS = 1 << 18
"""points evaluated at a time"""
ALIGNED = 1e-6
"""voxels; an axis that drifts less than this over the whole image is parallel to another one"""


class Placed(NamedTuple):
    """A field at the voxels of an image."""

    log_bias: np.ndarray
    """ln b, float32, one value for each voxel"""
    n_outside: int
    """voxels outside the field's domain, which have the value of its nearest point"""


def of_samples(log_bias: np.ndarray) -> LogField:
    """Return the cubic spline through ln b at the voxels of an image.

    The spline goes on beyond the outermost voxels as in a mirror (Unser 1999).

    Parameters
    ----------
    log_bias : array (I, J[, K]), finite

    Returns
    -------
    LogField on the image's grid; its domain is that of the voxels' centres
    """
    found = np.asarray(coefficients(jnp.asarray(log_bias, jnp.float32)))
    for axis, n in enumerate(found.shape):
        width = [(0, 0)] * found.ndim
        width[axis] = (1, 1)
        found = np.pad(found, width, mode="reflect" if n > 1 else "edge")
    ones = (1.0,) * found.ndim
    return LogField(found, 3, (0.0,) * found.ndim, ones, tuple(n - 1.0 for n in log_bias.shape))


def at_voxels(log_field: LogField, to_field: np.ndarray, shape: Sequence[int]) -> Placed:
    """Evaluate a log field at the voxels of another image.

    Parameters
    ----------
    log_field : LogField of two or three axes
    to_field : array (4, 4), from a voxel of the other image to a voxel of the field's image
    shape : (I, J, K) of the other image

    Returns
    -------
    Placed, with an array of this shape
    """
    log_field = _of_three_axes(log_field)
    matrix, offset = np.asarray(to_field, np.float64)[:3, :3], np.asarray(to_field)[:3, 3]
    axes = _parallel_axes(matrix, shape)
    if axes is None:
        return _at_points(log_field, matrix, offset, shape)
    voxels = [matrix[d, a] * np.arange(shape[a]) + offset[d] for d, a in enumerate(axes)]
    inside = [_inside(log_field, d, at) for d, at in enumerate(voxels)]
    n_inside = int(np.prod([each.sum() for each in inside], dtype=np.int64))
    values = sample(log_field, voxels).transpose(np.argsort(axes))
    return Placed(values, int(np.prod(shape, dtype=np.int64)) - n_inside)


def _of_three_axes(log_field: LogField) -> LogField:
    """Return a field of two axes as one that is the same everywhere on a third axis."""
    if log_field.lattice.ndim == 3:
        return log_field
    lattice = np.repeat(np.asarray(log_field.lattice)[..., None], log_field.order + 1, axis=-1)
    places = zip((log_field.first, log_field.step, log_field.clamp), (0.5, 0.0, 1.0), strict=True)
    return LogField(lattice, log_field.order, *((*each, more) for each, more in places))


def _parallel_axes(matrix: np.ndarray, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return, for each axis of the field, the parallel axis of the image; None if there is none.

    Axes of the image that have one voxel are parallel to anything.
    """
    moved = np.abs(matrix) * (np.asarray(shape) - 1)
    axes = tuple(int(a) for a in np.argmax(np.abs(matrix), axis=1))
    if len(set(axes)) < 3:
        return None
    moved[range(3), axes] = 0
    return axes if moved.max() < ALIGNED else None


def _inside(log_field: LogField, axis: int, voxels: np.ndarray) -> np.ndarray:
    """Return which positions, in voxels of the field's image, its domain contains.

    A voxel belongs to the domain up to its border, half a voxel from its centre.
    """
    step = log_field.step[axis]
    position, border = log_field.first[axis] + step * voxels, abs(step) / 2 + 1e-6
    inside: np.ndarray = (position >= -border) & (position <= log_field.clamp[axis] + border)
    return inside


def _at_points(
    log_field: LogField, matrix: np.ndarray, offset: np.ndarray, shape: Sequence[int]
) -> Placed:
    """Evaluate voxel by voxel, a fixed number of points at a time."""
    n = int(np.prod(shape, dtype=np.int64))
    found, n_outside = np.empty(n, np.float32), 0
    lattice = jnp.asarray(log_field.lattice, jnp.float32)
    for start in range(0, n, POINTS):
        stop = min(start + POINTS, n)
        index = np.stack(np.unravel_index(np.arange(start, stop), tuple(shape)))
        voxels = matrix @ index + offset[:, None]
        inside = np.ones(stop - start, bool)
        points = np.zeros((POINTS, 3), np.float32)
        for d, at in enumerate(voxels):
            inside &= _inside(log_field, d, at)
            position = np.clip(log_field.first[d] + log_field.step[d] * at, 0, log_field.clamp[d])
            points[: stop - start, d] = position + (log_field.order - 1) / 2
        found[start:stop] = np.asarray(_sampled(lattice, points, log_field.order))[: stop - start]
        n_outside += int((~inside).sum())
    return Placed(found.reshape(tuple(shape)), n_outside)


@functools.partial(jax.jit, static_argnames="order")
def _sampled(lattice: jax.Array, points: jax.Array, order: int) -> Any:
    return sample_flagged(lattice, points, degree=order, boundary="none").values
