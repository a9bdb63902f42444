"""The parts of the tissue method: blocks, spline, normal equations, mixture, posteriors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from n4ax_bids.core.field import LogField, sample
from n4ax_bids.core.tissue import blocks as block_means
from n4ax_bids.core.tissue import equations, mixture
from n4ax_bids.core.tissue import spline as splines
from n4ax_bids.core.tissue.mixture import Classes
from n4ax_bids.core.tissue.posteriors import maps_of, tissues_of


def test_noise_is_measured_with_and_without_whole_blocks():
    rng = np.random.default_rng(0)
    signal, sd = 100.0, 4.0
    for shape, zooms in (((40, 40, 40), (1, 1, 1)), ((60, 60, 20), (2, 2, 2))):
        image = np.abs(signal + sd * rng.standard_normal((2, *shape))[0])
        blocks = block_means.blocks_of(image, np.ones(shape), zooms, 2.0)
        assert blocks.noise == pytest.approx(sd, rel=0.1)
        n = np.prod(blocks.factors)
        assert blocks.x[blocks.ok].var() == pytest.approx(sd**2 / signal**2 / n, rel=0.1)
        assert blocks.nu[blocks.ok].mean() == pytest.approx(sd**2 / signal**2 / n, rel=0.25)


def test_blocks_at_an_edge_weigh_little_and_the_border_nothing():
    x = np.zeros((12, 12, 12))
    x[6:] = 1
    x += 0.01 * np.random.default_rng(0).standard_normal(x.shape)
    blocks = block_means.blocks_of(np.exp(x), np.ones(x.shape), (2, 2, 2), 2.0)
    h = block_means.homogeneity(blocks, 1.0)
    assert h[5:7, 2:-2, 2:-2].max() < 0.01 < 0.2 < np.median(h[2:4, 2:-2, 2:-2])
    assert h[0, 0, 0] == 0
    assert set(np.unique(block_means.homogeneity(blocks, 0.0))) == {0, 1}


def test_the_penalty_is_the_mean_square_third_derivative():
    """x³ has the third derivative 6; x²y has 2 in three of the 27 orders."""
    ok = np.ones((20, 16, 12), bool)
    blocks = block_means.Blocks(0.0 * ok, 0.0 * ok, ok, (1, 1, 1), (4.0, 4.0, 4.0), 0.0)
    spline = splines.spline_of(blocks, 30.0)
    x, y = 4 * (np.arange(20) + 0.5), 4 * (np.arange(16) + 0.5)
    for values, expected in (
        (np.einsum("x,y->xy", x**3, y**0), 36.0),
        (np.einsum("x,y->xy", x**2, y), 3 * 4.0),
        (np.einsum("x,y->xy", x, y), 0.0),
    ):
        lattice = np.repeat(values[..., None], 12, axis=2)
        for axis, basis in enumerate(spline.bases):
            inverse = np.linalg.pinv(basis)
            lattice = np.moveaxis(np.tensordot(lattice, inverse, (axis, 1)), -1, axis)
        found = lattice.ravel() @ spline.penalty @ lattice.ravel()
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_field_of_blocks_is_that_of_their_voxels():
    ok = np.zeros((20, 16, 2), bool)
    ok[3:18, 2:14] = True
    blocks = block_means.Blocks(0.0 * ok, 0.0 * ok, ok, (3, 2, 1), (3.0, 4.0, 5.0), 0.0)
    spline = splines.spline_of(blocks, 20.0)
    assert spline.flat == (False, False, True) and spline.points[2] == 1
    lattice = np.random.default_rng(0).standard_normal(spline.points)
    field = splines.log_field(spline, lattice, blocks.factors)
    centres = [np.arange(3, 18) * 3 + 1, np.arange(2, 14) * 2 + 0.5, np.arange(2)]
    expected = lattice
    for axis, basis in enumerate(spline.bases):
        expected = np.moveaxis(np.tensordot(expected, basis, (axis, 1)), -1, axis)
    np.testing.assert_allclose(sample(field, centres), expected, atol=1e-5)


def test_normal_equations_and_their_solution():
    rng = np.random.default_rng(0)
    bases = [rng.standard_normal((n, m)) for n, m in ((6, 3), (5, 2), (4, 2))]
    weight = rng.uniform(0.1, 1, (6, 5, 4))
    columns = np.einsum("xa,yb,zc->xyzabc", *bases).reshape(120, 12)
    expected = (columns * weight.reshape(-1, 1)).T @ columns
    with jax.enable_x64(True):
        given = [jnp.asarray(each) for each in bases]
        found = equations.normal(jnp.asarray(weight), equations.pair_matrices(given), given)
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        right = jnp.asarray(rng.standard_normal(12))
        answer = equations.solved(found, 0 * found, right)
        np.testing.assert_allclose(found @ answer, right, rtol=1e-3, atol=1e-3)


def test_the_mixture_finds_classes_beyond_the_noise():
    rng = np.random.default_rng(0)
    n = 60000
    which = rng.choice(3, n, p=(0.2, 0.3, 0.5))
    nu = rng.choice([0.0004, 0.0016], n)
    mean, sd = np.array([-1.0, -0.4, 0.0]), np.array([0.1, 0.05, 0.03])
    r = mean[which] + np.sqrt(sd[which] ** 2 + nu) * rng.standard_normal(n)
    with jax.enable_x64(True):
        bins = jnp.asarray((nu > 0.001).astype(np.int32))
        levels = jnp.asarray([0.0004, 0.0016, 0, 0, 0, 0], jnp.float32)
        listed = jnp.arange(n + 7)  # those beyond the end are padding
        area = jnp.zeros(n, jnp.int32)
        seen = mixture.histogram(
            jnp.asarray(r, jnp.float32), jnp.ones(n, jnp.float32), bins, levels, listed, area, 1
        )
        assert float(seen.counts.sum()) == n
        classes = mixture.maximised(seen, mixture.first_classes(seen, 3), 60, 0.001)
    np.testing.assert_allclose(classes.mean, mean, atol=0.01)
    np.testing.assert_allclose(np.sqrt(classes.variance), sd, atol=0.006)
    np.testing.assert_allclose(classes.share, (0.2, 0.3, 0.5), atol=0.01)


def test_each_area_has_its_own_shares_of_the_classes():
    rng = np.random.default_rng(1)
    n, areas = 40000, 4
    area = np.arange(n) * areas // n
    shares = np.linspace((0.8, 0.2), (0.2, 0.8), areas)
    bright = rng.random(n) < shares[area, 1]
    r = np.where(bright, 0.0, -0.3) + 0.08 * rng.standard_normal(n)
    own, whole = jnp.eye(areas), jnp.full(2, 0.5)
    with jax.enable_x64(True):
        seen = mixture.histogram(
            jnp.asarray(r, jnp.float32),
            jnp.ones(n, jnp.float32),
            jnp.zeros(n, jnp.int32),
            jnp.zeros(mixture.N_NOISES, jnp.float32),
            jnp.arange(n),
            jnp.asarray(area, jnp.int32),
            areas,
        )
        classes = Classes(jnp.asarray([-0.3, 0.0]), whole, jnp.full(2, 0.08**2), 1e-6)
        found = {}
        for name, smoothing, pull in (("own", own, 1.0), ("pulled", own, 1e9)):
            found[name] = jnp.tile(whole, (areas, 1))
            for _ in range(30):
                found[name] = mixture.local_shares(seen, classes, found[name], [smoothing], pull)
    np.testing.assert_allclose(found["own"], shares, atol=0.02)
    np.testing.assert_allclose(found["pulled"], 0.5, atol=1e-4)


def test_classes_are_merged_to_three_tissues():
    classes = Classes(
        np.array([-1.0, -0.95, -0.45, -0.4, -0.35, 0.0]), np.full(6, 1 / 6), np.full(6, 1e-3), 0.01
    )
    tissues = tissues_of(classes)
    np.testing.assert_array_equal(tissues, [0, 0, 1, 1, 1, 2])
    field = LogField(np.zeros((2, 2), np.float32), 1, (0.0, 0.0), (0.5, 0.5), (1.0, 1.0))
    values = np.exp(np.array([[-0.97, -0.4], [0.0, 5.0]]))
    maps = maps_of(values, np.array([[True, True], [True, True]]), field, classes, 0.0, tissues)
    np.testing.assert_allclose(maps.max(axis=0)[[0, 0, 1], [0, 1, 0]], 1, atol=0.05)
    np.testing.assert_array_equal(maps.argmax(axis=0)[[0, 0, 1], [0, 1, 0]], [0, 1, 2])
    assert maps[:, 1, 1].max() < 1e-6  # far from every class
