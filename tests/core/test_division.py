"""An image divided by its field on the host: the bits of the plain steps, and the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from n4ax_bids.core.division import SLAB, division, limits
from n4ax_bids.core.field import LogField, at_level, divide
from n4ax_bids.core.raster import values_inside

SHAPE = (70, 60, 64)


def log_field(rng, n_axes: int, shift: float = 0.2) -> LogField:
    lattice = rng.normal(shift, 0.3, (7, 6, 8)[:n_axes]).astype(np.float32)
    step = tuple((n - 3.001) / m for n, m in zip(lattice.shape, SHAPE, strict=False))
    return LogField(lattice, 3, (0.0,) * n_axes, step, tuple(n - 3.0 for n in lattice.shape))


@pytest.mark.parametrize("scale", ["as-is", "mean", "median"])
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("masked", [True, False])
def test_the_bits_are_those_of_the_plain_steps(rng, scale, order, masked):
    assert np.prod(SHAPE) > 2 * SLAB  # several slabs
    image = np.asarray(rng.normal(40, 30, SHAPE), np.float32, order=order)
    inside = np.asarray(image > 50, order=order) if masked else None
    field = log_field(rng, 3)
    done = division(image, field, inside, scale)

    corrected, log_bias = divide(image, field)
    if scale != "as-is":
        everywhere = np.ones(SHAPE, bool) if inside is None else inside
        values = np.ascontiguousarray(log_bias)[everywhere]
        high = values.max()
        mean = high + np.log(np.mean(np.exp(values - high)))
        level = np.float32(np.median(values) if scale == "median" else mean)
        corrected, log_bias = corrected * np.exp(level), log_bias - level
        np.testing.assert_array_equal(done.log_field.lattice, field.lattice - level)
        _, *same = at_level(field, *divide(image, field), inside, scale)
        np.testing.assert_array_equal(same, (corrected, log_bias))
    np.testing.assert_array_equal(done.corrected, corrected)
    np.testing.assert_array_equal(done.bias, np.exp(log_bias))
    assert done.usable

    values = done.bias if inside is None else done.bias[inside]
    n, dark, low, high, variation = done.numbers
    assert (n, low, high) == (values.size, values.min(), values.max())
    assert dark == np.count_nonzero(image <= 0 if inside is None else (image <= 0) & inside)
    exact = values.astype(np.float64)
    assert variation == pytest.approx(exact.std() / exact.mean(), rel=1e-12)


def test_planes_of_two_axes(rng):
    image, field = rng.normal(9, 1, SHAPE[:2]).astype(np.float32), log_field(rng, 2)
    done = division(image, field, None, "mean")
    _, corrected, log_bias = at_level(field, *divide(image, field), None, "mean")
    np.testing.assert_array_equal(done.corrected, corrected)
    np.testing.assert_array_equal(done.bias, np.exp(log_bias))


def test_what_is_not_finite(rng):
    image, field = np.full(SHAPE, 2, np.float32), log_field(rng, 3)
    image[3, 4, 5], image[0, 0, 1] = np.nan, np.inf
    assert division(image, field).usable  # they were so before
    image[1, 2, 3] = np.finfo(np.float32).max
    small = field._replace(lattice=field.lattice - 3)
    assert not division(image, small).usable  # this voxel overflows
    image[1, 2, 3] = 1e30
    assert division(image, field).usable  # only the square overflows
    for lattice in (np.full_like(field.lattice, 100), field.lattice * np.float32(np.nan)):
        unusable = field._replace(lattice=lattice)
        assert not division(np.zeros(SHAPE, np.float32), unusable).usable
    low, high = limits(SHAPE, field)
    _, log_bias = divide(image, field)
    assert (low, high) == (log_bias.min(), log_bias.max())
    assert np.isnan(limits(SHAPE, unusable)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_inside_come_in_raster_order(rng, dtype):
    values = np.asfortranarray(rng.normal(size=(9, 17, 33)).astype(dtype))
    mask = np.asfortranarray(rng.integers(0, 3, values.shape))
    turned = np.ascontiguousarray(values)
    np.testing.assert_array_equal(values_inside(values, mask), turned[mask != 0])
    np.testing.assert_array_equal(values_inside(values, mask > 1), turned[mask > 1])
    np.testing.assert_array_equal(values_inside(values, None), turned.ravel())
    np.testing.assert_array_equal(values_inside(turned[..., 0], None), turned[..., 0].ravel())
