import numpy as np
import pytest
from scipy.interpolate import BSpline

from n4ax_bids.core import bspline

ORDERS = (1, 2, 3, 4)


def positions(spans, n=57):
    return np.linspace(0, spans, n)


@pytest.mark.parametrize("order", (0, *ORDERS, 5))
def test_basis_equals_scipy(order):
    knots = np.arange(order + 2) - (order + 1) / 2
    x = np.linspace(-4, 4, 1001)
    expected = np.nan_to_num(BSpline.basis_element(knots, extrapolate=False)(x))
    np.testing.assert_allclose(bspline.basis(x, order), expected, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_partition_of_unity(order):
    matrix = bspline.basis_matrix(positions(5), 5 + order, order)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    assert matrix.min() >= 0


def test_cubic_is_reproduced():
    """A cubic polynomial lies in the space of cubic splines."""
    t = positions(4)
    matrix = bspline.basis_matrix(t, 7, 3)
    cubic = 0.3 * t**3 - t**2 + 2 * t - 1
    points = np.linalg.lstsq(matrix, cubic, rcond=None)[0]
    np.testing.assert_allclose(matrix @ points, cubic, atol=1e-10)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(5, 6), (4, 7, 6)])
def test_refinement_keeps_the_function(order, shape):
    """Bound of the acceptance list; float32 lattices of size 1."""
    rng = np.random.default_rng(order)
    spans = np.array(shape)
    lattice = rng.uniform(-1, 1, spans + order).astype(np.float32)
    coarse = [bspline.basis_matrix(positions(s, 23), s + order, order) for s in spans]
    fine = [bspline.basis_matrix(2 * positions(s, 23), 2 * s + order, order) for s in spans]
    refined = bspline.refine(lattice, order)
    assert refined.shape == tuple(2 * spans + order)
    as_float32 = [[m.astype(np.float32) for m in group] for group in (coarse, fine)]
    before = bspline.expand(lattice, as_float32[0])
    after = bspline.expand(refined, as_float32[1])
    np.testing.assert_allclose(after, before, atol=1e-6)


def plain_lee_fit(residual, weight, matrices):
    """Voxel by voxel, control point by control point, as in the paper of Lee et al."""
    lattice_shape = tuple(m.shape[1] for m in matrices)
    delta, omega = np.zeros(lattice_shape), np.zeros(lattice_shape)
    for voxel in np.ndindex(residual.shape):
        if weight[voxel] == 0:
            continue
        rows = [m[k] for m, k in zip(matrices, voxel, strict=True)]
        t = np.einsum("i,j,k->ijk", *rows)
        delta += weight[voxel] * residual[voxel] * t**3 / np.sum(t**2)
        omega += weight[voxel] * t**2
    return np.where(omega > 1.19e-8, delta / np.where(omega > 0, omega, 1), 0)


@pytest.mark.parametrize("order", ORDERS)
def test_separable_fit_equals_plain_lee_fit(order):
    rng = np.random.default_rng(order)
    shape, points = (16, 16, 16), (order + 2, order + 1, order + 4)
    matrices = [
        bspline.basis_matrix(positions(m - order, n), m, order)
        for n, m in zip(shape, points, strict=True)
    ]
    residual = rng.normal(size=shape).astype(np.float32)
    weight = (rng.uniform(size=shape) * (rng.uniform(size=shape) > 0.4)).astype(np.float32)
    factors = [bspline.fit_matrices(m) for m in matrices]
    numerators, denominators = ([f[which].astype(np.float32) for f in factors] for which in (0, 1))
    fitted = bspline.quotient(
        bspline.contract(weight * residual, numerators), bspline.contract(weight, denominators)
    )
    np.testing.assert_allclose(fitted, plain_lee_fit(residual, weight, matrices), atol=1e-5)


def test_control_point_out_of_reach_is_zero():
    """ITK's float comparison: a weight of up to 1.19e-8 is none."""
    matrices = [bspline.basis_matrix(positions(3, 30), 6, 3)] * 2
    weight = np.zeros((30, 30), np.float32)
    weight[:10, :10] = 1
    factors = [bspline.fit_matrices(m) for m in matrices]
    numerators, denominators = ([f[which].astype(np.float32) for f in factors] for which in (0, 1))
    weight_sum = np.asarray(bspline.contract(weight, denominators))
    fitted = np.asarray(bspline.quotient(bspline.contract(weight, numerators), weight_sum))
    assert (weight_sum == 0).any()
    assert np.isfinite(fitted).all()
    assert (fitted[weight_sum <= 1.19e-8] == 0).all()
    assert (fitted[weight_sum > 1.2e-8] > 0).all()
