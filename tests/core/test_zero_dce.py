"""The zero-shot method's network and the terms of its loss.

Every term is compared with loops over voxels that are written from the definition.
"""

from __future__ import annotations

from itertools import product

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from n4ax_bids.core.estimator import Given
from n4ax_bids.core.zero_dce import fit, losses, network, solve
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
