"""Splines against scipy and ITK, with unequal axes and unequal fractions on each axis."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate
import SimpleITK as sitk
from scipy.ndimage import map_coordinates

import n4ax_bids
from n4ax_bids.core import interpolate, spline_basis
from n4ax_bids.core.interpolate import BSpline

SHAPE = (9, 11, 13)
GRID = np.stack(np.indices(SHAPE), axis=-1).astype(np.float32)
MODES = {"reflect": "mirror", "wrap": "grid-wrap"}
MOST = {"reflect": 7, "wrap": 5, "clamp": 6}
"""Highest degree of each rule that is tested. The coefficients of white noise are 9e4 times larger
than the noise for clamp and degree 7, where float32 cannot give the data back."""


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(5).uniform(-1, 1, SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def points():
    """Points whose three fractions differ, so that no two axes can be exchanged unseen."""
    found = np.random.default_rng(6).uniform(0, np.array(SHAPE) - 1, (500, 3))
    return found.astype(np.float32)


COMPILED = [*(("reflect", degree) for degree in range(5)), ("clamp", 6)]
"""Splines that the package itself uses, or that are small, or that come close to a bound, are
compiled, as users run them. Others run the same functions step by step, because compiling each of
them takes seconds."""


def as_users_run_it(boundary, degree):
    """Compile, or run step by step: a context."""
    return jax.disable_jit((boundary, degree) not in COMPILED)


N_POINTS = 500 + GRID.size // 3
"""points at which scipy's values are compared, and the grid"""


def step_by_step(data, points, *options, **more):
    """Evaluate without compiling, always at as many points: each step is compiled once."""
    n = len(points)
    points = np.resize(points, (N_POINTS, points.shape[-1])).astype(np.float32)
    with jax.disable_jit():
        return BSpline(data, *options, **more)(points)[:n]


def largest(difference):
    return float(np.abs(np.asarray(difference)).max())


def scipys(data, points, degree, boundary, prefilter):
    at = points.T.astype(float)
    mode = MODES[boundary]
    return map_coordinates(data.astype(float), at, order=degree, mode=mode, prefilter=prefilter)


@pytest.mark.parametrize(
    ("boundary", "degree"), [(rule, d) for rule, most in MOST.items() for d in range(most + 1)]
)
def test_equals_scipy_and_passes_through_the_data(data, points, degree, boundary):
    """Points and grid are sampled in one call, so that each spline is compiled once."""
    at = np.concatenate([points, GRID.reshape(-1, 3)])
    with as_users_run_it(boundary, degree):
        found = np.asarray(BSpline(data, degree, boundary)(at))
    assert largest(found[500:].reshape(SHAPE) - data) <= 2e-5 * np.ptp(data)
    if degree <= 5 and boundary in MODES:
        with as_users_run_it(boundary, degree):
            smooth = BSpline(data, degree, boundary, prefilter=False)(at)[:500]
        for values, prefilter in ((found[:500], True), (smooth, False)):
            expected = scipys(data, points, degree, boundary, prefilter)
            assert largest(values - expected) <= 1e-5 * np.ptp(data)


def test_rules_differ_from_axis_to_axis(data):
    """The middle axis wraps: half a voxel before its start is half a voxel after its end."""
    spline = BSpline(data, 3, ("reflect", "wrap", "reflect"))
    x = np.array([[2.25, -0.5, 7.75], [2.25, 10.5, 7.75], [-0.5, 3, 3]], np.float32)
    values, valid = spline.flagged(x)
    assert values[0] == pytest.approx(float(values[1]), abs=1e-5)
    assert valid.tolist() == [True, True, False]


@pytest.mark.parametrize("degree", range(8))
def test_weights_sum_to_one_and_none_is_negative(degree):
    x = np.linspace(-3, 12, 4001, dtype=np.float32)
    found = np.stack([np.asarray(w) for w in spline_basis.weights(jnp.asarray(x), degree)])
    assert len(found) == degree + 1
    assert largest(found.sum(axis=0) - 1) <= 1e-6
    assert found.min() >= 0


@pytest.mark.parametrize("degree", range(1, 6))
def test_clamp_equals_scipys_open_knots(degree):
    n = 12
    c = np.random.default_rng(7).uniform(-1, 1, n)
    interior = np.arange(degree + 1, n) - (degree + 1) / 2
    knots = np.concatenate([np.zeros(degree + 1), interior, np.full(degree + 1, n - 1.0)])
    x = np.linspace(0, n - 1, 301)
    expected = scipy.interpolate.BSpline(knots, c, degree)(x)
    found = step_by_step(c, x[:, None], degree, "clamp", prefilter=False)
    assert largest(found - expected) <= 1e-5
    assert found[0] == pytest.approx(c[0], abs=1e-6)
    assert found[-1] == pytest.approx(c[-1], abs=1e-6)


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_none_stops_at_the_outermost_complete_spline(data, degree):
    edge = (degree - 1) / 2
    at = np.array([[0, 5.3, 6.1], [edge, 5.3, 6.1], [8, 5.3, 6.1], [8 - edge, 5.3, 6.1]])
    found = step_by_step(data, at, degree, "none", prefilter=False)
    inner = step_by_step(data, at[1::2], degree, "reflect", prefilter=False)
    assert found[0] == found[1] and found[2] == found[3]
    np.testing.assert_allclose(found[1::2], inner, atol=1e-6)


@pytest.mark.parametrize("degree", range(2, 6))
def test_the_derivative_is_that_of_central_differences(data, degree):
    with jax.enable_x64(True), jax.disable_jit(degree != 3):
        c = interpolate.coefficients(jnp.asarray(data, jnp.float64), degree=degree)
        x = jnp.asarray(np.random.default_rng(8).uniform(1, 7, (40, 3)))

        step = 1e-5
        shifts = step * np.concatenate([np.eye(3), -np.eye(3)])[:, None]

        @jax.jit
        @functools.partial(jax.grad, has_aux=True)
        def slope(at):
            values = interpolate.sample(c, at, degree=degree)
            return values.sum(), values

        # Beside each point those before and behind it on each axis, all in one call.
        found, values = slope(jnp.concatenate([x[None], x[None] + shifts]))
        for axis in range(3):
            expected = (values[1 + axis] - values[4 + axis]) / (2 * step)
            error = np.abs(found[0, :, axis] - expected).max()
            assert error <= 1e-5 * np.abs(expected).max()


def test_the_derivative_in_the_data(data, points):
    """The spline is linear in its data, so a step of any size gives the derivative."""

    @jax.jit
    def mean(values):
        return interpolate.sample(
            interpolate.coefficients(values, degree=3), jnp.asarray(points[:50]), degree=3
        ).mean()

    with jax.enable_x64(True):
        values = jnp.asarray(data, jnp.float64)
        direction = jnp.asarray(np.random.default_rng(9).standard_normal(SHAPE))
        expected = float(mean(values + direction) - mean(values))
        found = float(jnp.vdot(jax.jit(jax.grad(mean))(values), direction))
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_coefficients_of_a_high_degree_have_a_derivative():
    """These are found in float64; the derivative of their squares is that of the matrices."""
    values = jnp.asarray(np.random.default_rng(12).uniform(size=(9,)), jnp.float32)
    matrix = spline_basis.prefilter_matrix(9, 7, "reflect")
    found = jax.grad(lambda v: (interpolate.coefficients(v, degree=7) ** 2).sum())(values)
    np.testing.assert_allclose(found, 2 * matrix.T @ (matrix @ np.asarray(values)), rtol=1e-5)


def test_equals_itk_in_the_interior(data, points):
    image = sitk.GetImageFromArray(data.T)
    found = BSpline(data, 3)(points)
    for x, value in zip(points.astype(float), np.asarray(found), strict=True):
        if (x > 1).all() and (x < np.array(SHAPE) - 2).all():
            expected = image.EvaluateAtContinuousIndex(x.tolist(), sitk.sitkBSpline3)
            assert abs(value - expected) <= 1e-4 * np.ptp(data)


def test_mapped_equals_looped(data, points):
    """Over volumes and over points, to the last bit."""
    volumes = np.stack([data, data[::-1]])
    at = points[:8].reshape(2, 4, 3)
    c = jnp.stack([BSpline(volume, 3).coefficients for volume in volumes])

    def values(one, x):
        return interpolate.sample(one, x, degree=3)

    alone = jax.jit(values)
    looped = np.array([[alone(c[i], x) for x in at[i]] for i in range(2)])
    mapped = jax.jit(jax.vmap(jax.vmap(values, (None, 0))))(c, at)
    np.testing.assert_array_equal(mapped, looped)


def test_the_same_shape_compiles_nothing_again(data, points):
    BSpline(data, 3)(points)
    n_programs = interpolate._sample._cache_size(), interpolate._coefficients._cache_size()
    BSpline(data + 1, 3)(points[::-1])
    assert n_programs == (
        interpolate._sample._cache_size(),
        interpolate._coefficients._cache_size(),
    )


def test_nothing_is_extrapolated(data):
    outside = np.array([[-0.001, 3, 3], [3, 10.01, 3], [3, 3, 1e9], [np.nan, 1, 1], [8, 10, 12]])
    values, valid = BSpline(data, 3, fill=-7).flagged(outside.astype(np.float32))
    assert valid.tolist() == [False] * 4 + [True]
    assert values[:4].tolist() == [-7] * 4
    assert values[4] == pytest.approx(data[8, 10, 12], abs=2e-5)


def test_channels_are_carried(data, points):
    both = np.stack([data, data**2], axis=-1)
    found = BSpline(both, 3, n_axes=3)(points)
    assert found.shape == (500, 2)
    np.testing.assert_allclose(found[:, 1], BSpline(data**2, 3)(points), atol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (7, 6), (7, 6, 5), (5, 6, 7, 4)])
def test_any_number_of_axes(shape):
    rng = np.random.default_rng(10)
    values = rng.uniform(size=shape)
    x = rng.uniform(0, np.array(shape) - 1, (30, len(shape)))
    expected = map_coordinates(values, x.T, order=3, mode="mirror")
    found = BSpline(values, 3)(x.astype(np.float32))
    assert largest(found - expected) <= 1e-5


def test_a_degree_may_be_a_number_of_numpy(data, points):
    found = BSpline(data, np.int64(2))
    assert type(found.degree) is int
    np.testing.assert_array_equal(found(points), BSpline(data, 2)(points))


def test_one_voxel_thick():
    values = np.random.default_rng(11).uniform(size=(6, 5, 1)).astype(np.float32)
    grid = np.stack(np.indices(values.shape), axis=-1).astype(np.float32)
    found = BSpline(values, 4)(grid)
    assert largest(found - values) <= 2e-5


def test_passes_through_jit(data, points):
    spline = BSpline(data, 2)
    found = jax.jit(lambda s, x: s(x))(spline, points)
    np.testing.assert_allclose(found, spline(points), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degree": -1}, "degree is -1"),
        ({"degree": 2.5}, "degree is 2.5"),
        ({"degree": True}, "degree is True"),
        ({"boundary": "mirror"}, "boundary is 'mirror'"),
        ({"boundary": ("reflect", "wrap")}, "one for each axis"),
        ({"degree": 3, "boundary": "none"}, "prefilter=False"),
        ({"degree": 9, "boundary": "clamp"}, "axis of 9 points"),
        ({"n_axes": 1}, "n_axes is 1"),
    ],
)
def test_what_does_not_fit_is_refused(data, arguments, message):
    with pytest.raises(ValueError, match=message):
        BSpline(data, **arguments)


def test_points_of_another_space_are_refused(data):
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 3\)"):
        n4ax_bids.BSpline(data)(np.zeros((4, 2)))
