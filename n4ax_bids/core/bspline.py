"""Uniform B-splines on a lattice of control points: basis, fit, refinement, evaluation.

A tensor-product spline is linear in its control points, so each operation is one small matrix
per axis. The matrices are made on the host in float64 and applied axis by axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import jax
import jax.numpy as jnp
import numpy as np

ALMOST_ZERO = 0.1 * float(np.finfo(np.float32).eps)
"""ITK's float comparison with 0: a control point whose weight is not above this gets 0."""


def basis(x: np.ndarray, order: int) -> np.ndarray:
    """Evaluate the centred uniform B-spline of the given order.

    The recursion of Cox and de Boor for equidistant knots,
    B_p(x) = [((p+1)/2 + x) B_{p-1}(x + 1/2) + ((p+1)/2 - x) B_{p-1}(x - 1/2)] / p,
    starting from B_0 = 1 on [-1/2, 1/2).

    Parameters
    ----------
    x : array, in knot spacings
    order : int, >= 0

    Returns
    -------
    array like `x`, float64; zero for |x| >= (order + 1)/2
    """
    x = np.asarray(x, np.float64)
    if order == 0:
        return ((x >= -0.5) & (x < 0.5)).astype(np.float64)
    half = (order + 1) / 2
    lower, upper = basis(x + 0.5, order - 1), basis(x - 0.5, order - 1)
    return ((half + x) * lower + (half - x) * upper) / order


def basis_matrix(position: np.ndarray, n_control_points: int, order: int) -> np.ndarray:
    """Return the weight of every control point at each position of one axis.

    Control point c has weight B_p(t - c + (p-1)/2) at t, the span from knot 0 to knot 1 being
    governed by control points 0..p.

    Parameters
    ----------
    position : array (n,), t in knot spacings, within [0, n_control_points - order]
    n_control_points : int
    order : int

    Returns
    -------
    array (n, n_control_points), float64; the rows sum to 1
    """
    centre = np.arange(n_control_points) - (order - 1) / 2
    return basis(np.asarray(position, np.float64)[:, None] - centre, order)


def fit_matrices(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one axis' factors of the numerator and the denominator of the Lee fit.

    Lee, Wolberg and Shin (1997) weigh point i for control point c by T_ic^2 and give it the
    value r_i T_ic / W_i with W_i = sum_c T_ic^2. For tensor-product weights T both are products
    over the axes: T^3 / W of B^3 / sum B^2, and T^2 of B^2.

    Parameters
    ----------
    matrix : array (n, m), from `basis_matrix`

    Returns
    -------
    numerator, denominator : arrays (n, m)
    """
    square = matrix**2
    return matrix * square / square.sum(axis=1, keepdims=True), square


def contract(array: jax.Array, matrices: Sequence[jax.Array]) -> jax.Array:
    """Sum an array on the voxel grid over its first axes against one matrix for each.

    Parameters
    ----------
    array : array (n_1, ..., n_D, ...)
    matrices : D arrays (n_d, m_d)

    Returns
    -------
    array (m_1, ..., m_D, ...)
    """
    # The last axis goes first: it is contiguous.
    for axis in reversed(range(len(matrices))):
        array = along(array, matrices[axis], axis)
    return array


def expand(lattice: jax.Array, matrices: Sequence[jax.Array]) -> jax.Array:
    """Evaluate the first axes of a lattice where one basis matrix for each is given.

    Parameters
    ----------
    lattice : array (m_1, ..., m_D, ...)
    matrices : D arrays (n_d, m_d)

    Returns
    -------
    array (n_1, ..., n_D, ...)
    """
    for axis, matrix in enumerate(matrices):
        lattice = along(lattice, matrix.T, axis)
    return lattice


def along(array: jax.Array, matrix: jax.Array, axis: int) -> jax.Array:
    """Sum one axis of an array, of length n, against a matrix (n, m), which takes its place."""
    summed = jax.lax.dot_general(
        array,
        matrix,
        (((axis,), (0,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=array.dtype,
    )
    return jnp.moveaxis(summed, -1, axis)


def first_summed(matrix: jax.Array, array: jax.Array) -> jax.Array:
    """Sum the first axis of an array against a matrix (n, m); it stays the first axis."""
    return jax.lax.dot_general(
        matrix,
        array,
        (((0,), (0,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=array.dtype,
    )


def quotient(delta: jax.Array, weight_sum: jax.Array) -> jax.Array:
    """Return the control points of the fit of Lee, Wolberg and Shin (1997).

    phi_c = sum_i w_i r_i T_ic^3 / W_i / sum_i w_i T_ic^2, and 0 where the last sum is not above
    `ALMOST_ZERO`, as in ITK.

    Parameters
    ----------
    delta : array (m_1, ..., m_D), `contract(w·r, numerators)`
    weight_sum : array like `delta`, `contract(w, denominators)`

    Returns
    -------
    array like `delta`
    """
    known = weight_sum > ALMOST_ZERO
    return jnp.where(known, delta / jnp.where(known, weight_sum, 1), 0)


def refinement_matrix(n_control_points: int, order: int) -> np.ndarray:
    """Return the matrix that halves the knot spacing of one axis and keeps the function.

    The two-scale relation: new[q] = 2^-p sum_k C(p+1, q - 2k + p) old[k].

    Parameters
    ----------
    n_control_points : int, m
    order : int, p

    Returns
    -------
    array (2m - p, m), float64
    """
    matrix = np.zeros((2 * n_control_points - order, n_control_points))
    for new in range(matrix.shape[0]):
        for old in range(n_control_points):
            k = new - 2 * old + order
            if 0 <= k <= order + 1:
                matrix[new, old] = comb(order + 1, k) / 2**order
    return matrix


def refine(lattice: np.ndarray, order: int) -> np.ndarray:
    """Double the number of spans on every axis without changing the function; on the host.

    Parameters
    ----------
    lattice : array (m_1, ..., m_D)
    order : int

    Returns
    -------
    array (2 m_1 - order, ..., 2 m_D - order), in the dtype of `lattice`
    """
    refined = np.asarray(lattice, np.float64)
    for axis, m in enumerate(lattice.shape):
        refined = np.tensordot(refined, refinement_matrix(m, order), (axis, 1))
        refined = np.moveaxis(refined, -1, axis)
    return refined.astype(lattice.dtype)
