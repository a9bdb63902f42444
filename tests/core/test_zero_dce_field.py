"""The zero-shot method's field: its lattice, the grid of its blocks, the levels of the tissues."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from n4ax_bids.core import bspline
from n4ax_bids.core.field import evaluate
from n4ax_bids.core.zero_dce import grid, lattice, levels


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
