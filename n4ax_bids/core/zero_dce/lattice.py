"""The field fit: weighted least squares of a cubic B-spline in mm, on the grid of blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import linalg

from n4ax_bids.core.bspline import basis_matrix
from n4ax_bids.core.field import LogField

ORDER = 3
MOST = 3000
"""control points; the equations are dense"""
STIFFNESS = 1e-4
"""weight of second differences of the lattice, relative to the mean weight of a control point"""


def fitted(
    values: np.ndarray,
    weight: np.ndarray,
    centres: Sequence[np.ndarray],
    shape: Sequence[int],
    zooms: Sequence[float],
    spacing: float,
    stiffness: float = STIFFNESS,
) -> LogField:
    """Fit a cubic spline with knots `spacing` mm apart, and subtract its weighted mean.

    Parameters
    ----------
    values : array (n_1, ..., n_D), samples of ln of the field
    weight : array like `values`, >= 0
    centres : for each axis (n_d,), places of the samples in voxels of the image
    shape, zooms : of the image
    spacing : mm

    Returns
    -------
    LogField on the image's grid

    Raises
    ------
    ValueError
        If the spacing would need too many control points.
    """
    spans = [m - ORDER for m in points(shape, zooms, spacing)]
    sizes = [span + ORDER for span in spans]
    step = [mm / spacing for mm in zooms]
    first = [(span - (n - 1) * s) / 2 for span, n, s in zip(spans, shape, step, strict=True)]
    matrices = [
        basis_matrix(np.clip(f + s * c, 0, span), m, ORDER)
        for f, s, c, span, m in zip(first, step, centres, spans, sizes, strict=True)
    ]
    weight = np.asarray(weight, np.float64)
    weight = weight / weight.sum()
    normal = _normal(weight, matrices) + _stiff(sizes, stiffness)
    right = _sums(weight * values, matrices).ravel()
    lattice = linalg.solve(normal, right, assume_a="pos").reshape(sizes)
    mean = float((_sums(weight, matrices) * lattice).sum())
    clamp = tuple(float(span) for span in spans)
    lattice = np.asarray(lattice - mean, np.float32)
    return LogField(lattice, ORDER, tuple(first), tuple(step), clamp)


def points(shape: Sequence[int], zooms: Sequence[float], spacing: float) -> tuple[int, ...]:
    """Return the control points on each axis; errors as `fitted`."""
    spans = (max(1, math.ceil((n - 1) * mm / spacing)) for n, mm in zip(shape, zooms, strict=True))
    found = tuple(span + ORDER for span in spans)
    if math.prod(found) > MOST:
        raise ValueError(
            f"field_spacing is {spacing:g} mm, which needs {math.prod(found)} control points; "
            f"expected a larger one, for at most {MOST}"
        )
    return found


def _sums(values: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Sum the first axes of `values` against one matrix for each; the results go last."""
    for matrix in matrices:
        values = np.tensordot(values, matrix, (0, 0))
    return values


def _normal(weight: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Return Σ w·b_i·b_j for all pairs of control points, axis by axis."""
    pairs = [np.einsum("na,nb->nab", m, m).reshape(len(m), -1) for m in matrices]
    sums = _sums(weight, pairs)
    sizes = [m.shape[1] for m in matrices]
    split = sums.reshape([n for size in sizes for n in (size, size)])
    axes = range(0, 2 * len(sizes), 2)
    whole = math.prod(sizes)
    return split.transpose(*axes, *(a + 1 for a in axes)).reshape(whole, whole)


def _stiff(points: Sequence[int], stiffness: float) -> np.ndarray:
    """Return the penalty of second differences along each axis, and a trace of a ridge."""
    whole = math.prod(points)
    penalty = 1e-6 * np.eye(whole)
    for axis, n in enumerate(points):
        second = np.diff(np.eye(n), 2, axis=0)
        factors = [np.eye(m) for m in points]
        factors[axis] = second.T @ second
        grown: np.ndarray = np.eye(1)
        for factor in factors:
            grown = np.kron(grown, factor)
        penalty += grown
    return stiffness / whole * penalty
