"""The log field: a coarse lattice of B-spline coefficients that can be evaluated anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.raster import values_inside

SLAB = 1 << 18
"""voxels divided at a time: they stay in the processor's cache"""


class LogField(NamedTuple):
    """ln b on a lattice of control points; every estimator returns one.

    Voxel k of an axis lies at t = first + step·k knot spacings, at least 0 and at most `clamp`.
    This describes ANTs' padded box, ITK's stretch after shrinking and physical coordinates.
    """

    lattice: jax.Array | np.ndarray
    """control points, ln of intensity; one axis per image axis"""
    order: int
    """order of the spline"""
    first: tuple[float, ...]
    """position of voxel 0 on each axis, in knot spacings"""
    step: tuple[float, ...]
    """distance of neighbouring voxels on each axis, in knot spacings"""
    clamp: tuple[float, ...]
    """largest position on each axis"""


class Section(NamedTuple):
    """The log field of a part of an image: of some consecutive planes of its first axis."""

    log_field: LogField
    """on the grid of these planes alone; its voxel 0 on axis 0 is plane `start` of the image"""
    start: int
    """first plane"""
    stop: int
    """plane after the last one"""


def transposed(log_field: LogField) -> LogField:
    """Return the same field for an image whose axes are in reverse order."""
    places = (log_field.first, log_field.step, log_field.clamp)
    return LogField(log_field.lattice.T, log_field.order, *(place[::-1] for place in places))


def plane_lattices(log_field: LogField, planes: np.ndarray) -> np.ndarray:
    """Return the two-dimensional lattice of each plane of the first axis, on the host.

    Parameters
    ----------
    log_field : LogField of three axes
    planes : array (n,), indices on the first axis

    Returns
    -------
    array (n, m_1, m_2), float32
    """
    at_planes, *_ = _weights(log_field, [planes, *[np.zeros(0)] * 2])
    near = np.flatnonzero(at_planes.any(axis=0))  # few, if the planes are few
    part = slice(near[0], near[-1] + 1)
    lattice = np.asarray(log_field.lattice[part], np.float64)
    return np.tensordot(at_planes[:, part], lattice, (1, 0)).astype(np.float32)


def basis_matrices(log_field: LogField, box: Sequence[tuple[int, int]]) -> tuple[np.ndarray, ...]:
    """Return, for each axis, the weights of the control points at the voxels of a box."""
    places = zip(log_field.first, log_field.step, log_field.clamp, strict=True)
    shape, order = log_field.lattice.shape, log_field.order
    return tuple(
        _weights_of_axis(*map(float, place), int(n), order, *map(int, ends))
        for place, n, ends in zip(places, shape, box, strict=True)
    )


@lru_cache(maxsize=64)
def _weights_of_axis(
    first: float, step: float, clamp: float, n: int, order: int, start: int, stop: int
) -> np.ndarray:
    """Return the weights at some voxels of an axis; they are not computed again for each image."""
    position = np.clip(first + step * np.arange(start, stop), 0, clamp)
    matrix = bspline.basis_matrix(position, n, order)
    matrix.setflags(write=False)
    return matrix


def _weights(log_field: LogField, voxels: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    return tuple(
        bspline.basis_matrix(
            np.clip(log_field.first[d] + log_field.step[d] * voxels[d], 0, clamp),
            log_field.lattice.shape[d],
            log_field.order,
        )
        for d, clamp in enumerate(log_field.clamp)
    )


def evaluate(log_field: LogField, box: Sequence[tuple[int, int]]) -> jax.Array:
    """Evaluate ln b on a box of voxels.

    Parameters
    ----------
    log_field : LogField
    box : (start, stop) of each axis, in voxels of the image

    Returns
    -------
    array (stop - start of each axis), in the lattice's dtype
    """
    dtype = log_field.lattice.dtype
    matrices = [m.astype(dtype) for m in basis_matrices(log_field, box)]
    return _evaluate(log_field.lattice, matrices)


def sample(log_field: LogField, voxels: Sequence[np.ndarray]) -> np.ndarray:
    """Evaluate ln b on the host at the crossings of given planes of voxels; compile nothing.

    Parameters
    ----------
    log_field : LogField
    voxels : array (n_d,) of each axis, voxel indices in any order

    Returns
    -------
    array (n_1, ..., n_D), float32
    """
    first, *rest = (m.astype(np.float32) for m in _weights(log_field, voxels))
    values = np.asarray(log_field.lattice, np.float32)
    shape = values.shape[1:]
    values = (first @ values.reshape(values.shape[0], -1)).reshape(-1, *shape)
    if len(rest) == 2:
        values = np.matmul(rest[0], values)
    return values @ rest[-1].T


def log_scale(log_bias: Any, mask: Any, field_scale: str) -> Any:
    """Return ln of the mean or median of a field inside a mask.

    Parameters
    ----------
    log_bias : array (I, J[, K]), ln b
    mask : array like `log_bias` (not 0 = inside), or None for all voxels
    field_scale : "mean" or "median"

    Returns
    -------
    float, or an array of no axes if `log_bias` is an array of jax
    """
    if not isinstance(log_bias, np.ndarray):
        log_bias = jnp.asarray(log_bias)
        inside = log_bias.ravel() if mask is None else log_bias[mask != 0]
        if field_scale == "median":
            return jnp.median(inside)
        highest = inside.max()
        return highest + jnp.log(jnp.mean(jnp.exp(inside - highest)))
    # Of masked arrays, all values count. The order matters for the last bit of the sum.
    mask = None if mask is None else np.asarray(mask)
    return scale_of(values_inside(np.asarray(log_bias), mask), field_scale)


def scale_of(inside: np.ndarray, field_scale: str) -> Any:
    """Return ln of the mean or median of a field from ln b inside a mask, in raster order."""
    if field_scale == "median":
        return np.median(inside)
    highest = inside.max()
    shifted = inside - highest
    return highest + np.log(np.mean(np.exp(shifted, out=shifted)))


def at_level(
    log_field: LogField, corrected: Any, log_bias: Any, mask: Any, field_scale: str
) -> tuple[LogField, Any, Any]:
    """Return a field whose mean or median inside a mask is 1, and what belongs to it.

    Arrays of numpy are changed in place.

    Splines that sum to 1 carry a constant exactly, so the lattice is shifted by it.

    Parameters
    ----------
    log_field, corrected, log_bias : a field and what `divide` has returned for it
    mask, field_scale : as in `log_scale`
    """
    level = np.float32(log_scale(log_bias, mask, field_scale))
    scaled = log_field._replace(lattice=log_field.lattice - level)
    if isinstance(corrected, jax.Array):
        return scaled, corrected * np.exp(level), log_bias - level
    with np.errstate(over="ignore"):
        corrected *= np.exp(level)  # in place: whole images are large
    log_bias -= level
    return scaled, corrected, log_bias


@overload
def divide(image: np.ndarray, log_field: LogField) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def divide(image: jax.Array, log_field: LogField) -> tuple[jax.Array, jax.Array]: ...
def divide(
    image: jax.Array | np.ndarray, log_field: LogField
) -> tuple[jax.Array | np.ndarray, jax.Array | np.ndarray]:
    """Divide an image by the field at every voxel: u = v / exp(ln b).

    Parameters
    ----------
    image : array (I, J[, K]), as recorded
    log_field : LogField on the image's grid

    Returns
    -------
    corrected, log_bias : arrays (I, J[, K]), float32; numpy arrays for a numpy image. For a jax
        array this can be transformed by `jit`, `vmap` and `grad`, like `evaluate`.
    """
    return divide_checked(image, log_field)[:2]


def divide_checked(
    image: jax.Array | np.ndarray, log_field: LogField
) -> tuple[jax.Array | np.ndarray, jax.Array | np.ndarray, jax.Array | bool]:
    """Divide as `divide` does, and return also whether every corrected value is finite.

    numpy arrays are checked while their values are in the processor's cache.
    """
    if not isinstance(image, np.ndarray):
        matrices = _whole_matrices(log_field, image.shape)
        lattice = jnp.asarray(log_field.lattice, jnp.float32)
        return _divide(jnp.asarray(image, jnp.float32), lattice, matrices)
    # Arrays read from NIfTI files are in Fortran order: their transpose is no copy.
    finite, turned = True, image.T
    corrected, log_bias = (np.empty(turned.shape, np.float32) for _ in range(2))
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        for slab, field in log_slabs(image.shape, log_field):
            log_bias[slab] = field
            np.divide(turned[slab], np.exp(field), out=corrected[slab])
            # A sum is the cheapest test; it can overflow although every value is finite.
            if not np.isfinite(corrected[slab].sum()):
                finite = finite and bool(np.isfinite(corrected[slab]).all())
    return corrected.T, log_bias.T, finite


def log_slabs(shape: Sequence[int], log_field: LogField) -> Iterator[tuple[slice, np.ndarray]]:
    """Evaluate ln b on the host, a few planes at a time: nothing is compiled for a shape.

    Parameters
    ----------
    shape : of the image
    log_field : LogField on the image's grid

    Yields
    ------
    planes of the image's last axis, and ln b there, whose axes are in reverse order
    """
    first, *others = _whole_matrices(log_field, shape)[::-1]
    lattice = np.asarray(log_field.lattice, np.float32).T
    planes = max(1, SLAB // max(1, math.prod(shape[:-1])))
    for start in range(0, shape[-1], planes):
        slab = slice(start, min(start + planes, shape[-1]))
        field = np.tensordot(first[slab], lattice, (1, 0))
        for axis, matrix in enumerate(others, start=1):
            field = np.moveaxis(np.tensordot(field, matrix, (axis, 1)), -1, axis)
        yield slab, field


def _whole_matrices(log_field: LogField, shape: Sequence[int]) -> list[np.ndarray]:
    return [m.astype(np.float32) for m in basis_matrices(log_field, [(0, n) for n in shape])]


@jax.jit
def _evaluate(lattice: jax.Array, matrices: list[jax.Array]) -> jax.Array:
    return bspline.expand(lattice, matrices)


@jax.jit
def _divide(
    image: jax.Array, lattice: jax.Array, matrices: list[jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    log_bias = bspline.expand(lattice, matrices)
    corrected = image / jnp.exp(log_bias)
    return corrected, log_bias, jnp.isfinite(corrected).all()
