"""The parts of the zero-shot method: the network, the terms of its loss, the lattice, the levels.

Every term is compared with loops over voxels that are written from the definition.
"""

from __future__ import annotations

from itertools import product

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from n4ax_bids.core import bspline
from n4ax_bids.core.estimator import Given
from n4ax_bids.core.field import evaluate
from n4ax_bids.core.zero_dce import fit, grid, lattice, levels, losses, network, solve
from n4ax_bids.options.zero_shot import ZeroShotOptions

SHAPE = (16, 16, 16)
SMALL = (5, 4, 6)
predict = jax.jit(network.predict)  # compiled once for each shape


def maps(rng, shape=SHAPE):
    """Brightened image, image, weight and a map, float64."""
    bright, image = rng.uniform(0, 1, shape), rng.uniform(0, 1, shape)
    return bright, image, rng.uniform(0, 1, shape), rng.uniform(-1, 1, shape)


def agree(found, expected, rtol=1e-5):
    np.testing.assert_allclose(float(found), expected, rtol=rtol)


@pytest.mark.parametrize(("width", "expected"), [(8, 2582), (9, 2964), (10, 3360)])
def test_number_of_weights(width, expected):
    layers = jax.eval_shape(lambda key: network.initial(key, width), jax.random.key(0))
    assert sum(each.size for each in jax.tree.leaves(layers)) == expected
    assert network.n_parameters(width) == expected
    assert 2500 <= network.n_parameters(ZeroShotOptions().width) == 2964 <= 3500


def test_the_first_maps_are_neutral(rng):
    layers = network.initial(jax.random.key(3), 9)
    image = jnp.asarray(rng.uniform(0, 1, SMALL), jnp.float32)
    alpha, bias = predict(layers, image, jnp.ones_like(image))
    assert np.abs(alpha).max() < 0.2 and np.abs(bias - 0.5).max() < 0.1


def test_the_network_against_loops(rng):
    """One layer: each channel with its kernel, then a sum over channels; zeros outside."""
    sizes = ((4, 27), (4,), (4, 4), (4,))
    layer = network.Layer(*(jnp.asarray(rng.uniform(-0.4, 0.4, n), jnp.float32) for n in sizes))
    values = rng.normal(size=(4, 4, 5, 6)).astype(np.float32)
    found = network._separable(layer, jnp.asarray(values))
    assert found.shape == values.shape
    kernels = np.asarray(layer.depthwise).reshape(4, 3, 3, 3)
    padded = np.pad(values, [(0, 0)] + [(1, 1)] * 3)
    depthwise = np.zeros_like(values)
    for c, x, y, z in np.ndindex(values.shape):
        window = padded[c, x : x + 3, y : y + 3, z : z + 3]
        depthwise[c, x, y, z] = (window * kernels[c]).sum() + layer.depthwise_bias[c]
    expected = np.einsum("oc,cxyz->oxyz", layer.pointwise, depthwise)
    expected += np.asarray(layer.pointwise_bias)[:, None, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_padding_changes_no_map(rng):
    layers = network.initial(jax.random.key(0), 9)
    image = rng.uniform(0, 1, SMALL).astype(np.float32)
    alone = predict(layers, jnp.asarray(image), jnp.ones(image.shape, jnp.float32))
    padded = np.pad(image, [(0, 3), (0, 2), (0, 1)])
    inside = np.pad(np.ones(image.shape, np.float32), [(0, 3), (0, 2), (0, 1)])
    more = predict(layers, jnp.asarray(padded), jnp.asarray(inside))
    for one, other in zip(alone, more, strict=True):
        np.testing.assert_allclose(one, other[:5, :4, :6], atol=1e-6)


def test_curve():
    image = jnp.linspace(0, 1, 1001)
    for alpha in (-1.0, -0.3, 0.0, 0.5, 1.0):
        bright = np.asarray(losses.curve(image, jnp.full_like(image, alpha), 4))
        assert bright.min() >= 0 and bright.max() <= 1
        assert (np.diff(bright) >= -1e-7).all()
    one = losses.curve(image, jnp.ones_like(image), 4)
    np.testing.assert_allclose(one, 1 - (1 - np.asarray(image)) ** 16, atol=1e-6)


def test_smoothness(rng):
    values = maps(rng)[3]
    per_block = np.array([0.1, 0.2, 0.3])
    total = 0.0
    for voxel in np.ndindex(SHAPE):
        here = 0.0
        for axis in range(3):
            ahead = list(voxel)
            ahead[axis] += 1
            if ahead[axis] < SHAPE[axis]:
                here += abs(values[tuple(ahead)] - values[voxel]) * per_block[axis]
        total += here**2
    found = losses.smoothness(
        jnp.asarray(values), jnp.asarray(per_block), jnp.asarray(values.size)
    )
    agree(found, total / values.size)


def regions_of(values, weight, size):
    """Weighted mean and mean weight of each cube."""
    n = SHAPE[0] // size
    means, shares = np.zeros((n,) * 3), np.zeros((n,) * 3)
    for i in np.ndindex(n, n, n):
        cube = tuple(slice(k * size, (k + 1) * size) for k in i)
        means[i] = (values[cube] * weight[cube]).sum() / weight[cube].sum()
        shares[i] = weight[cube].mean()
    return means, shares


@pytest.mark.parametrize("kind", ["faces", "corners"])
def test_spatial(rng, kind):
    bright, image, weight, _ = maps(rng)
    (x, share), (y, _) = regions_of(bright, weight, 4), regions_of(image, weight, 4)
    total = 0.0
    for i in np.ndindex(x.shape):
        for step in product((-1, 0, 1), repeat=3):
            if sum(map(abs, step)) != {"faces": 1, "corners": 3}[kind]:
                continue
            j = tuple(np.add(i, step))
            if min(j) < 0 or max(j) >= x.shape[0]:
                continue
            total += share[i] * share[j] * (abs(x[i] - x[j]) - abs(y[i] - y[j])) ** 2
    given = (jnp.asarray(each) for each in (bright, image, weight))
    agree(losses.spatial(*given, (4, 4, 4), kind), total / share.sum())


def test_exposure_and_prior(rng):
    bright, image, weight, bias = maps(rng)
    x, share = regions_of(bright, weight, 8)
    found = losses.exposure(jnp.asarray(bright), 0.6, jnp.asarray(weight), (8, 8, 8))
    agree(found, (share * (x - 0.6) ** 2).sum() / share.sum())
    expected = (weight * np.abs(image - bright * bias)).sum() / weight.sum()
    given = (jnp.asarray(each) for each in (bright, bias, image, weight))
    agree(losses.prior(*given), expected)


def test_terms_ignore_what_has_no_weight(rng):
    """Blocks of the background, and whole regions of it, change no term but smoothness."""
    bright, image, _, _ = maps(rng)
    weight = np.zeros(SHAPE)
    weight[:8, :12] = 1
    other = np.where(weight > 0, bright, 0.123)
    for term in (
        lambda b: losses.spatial(b, jnp.asarray(image), jnp.asarray(weight), (4,) * 3, "faces"),
        lambda b: losses.exposure(b, 0.6, jnp.asarray(weight), (8,) * 3),
        lambda b: losses.prior(b, jnp.ones(SHAPE), jnp.asarray(image), jnp.asarray(weight)),
    ):
        agree(term(jnp.asarray(bright)), float(term(jnp.asarray(other))))


def small_fit(rng, dtype):
    """Weights, arrays, form and numbers of a small image, in one type."""
    image = rng.uniform(0.1, 1, SHAPE).astype(np.float32)
    options = ZeroShotOptions(width=4, downsample=4, region_exposure=8)
    made = solve.image_of(Given(image, image > 0.3, None, (1.0,) * 3), options)
    arrays = solve.seen(made, options).arrays
    layers = solve.start(options, 3)
    convert = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)  # noqa: E731
    return convert(layers), convert(arrays), solve.form_of(made, options), options


def test_gradient_against_differences(rng):
    with jax.enable_x64(True):
        layers, arrays, form, options = small_fit(rng, jnp.float64)
        numbers = solve.numbers_of(options)
        flat, unflatten = jax.flatten_util.ravel_pytree(layers)

        @jax.jit
        @jax.value_and_grad
        def loss(weights):
            return fit.loss(unflatten(weights), arrays, form, numbers)

        gradient = np.asarray(loss(flat)[1])
        scale = np.abs(gradient).max()
        large = np.flatnonzero(np.abs(gradient) > 1e-3 * scale)
        for k in rng.choice(large, 10, replace=False):
            step = np.zeros(flat.size)
            step[k] = 1e-6
            difference = (loss(flat + step)[0] - loss(flat - step)[0]) / 2e-6
            np.testing.assert_allclose(gradient[k], difference, rtol=1e-4)


def test_enlarging_is_linear_and_constant_beyond_the_ends():
    axis = grid.axis_of(50, 8, 4, (4, 16))
    assert (axis.factor, axis.block, axis.padded, axis.n_coarse) == (8, 4, 64, 7)
    matrix = axis.enlarge(np.arange(50.0))
    np.testing.assert_allclose(matrix.sum(axis=0), 1)
    centres = (np.arange(8) + 0.5) * 8 - 0.5
    inner = np.arange(4, 52 - 4)[: 50 - 8]
    np.testing.assert_allclose(centres @ matrix[:, inner], inner, atol=1e-9)
    np.testing.assert_allclose(matrix[:, :4][0], 1)


@pytest.mark.parametrize(
    ("n", "factor", "block"),
    [(200, 8, 4), (32, 8, 4), (31, 7, 4), (11, 2, 2), (3, 1, 1), (1, 1, 1)],
)
def test_a_short_axis_keeps_four_samples(n, factor, block):
    axis = grid.axis_of(n, 8, 4, (4, 16))
    assert (axis.factor, axis.block, axis.short) == (factor, block, factor < 8)
    assert axis.padded % 32 == 0 and axis.padded >= n
    np.testing.assert_allclose(axis.shrink()[:, : axis.n_coarse].sum(axis=0), 1)
    assert axis.block_centres().max() <= n - 1


def test_an_axis_of_large_voxels_is_not_short():
    """8 voxels of 1 mm are 2 of 4 mm, so that 8 voxels are enough for four samples."""
    assert [grid.axis_of(n, 8, 4, (4, 16), 4.0).short for n in (7, 8, 11)] == [True, False, False]


def test_a_smooth_field_is_found_again(rng):
    """A cubic polynomial is a cubic spline; only the mean is lost."""
    shape, zooms = (40, 30, 20), (1.0, 1.5, 2.0)
    axes = [grid.axis_of(n, 8, 2, (4, 16)) for n in shape]
    centres = [axis.block_centres() for axis in axes]

    def truth(voxels):
        x, y, z = np.meshgrid(
            *(v * mm / 50 for v, mm in zip(voxels, zooms, strict=True)), indexing="ij"
        )
        return 0.5 * x - 0.4 * y**2 + 0.3 * z**3 * x

    weight = rng.uniform(0, 1, [axis.padded // axis.block for axis in axes])
    weight[axes[0].n_blocks :] = weight[:, axes[1].n_blocks :] = weight[
        :, :, axes[2].n_blocks :
    ] = 0
    samples = truth(centres)
    found = lattice.fitted(samples, weight, centres, shape, zooms, 60.0, stiffness=1e-9)
    field = np.asarray(evaluate(found, [(0, n) for n in shape]))
    expected = truth([np.arange(n, dtype=float) for n in shape])
    inside = tuple(slice(1, n - 1) for n in shape)
    away = (field - expected)[inside]
    assert np.abs(away - away.mean()).max() < 2e-3
    mean = (weight * samples).sum() / weight.sum()
    np.testing.assert_allclose(away.mean(), -mean, atol=2e-3)


def test_too_small_a_spacing_is_refused_in_one_line():
    with pytest.raises(ValueError, match="field_spacing is 5 mm, which needs .* at most 3000"):
        lattice.points((200, 200, 200), (1.0, 1.0, 1.0), 5.0)


def test_classes_of_a_histogram(rng):
    """Two wide classes that overlap, and a narrow one: what least squares alone gets wrong."""
    means, deviations, shares = (0.2, 0.6, 0.9), (0.1, 0.12, 0.03), (0.2, 0.4, 0.4)
    middles = np.linspace(0, 1.2, 400)
    heights = sum(
        s / d * np.exp(-0.5 * ((middles - m) / d) ** 2)
        for m, d, s in zip(means, deviations, shares, strict=True)
    )
    found = levels.first_classes(heights, middles, 3)
    for _ in range(5):
        found, belongs = levels.updated(found, heights, middles)
    np.testing.assert_allclose(found.means, means, atol=0.03)
    np.testing.assert_allclose(found.deviations, deviations, atol=0.03)
    np.testing.assert_allclose(found.shares, shares, atol=0.06)
    assert belongs.shape == (3, 400) and (belongs.sum(axis=0) <= 1).all()
    assert belongs[1, np.argmin(np.abs(middles - 0.6))] > 0.9


def tissue_halves(rng) -> tuple[levels.Samples, np.ndarray, tuple[int, ...], tuple[float, ...]]:
    """Two tissues, each in one half, under a field of ±0.2 across them."""
    shape, zooms = (32, 32, 32), (4.0,) * 3
    tissue = np.where(np.arange(32) < 16, 0.5, 1.0)[:, None, None]
    x = np.linspace(-1, 1, 32)[None, :, None]
    values = tissue * np.exp(0.2 * x) / 2 * (1 + 0.02 * rng.standard_normal(shape))
    return levels.samples_of(values, np.ones(shape), zooms, 1.0), x, shape, zooms


def test_a_round_of_classes_takes_tissue_out_of_the_field(rng):
    """A smooth field alone would explain the step."""
    samples, x, shape, zooms = tissue_halves(rng)
    log_image, weight, places = samples
    start = lattice.fitted(log_image, weight, places, shape, zooms, 60.0)
    flat = start._replace(lattice=0 * start.lattice)
    found = levels.refined(flat, samples, shape, zooms, 60.0, n_levels=2, n_rounds=4)
    field = np.asarray(evaluate(found, [(0, 32)] * 3))
    assert np.abs(field - 0.2 * x).max() < 0.02
    wrong = np.asarray(evaluate(start, [(0, 32)] * 3))
    assert np.abs(wrong - 0.2 * x).max() > 0.2


def test_classes_of_a_constant_image_leave_no_field(rng):
    values = np.full((24, 20, 16), 0.7, np.float32)
    samples = levels.samples_of(values, np.ones(values.shape), (4.0,) * 3, 0.7)
    args = (samples, values.shape, (4.0,) * 3, 60.0)
    start = lattice.fitted(samples.log_image, samples.weight, samples.places, *args[1:])
    found = levels.refined(start, *args, n_levels=3, n_rounds=3)
    assert np.abs(found.lattice).max() < 1e-4


def test_samples_are_single_voxels_2_mm_apart_inside_the_foreground(rng):
    values = rng.uniform(0.5, 1, (20, 16, 5)).astype(np.float32)
    foreground = np.zeros(values.shape, np.float32)
    foreground[4:15, 3:9, 1:3] = 0.5
    foreground[4, 3, 1] = 0
    samples = levels.samples_of(values, foreground, (1.0, 0.5, 5.0), 0.8)
    assert [list(each) for each in samples.places] == [[5, 7, 9, 11, 13], [5], [1, 2]]
    counts = np.ix_(*samples.places)
    np.testing.assert_allclose(
        np.exp(samples.log_image), np.minimum(values[counts] / np.float32(0.8), 1), rtol=1e-6
    )
    np.testing.assert_array_equal(samples.weight, foreground[counts])


def test_matrices_of_blocks_and_interpolation_agree_with_the_spline_contraction(rng):
    values = rng.normal(size=(8, 4, 5)).astype(np.float32)
    axes = [grid.axis_of(n, 8, 4, (4, 16)) for n in (60, 32, 30)]  # 64, 32, 32 with padding
    matrices = [axis.enlarge(axis.block_centres()).astype(np.float32) for axis in axes]
    one = bspline.contract(jnp.asarray(values), [jnp.asarray(each) for each in matrices])
    np.testing.assert_allclose(one, grid.contracted(values, matrices), atol=1e-5)
