"""Interpolation by B-splines of any degree, differentiable in the points and in the data.

The model is s(x) = sum over k of c[k] prod over axes a of B_d(x_a - k_a), with the centred uniform
B-spline B_d (Unser, IEEE Signal Processing Magazine 16(6), 1999). The coefficients c are found by
one small matrix per axis, so every degree and boundary rule is treated alike.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy.interpolate

from n4ax_bids.arguments import is_among, shown
from n4ax_bids.core.bspline import basis

Boundary = Literal["reflect", "clamp", "none", "wrap"]
BOUNDARIES: tuple[str, ...] = get_args(Boundary)
MOST_UNROLLED = 32
"""taps of a point that are written out in the program; beyond, the taps of the first axes are
loops, which keeps the program small"""
MOST_IN_FLOAT32 = 5
"""highest degree whose coefficients are found in float32; beyond, they are so much larger than the
data that the rounding of the products would be seen"""


class Sampled(NamedTuple):
    """Values at points, and which points lie on the grid."""

    values: jax.Array
    valid: jax.Array
    """bool; False outside [0, n-1] on an axis that does not wrap"""


def rules(boundary: Any, n_axes: int) -> tuple[str, ...]:
    """Return the boundary rule of each axis.

    Parameters
    ----------
    boundary : a rule for all axes, or one for each
    n_axes : int

    Raises
    ------
    ValueError
        If a rule is unknown, or there are not as many as axes.
    """
    each = (boundary,) * n_axes if isinstance(boundary, str) else tuple(boundary)
    if len(each) != n_axes or not all(is_among(rule, BOUNDARIES) for rule in each):
        words = ", ".join(BOUNDARIES)
        raise ValueError(f"boundary is {shown(boundary)}; expected {words}, or one for each axis")
    return each


def require_degree(degree: Any) -> None:
    """Raise a ValueError unless the degree is a whole number of at least 0."""
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 0:
        raise ValueError(f"degree is {shown(degree)}; expected a whole number of at least 0")


def folded(index: Any, n: int, rule: str) -> Any:
    """Map an index beyond a grid of n points to the coefficient that the rule puts there."""
    if rule == "wrap":
        return index % n
    if rule == "reflect" and n > 1:
        period = 2 * (n - 1)
        return n - 1 - abs(n - 1 - index % period)
    return index.clip(0, n - 1)


@functools.lru_cache(maxsize=256)
def spline_matrix(n: int, degree: int, rule: str) -> np.ndarray:
    """Return the values of each coefficient's spline at the grid points of one axis.

    Returns
    -------
    array (n, n), float64, points × coefficients; the rows sum to 1
    """
    if rule == "clamp":
        _require_length(n, degree)
        knots = _knot(np.arange(n + degree + 1), n, degree)
        points = np.arange(n, dtype=np.float64)
        return scipy.interpolate.BSpline.design_matrix(points, knots, degree).toarray()
    matrix = np.zeros((n, n))
    rows = np.arange(n)
    for offset in range(-degree, degree + 1):
        weight = float(basis(np.array(float(offset)), degree))
        np.add.at(matrix, (rows, folded(rows + offset, n, rule)), weight)
    return matrix


@functools.lru_cache(maxsize=256)
def prefilter_matrix(n: int, degree: int, rule: str) -> np.ndarray:
    """Return the matrix that turns the data of one axis into coefficients: float64 (n, n)."""
    if degree < 2 and rule != "clamp":
        return np.eye(n)
    if rule == "none":
        raise ValueError(
            f"boundary none with degree {degree} cannot interpolate; expected prefilter=False, or "
            "the boundary reflect, clamp or wrap"
        )
    matrix = spline_matrix(n, degree, rule)
    if np.linalg.cond(matrix) > 1e10:  # a short periodic axis of even length and high degree
        raise ValueError(
            f"an axis of {n} points has no spline of degree {degree} with the boundary {rule}; "
            "expected a lower degree"
        )
    return np.linalg.inv(matrix)


def coefficients(
    data: Any,
    *,
    degree: int = 3,
    boundary: Any = "reflect",
    prefilter: bool = True,
    n_axes: int | None = None,
) -> jax.Array:
    """Return the coefficients of the spline through the data.

    Parameters
    ----------
    data : array (n1, ..., nD) or (n1, ..., nD, channels)
    degree : int, >= 0
    boundary : "reflect", "clamp", "none" or "wrap", or one for each axis
    prefilter : if False, the data themselves are the coefficients; the spline then smooths
    n_axes : D; default: as many as `data` has

    Returns
    -------
    array like `data`, float32 or float64
    """
    data = jnp.asarray(data)
    data = data.astype(jnp.promote_types(data.dtype, jnp.float32))
    n_axes = data.ndim if n_axes is None else n_axes
    require_degree(degree)
    each = rules(boundary, n_axes)
    if not prefilter:
        return data
    matrices = [
        prefilter_matrix(n, degree, rule)
        for n, rule in zip(data.shape[:n_axes], each, strict=True)
    ]
    if degree <= MOST_IN_FLOAT32 or data.dtype != jnp.float32:
        return apply_matrices(data, matrices)
    return _in_float64(data, tuple(map(_Constant, matrices)))


class _Constant:
    """A matrix as a constant of a program; those of `prefilter_matrix` are one object each."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _in_float64(data: jax.Array, constants: tuple[_Constant, ...]) -> jax.Array:
    """Multiply the axes of a float32 array by matrices in float64; differentiable in reverse."""
    with jax.enable_x64(True):
        wide = apply_matrices(data.astype(jnp.float64), [each.matrix for each in constants])
        return wide.astype(jnp.float32)


def _forward(data: jax.Array, constants: tuple[_Constant, ...]) -> tuple[jax.Array, None]:
    return _in_float64(data, constants), None


def _backward(constants: tuple[_Constant, ...], _: None, cotangent: jax.Array) -> tuple[jax.Array]:
    return (_in_float64(cotangent, tuple(_Constant(each.matrix.T) for each in constants)),)


_in_float64.defvjp(_forward, _backward)


def apply_matrices(data: jax.Array, matrices: Sequence[np.ndarray | jax.Array]) -> jax.Array:
    """Multiply each of the first axes of an array by a matrix (m, n)."""
    for axis, matrix in enumerate(matrices):
        if isinstance(matrix, np.ndarray) and np.array_equal(matrix, np.eye(len(matrix))):
            continue
        product = jnp.tensordot(
            jnp.asarray(matrix, data.dtype), data, (1, axis), precision=jax.lax.Precision.HIGHEST
        )
        data = jnp.moveaxis(product, 0, axis)
    return data


def weights(points: Any, degree: int) -> list[Any]:
    """Return the weights of the degree + 1 taps of a uniform spline, by Cox and de Boor.

    Parameters
    ----------
    points : array, in voxels

    Returns
    -------
    list of degree + 1 arrays like `points`; each is >= 0, and they sum to 1
    """
    return _uniform(points, degree)[1]


def _uniform(x: jax.Array, degree: int) -> tuple[jax.Array, list[jax.Array]]:
    """Return the first tap and the weights of all taps at positions of one axis."""
    shifted = x if degree % 2 else x + 0.5
    floor = jnp.floor(shifted)
    u = shifted - floor
    found = [jnp.ones_like(u)]
    for d in range(1, degree + 1):
        nothing = jnp.zeros_like(u)
        lower, upper = [nothing, *found], [*found, nothing]
        found = [((u + d - j) * lower[j] + (1 - u + j) * upper[j]) / d for j in range(d + 1)]
    return floor.astype(jnp.int32) - degree // 2, found


def _knot(k: Any, n: int, degree: int) -> Any:
    """Return knot k of the open knot vector: ends repeated, interior knots half a degree back."""
    xp = np if isinstance(k, np.ndarray) else jnp
    return xp.where(k <= degree, 0.0, xp.where(k >= n, n - 1.0, k - (degree + 1) / 2))


def _clamped(x: jax.Array, n: int, degree: int) -> tuple[jax.Array, list[jax.Array]]:
    """Return the first tap and the weights for the open knot vector."""
    _require_length(n, degree)
    k = jnp.clip(jnp.floor(x + (degree + 1) / 2), degree, n - 1).astype(jnp.int32)
    found = [jnp.ones_like(x)]
    for d in range(1, degree + 1):
        lower = [x - _knot(k + 1 - j, n, degree).astype(x.dtype) for j in range(d, 0, -1)]
        upper = [_knot(k + j, n, degree).astype(x.dtype) - x for j in range(1, d + 1)]
        parts = [found[r] / (upper[r] + lower[r]) for r in range(d)]
        found = [
            *(upper[r] * parts[r] + (lower[r - 1] * parts[r - 1] if r else 0) for r in range(d)),
            lower[d - 1] * parts[d - 1],
        ]
    return k - degree, found


def _require_length(n: int, degree: int) -> None:
    if n <= degree:
        raise ValueError(
            f"an axis of {n} points with the boundary clamp; expected more than degree {degree}"
        )


def _taps(x: jax.Array, n: int, degree: int, rule: str) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the indices and the weights of all taps on a padded axis of n points."""
    if rule == "clamp":
        first, found = _clamped(x, n, degree)
        return [first + j for j in range(degree + 1)], found
    if rule == "none":
        half = (degree - 1) / 2
        x = jnp.clip(x, half, max(n - 1 - half, half))
    elif rule == "wrap":
        x = x % n
    first, found = _uniform(x, degree)
    start = first + margin(degree, rule)
    if rule == "none":
        return [(start + j).clip(0, n - 1) for j in range(degree + 1)], found
    return [start + j for j in range(degree + 1)], found


def margin(degree: int, boundary: str) -> int:
    """Return by how many coefficients each end of an axis is padded before it is sampled."""
    return degree // 2 + 1 if boundary in ("reflect", "wrap") else 0


def padded_rows(n: int, degree: int, rule: str) -> np.ndarray:
    """Return which coefficient each one of a padded axis is: int (n + 2 margin,)."""
    more = margin(degree, rule)
    found: np.ndarray = folded(np.arange(-more, n + more), n, rule)
    return found


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
    n_axes = points.shape[-1]
    require_degree(degree)
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
    taps = [_taps(safe[..., a], shape[a], degree, each[a]) for a in range(n_axes)]
    values = _summed(padded, taps)
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


def _summed(coefficients: jax.Array, taps: list[tuple[list[jax.Array], list[jax.Array]]]) -> Any:
    """Sum the coefficients of all taps with their weights."""
    n_axes, shape = len(taps), coefficients.shape[: len(taps)]
    flat = coefficients.reshape(-1, *coefficients.shape[n_axes:])
    strides = [int(np.prod(shape[a + 1 :], dtype=np.int64)) for a in range(n_axes)]
    channels = coefficients.ndim - n_axes

    def weighted(weight: jax.Array, part: jax.Array) -> jax.Array:
        return weight.reshape(weight.shape + (1,) * channels) * part

    def total(axis: int, start: jax.Array) -> jax.Array:
        """Sum the taps of this axis and of those after it, for one tap of each axis before."""
        if axis == n_axes:
            return flat.at[start].get(mode="promise_in_bounds")
        indices, found = taps[axis]

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

    return total(0, jnp.zeros_like(taps[0][0][0]))


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
        require_degree(degree)
        self.degree, self.fill, self.n_axes = degree, float(fill), n_axes
        self.boundary = rules(boundary, n_axes)
        self.coefficients = _coefficients(
            data, degree=degree, boundary=self.boundary, prefilter=bool(prefilter), n_axes=n_axes
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
