"""The coefficients of the spline through data: one small matrix for each axis.

The matrices are those of `n4ax_bids.core.spline_basis`, in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.bspline import expand
from n4ax_bids.core.spline_basis import prefilter_matrix, rules, whole_degree

MOST_IN_FLOAT32 = 5
"""highest degree whose coefficients are found in float32; beyond, they are so much larger than the
data that the rounding of the products would be seen"""


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
    degree = whole_degree(degree)
    each = rules(boundary, n_axes)
    if not prefilter or degree < 2:
        return data
    matrices = [
        prefilter_matrix(n, degree, rule)
        for n, rule in zip(data.shape[:n_axes], each, strict=True)
    ]
    if degree <= MOST_IN_FLOAT32 or data.dtype != jnp.float32:
        return apply_matrices(data, matrices)
    return _in_float64(data, matrices)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _in_float64(data: jax.Array, matrices: list[np.ndarray]) -> jax.Array:
    """Multiply the axes of a float32 array by matrices in float64; differentiable in reverse."""
    with jax.enable_x64(True):
        return apply_matrices(data.astype(jnp.float64), matrices).astype(jnp.float32)


def _forward(data: jax.Array, matrices: list[np.ndarray]) -> tuple[jax.Array, None]:
    return _in_float64(data, matrices), None


def _backward(matrices: list[np.ndarray], _: None, cotangent: jax.Array) -> tuple[jax.Array]:
    return (_in_float64(cotangent, [matrix.T for matrix in matrices]),)


_in_float64.defvjp(_forward, _backward)


def apply_matrices(data: jax.Array, matrices: Sequence[np.ndarray | jax.Array]) -> jax.Array:
    """Multiply each of the first axes of an array by a matrix (m, n)."""
    return expand(data, [jnp.asarray(matrix, data.dtype) for matrix in matrices])
