"""The splines of one axis: values at the grid points, taps and their weights, what lies beyond.

Everything here concerns one axis alone; `n4ax_bids.core.interpolate` combines the axes.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy.interpolate

from n4ax_bids.arguments import is_among, shown
from n4ax_bids.core.bspline import basis
from n4ax_bids.options.base import require, whole

Boundary = Literal["reflect", "clamp", "none", "wrap"]
BOUNDARIES: tuple[str, ...] = get_args(Boundary)


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


def whole_degree(degree: Any) -> int:
    """Return a degree as an int; raise a ValueError unless it is a whole number of at least 0."""
    found = whole("degree", degree)
    require(found >= 0, "degree", degree, "a whole number of at least 0")
    return found


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


def taps(x: jax.Array, n: int, degree: int, rule: str) -> tuple[list[jax.Array], list[jax.Array]]:
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
