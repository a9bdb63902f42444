"""Interpolation by B-splines of any degree, differentiable in the points and in the data.

The model is s(x) = sum over k of c[k] prod over axes a of B_d(x_a - k_a), with the centred uniform
B-spline B_d (Unser, IEEE Signal Processing Magazine 16(6), 1999). The coefficients c are found by
one small matrix per axis, so every degree and boundary rule is treated alike.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.spline_basis import (
    margin,
    padded_rows,
    rules,
    taps,
    whole_degree,
)
from n4ax_bids.core.spline_coefficients import coefficients

MOST_UNROLLED = 32
"""taps of a point that are written out in the program; beyond, the taps of the first axes are
loops, which keeps the program small"""


class Sampled(NamedTuple):
    """Values at points, and which points lie on the grid."""

    values: jax.Array
    valid: jax.Array
    """bool; False outside [0, n-1] on an axis that does not wrap"""


def valid(points: jax.Array, shape: Sequence[int], boundary: Any = "reflect") -> jax.Array:
    """Return which points (..., D) lie within [0, n-1] on each axis that does not wrap."""
    inside = jnp.isfinite(points).all(axis=-1)
    for axis, rule in enumerate(rules(boundary, len(shape))):
        if rule != "wrap":
            x = points[..., axis]
            inside &= (x >= 0) & (x <= shape[axis] - 1)
    return inside


def sample_flagged(
    coefficients: jax.Array,
    points: jax.Array,
    *,
    degree: int,
    boundary: Any = "reflect",
    fill: float = 0.0,
) -> Sampled:
    """Evaluate a spline at points, and say which of them lie on its grid.

    Parameters
    ----------
    coefficients : array (n1, ..., nD) or (n1, ..., nD, channels)
    points : array (..., D), in voxels
    degree, boundary : as for `coefficients`
    fill : value of points that do not lie on the grid

    Returns
    -------
    Sampled, with values (...) or (..., channels)
    """
    n_axes, degree = points.shape[-1], whole_degree(degree)
    if coefficients.ndim not in (n_axes, n_axes + 1):
        raise ValueError(
            f"points of {n_axes} coordinates on a grid of shape {coefficients.shape}; expected as "
            "many axes, and at most one of channels"
        )
    each, shape = rules(boundary, n_axes), coefficients.shape[:n_axes]
    for axis, rule in enumerate(each):
        if margin(degree, rule):
            rows = padded_rows(shape[axis], degree, rule)
            coefficients = coefficients.take(rows, axis=axis, mode="clip")
    return sample_padded(
        coefficients, points, shape=shape, degree=degree, boundary=each, fill=fill
    )


def sample_padded(
    padded: jax.Array,
    points: jax.Array,
    *,
    shape: Sequence[int],
    degree: int,
    boundary: Any,
    fill: float = 0.0,
) -> Sampled:
    """Evaluate a spline as `sample_flagged`, from coefficients that are padded already.

    Parameters
    ----------
    padded : coefficients whose axes are extended as `padded_rows` says
    shape : of the grid without padding
    """
    n_axes = len(shape)
    each = rules(boundary, n_axes)
    kind = jnp.promote_types(points.dtype, jnp.float32)
    points = points.astype(kind)
    inside = valid(points, shape, each)
    # Points off the grid may be far away, or NaN; they read a voxel that is there.
    safe = jnp.where(inside[..., None], points, jnp.zeros((), kind))
    each_taps = [taps(safe[..., a], shape[a], degree, each[a]) for a in range(n_axes)]
    values = _summed(padded, each_taps)
    keep = inside.reshape(inside.shape + (1,) * (values.ndim - inside.ndim))
    return Sampled(jnp.where(keep, values, jnp.asarray(fill, values.dtype)), inside)


def sample(
    coefficients: jax.Array,
    points: jax.Array,
    *,
    degree: int,
    boundary: Any = "reflect",
    fill: float = 0.0,
) -> jax.Array:
    """Evaluate a spline at points; parameters as `sample_flagged`, which also tells validity."""
    return sample_flagged(coefficients, points, degree=degree, boundary=boundary, fill=fill).values


def _summed(
    coefficients: jax.Array, each_taps: list[tuple[list[jax.Array], list[jax.Array]]]
) -> Any:
    """Sum the coefficients of all taps with their weights."""
    n_axes, shape = len(each_taps), coefficients.shape[: len(each_taps)]
    flat = coefficients.reshape(-1, *coefficients.shape[n_axes:])
    strides = [int(np.prod(shape[a + 1 :], dtype=np.int64)) for a in range(n_axes)]
    channels = coefficients.ndim - n_axes

    def weighted(weight: jax.Array, part: jax.Array) -> jax.Array:
        return weight.reshape(weight.shape + (1,) * channels) * part

    def total(axis: int, start: jax.Array) -> jax.Array:
        """Sum the taps of this axis and of those after it, for one tap of each axis before."""
        if axis == n_axes:
            return flat.at[start].get(mode="promise_in_bounds")
        indices, found = each_taps[axis]

        def part(index: jax.Array, weight: jax.Array) -> jax.Array:
            return weighted(weight, total(axis + 1, start + index * strides[axis]))

        if len(indices) ** (n_axes - axis) <= MOST_UNROLLED or len(indices) == 1:
            return sum(map(part, indices[1:], found[1:]), part(indices[0], found[0]))
        nothing = jnp.zeros(start.shape + coefficients.shape[n_axes:], flat.dtype)
        nothing = nothing.astype(jnp.result_type(found[0], flat))
        return jax.lax.scan(
            lambda sum_, tap: (sum_ + part(*tap), None),
            nothing,
            (jnp.stack(indices), jnp.stack(found)),
        )[0]

    return total(0, jnp.zeros_like(each_taps[0][0][0]))


@functools.partial(jax.jit, static_argnames=("degree", "boundary", "prefilter", "n_axes"))
def _coefficients(data: jax.Array, **options: Any) -> jax.Array:
    return coefficients(data, **options)


@functools.partial(jax.jit, static_argnames=("degree", "boundary", "fill"))
def _sample(c: jax.Array, points: jax.Array, **options: Any) -> Sampled:
    return sample_flagged(c, points, **options)


@jax.tree_util.register_pytree_node_class
class BSpline:
    """A spline through data on a regular grid, to be called at points.

    Parameters
    ----------
    data : array (n1, ..., nD) or, with `n_axes`, (n1, ..., nD, channels)
    degree : int, >= 0; 0 is nearest neighbour, 1 linear
    boundary : what is assumed beyond the grid, for all axes or one for each: "reflect" mirrors
        about the outermost points, "clamp" ends the knots there, "none" stops at the outermost
        complete spline, "wrap" repeats the grid
    prefilter : pass through the data; if False, the data are the coefficients and are smoothed
    n_axes : D; default: as many as `data` has
    fill : value of points off the grid, which are never extrapolated

    Attributes
    ----------
    coefficients : array like `data`

    Raises
    ------
    ValueError
        If degree or boundary does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from n4ax_bids import BSpline
    >>> round(float(BSpline(np.arange(9.0) ** 2)(np.array([[2.5]]))[0]), 2)
    6.25
    """

    def __init__(
        self,
        data: Any,
        degree: int = 3,
        boundary: Any = "reflect",
        *,
        prefilter: bool = True,
        n_axes: int | None = None,
        fill: float = 0.0,
    ) -> None:
        data = jnp.asarray(data)
        n_axes = data.ndim if n_axes is None else n_axes
        if n_axes not in (data.ndim, data.ndim - 1):
            raise ValueError(f"n_axes is {n_axes} for data of shape {data.shape}")
        self.degree, self.fill, self.n_axes = whole_degree(degree), float(fill), n_axes
        self.boundary = rules(boundary, n_axes)
        self.coefficients = _coefficients(
            data,
            degree=self.degree,
            boundary=self.boundary,
            prefilter=bool(prefilter),
            n_axes=n_axes,
        )

    def __call__(self, points: Any) -> jax.Array:
        """Return the values at points (..., D), in voxels."""
        return self.flagged(points).values

    def flagged(self, points: Any) -> Sampled:
        """Return the values at points, and which of them lie on the grid."""
        points = jnp.asarray(points)
        if points.ndim < 1 or points.shape[-1] != self.n_axes:
            raise ValueError(
                f"points of shape {points.shape}; expected (..., {self.n_axes}), in voxels"
            )
        return _sample(
            self.coefficients,
            points,
            degree=self.degree,
            boundary=self.boundary,
            fill=self.fill,
        )

    def tree_flatten(self) -> tuple[tuple[jax.Array], tuple[Any, ...]]:
        """Split into arrays and constants, for jax."""
        return (self.coefficients,), (self.degree, self.boundary, self.n_axes, self.fill)

    @classmethod
    def tree_unflatten(cls, constants: tuple[Any, ...], arrays: tuple[jax.Array]) -> BSpline:
        """Put the parts of `tree_flatten` together."""
        made = object.__new__(cls)
        made.degree, made.boundary, made.n_axes, made.fill = constants
        (made.coefficients,) = arrays
        return made
