"""The spline of the field on the grid of blocks: bases, and the penalty of its curvature."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from n4ax_bids.core.bspline import basis, basis_matrix
from n4ax_bids.core.field import LogField
from n4ax_bids.core.tissue.blocks import Blocks

ORDER = 3
PENALISED = 3
"""order of the derivatives that are penalised: quadratic fields are free"""
MOST = 2000
"""control points; the equations are dense"""
LEAST = 3
"""blocks of an axis along which the field may change"""


class Spline(NamedTuple):
    """A cubic spline on the box of the blocks that are used."""

    lower: tuple[int, ...]
    """first block of the box on each axis"""
    upper: tuple[int, ...]
    """block after the last one"""
    spans: tuple[int, ...]
    """knot spacings on each axis"""
    flat: tuple[bool, ...]
    """whether the field is constant along an axis, because it has few blocks"""
    bases: tuple[np.ndarray, ...]
    """(blocks of the box, control points) of each axis; one control point for a flat one"""
    penalty: np.ndarray
    """(K, K), mean over the box of the squared derivatives of order 3, per mm^6"""

    @property
    def points(self) -> tuple[int, ...]:
        """Control points on each axis that are estimated."""
        return tuple(basis.shape[1] for basis in self.bases)

    @property
    def box(self) -> tuple[slice, ...]:
        """The box, as slices of arrays of blocks."""
        return tuple(map(slice, self.lower, self.upper))


def spline_of(blocks: Blocks, knots: float) -> Spline:
    """Return the spline with knots about `knots` mm apart.

    Raises
    ------
    ValueError
        If that would need too many control points.
    """
    used = [
        np.flatnonzero(blocks.ok.any(axis=tuple(a for a in range(blocks.ok.ndim) if a != axis)))
        for axis in range(blocks.ok.ndim)
    ]
    lower = tuple(int(each[0]) for each in used)
    upper = tuple(int(each[-1]) + 1 for each in used)
    sizes = [high - low for low, high in zip(lower, upper, strict=True)]
    mm = [size * step for size, step in zip(sizes, blocks.mm, strict=True)]
    flat = tuple(size < LEAST for size in sizes)
    spans = tuple(
        1 if even else max(1, round(length / knots)) for length, even in zip(mm, flat, strict=True)
    )
    n_points = math.prod(span + ORDER for span in spans)
    if n_points > MOST:
        raise ValueError(
            f"knots is {knots:g} mm, which needs {n_points} control points; expected a larger "
            f"distance, for at most {MOST}"
        )
    bases = tuple(
        np.ones((size, 1))
        if even
        else basis_matrix((np.arange(size) + 0.5) / size * span, span + ORDER, ORDER)
        for size, span, even in zip(sizes, spans, flat, strict=True)
    )
    return Spline(lower, upper, spans, flat, bases, _penalty(spans, mm, flat))


def log_field(spline: Spline, lattice: np.ndarray, factors: Sequence[int]) -> LogField:
    """Return the field on the grid of the image's voxels.

    Parameters
    ----------
    spline : Spline
    lattice : array of `spline.points`
    factors : voxels of a block on each axis
    """
    first, step = [], []
    for low, high, span, factor in zip(
        spline.lower, spline.upper, spline.spans, factors, strict=True
    ):
        per_block = span / (high - low)
        step.append(per_block / factor)
        first.append((0.5 / factor - low) * per_block)
    clamp = tuple(float(span) for span in spline.spans)
    lattice = np.broadcast_to(lattice, [span + ORDER for span in spline.spans])
    return LogField(lattice.astype(np.float32), ORDER, tuple(first), tuple(step), clamp)


def _penalty(spans: Sequence[int], mm: Sequence[float], flat: Sequence[bool]) -> np.ndarray:
    """Return the matrix R of c'Rc = mean over the box of all squared third derivatives."""
    n_axes = len(spans)
    grams = [
        [np.full((1, 1), length if order == 0 else 0.0) for order in range(PENALISED + 1)]
        if even
        else _grams(span, length / span)
        for span, length, even in zip(spans, mm, flat, strict=True)
    ]
    n_points = math.prod(len(gram[0]) for gram in grams)
    found = np.zeros((n_points, n_points))
    for orders in itertools.product(range(PENALISED + 1), repeat=n_axes):
        if sum(orders) != PENALISED:
            continue
        factor = math.factorial(PENALISED) / math.prod(map(math.factorial, orders))
        term: np.ndarray = np.ones((1, 1))
        for gram, order in zip(grams, orders, strict=True):
            term = np.kron(term, gram[order])
        found += factor * term
    return found / math.prod(mm)


def _grams(span: int, spacing: float) -> list[np.ndarray]:
    """Return, for each order up to 3, the integrals of products of derivatives, in mm."""
    nodes, weights = np.polynomial.legendre.leggauss(ORDER + 1)
    places = (np.arange(span)[:, None] + (nodes + 1) / 2).ravel()
    weight = np.tile(weights / 2, span) * spacing
    found = []
    for order in range(PENALISED + 1):
        values = _derivative(places, span + ORDER, order) / spacing**order
        found.append((values * weight[:, None]).T @ values)
    return found


def _derivative(places: np.ndarray, n_points: int, order: int) -> np.ndarray:
    """Return a derivative of each control point's spline, per knot spacing.

    The derivative of B_p is the difference of two splines of order p - 1, half a spacing apart.
    """
    away = places[:, None] - (np.arange(n_points) - (ORDER - 1) / 2)
    shifts = np.arange(order + 1) - order / 2
    signs = [(-1) ** k * math.comb(order, k) for k in range(order + 1)]
    return sum(
        sign * basis(away - shift, ORDER - order)
        for sign, shift in zip(signs, shifts, strict=True)
    )
