import numpy as np
import pytest

from n4ax_bids.core.field import LogField, divide, evaluate
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.options import N4Options


def some_field(shape=(13, 9, 11), order=3, seed=0):
    rng = np.random.default_rng(seed)
    axes = plan(N4Options(bspline_order=order), shape).axes
    first, step, clamp = zip(*(axis.image for axis in axes), strict=True)
    lattice = rng.normal(0, 0.3, [axis.n_control_points for axis in axes]).astype(np.float32)
    return LogField(lattice, order, first, step, clamp)


@pytest.mark.parametrize("order", (1, 2, 3, 4))
def test_box_equals_part_of_whole(order):
    shape = (13, 9, 11)
    log_field = some_field(shape, order)
    whole = np.asarray(evaluate(log_field, [(0, n) for n in shape]))
    part = np.asarray(evaluate(log_field, [(2, 7), (0, 9), (10, 11)]))
    np.testing.assert_allclose(part, whole[2:7, :, 10:11], atol=1e-6)


def test_constant_lattice_is_a_constant_field():
    log_field = some_field()
    flat = log_field._replace(lattice=np.full_like(log_field.lattice, 0.7))
    np.testing.assert_allclose(evaluate(flat, [(0, 13), (0, 9), (0, 11)]), 0.7, atol=1e-6)


@pytest.mark.parametrize("order", "CF")
def test_divide(order):
    image = np.asarray(
        np.random.default_rng(1).uniform(1, 9, (13, 9, 11)), np.float32, order=order
    )
    corrected, log_bias = divide(image, some_field())
    assert isinstance(corrected, np.ndarray) and corrected.dtype == np.float32
    np.testing.assert_allclose(corrected * np.exp(log_bias), image, rtol=1e-6)
    np.testing.assert_allclose(
        log_bias, evaluate(some_field(), [(0, n) for n in image.shape]), atol=1e-6
    )


def test_divide_keeps_a_jax_array_on_its_device():
    jnp = pytest.importorskip("jax.numpy")
    image = jnp.ones((13, 9, 11), jnp.float32)
    corrected, log_bias = divide(image, some_field())
    assert corrected.devices() == image.devices()
    np.testing.assert_allclose(corrected, np.exp(-log_bias), rtol=1e-6)
