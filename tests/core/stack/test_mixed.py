"""Means of blocks that mix tissue with what is beside it do not count as samples."""

import numpy as np
import pytest

from n4ax_bids.core.stack.call import thinned_stack
from n4ax_bids.core.stack.mixed import mixed
from n4ax_bids.core.stack.samples import samples_of, section_plan
from n4ax_bids.options import StackOptions

RNG = np.random.default_rng(0)


def edge(axis: int, width: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A step along an axis whose middle samples are mixed; which those are."""
    image = np.full((9, 9, 9), 0.3, np.float32)
    along = np.moveaxis(image, axis, 0)
    along[4:] = 1
    along[4 : 4 + width] = np.linspace(0.3, 1, width + 2)[1:-1, None, None]
    truth = np.zeros(image.shape, bool)
    np.moveaxis(truth, axis, 0)[4 : 4 + width] = True
    noise = 1 + RNG.normal(0, 0.003, image.shape)
    return (image * noise).astype(np.float32), truth


@pytest.mark.parametrize("axis", (0, 1, 2))
@pytest.mark.parametrize("width", (1, 2))
def test_only_the_samples_on_an_edge_are_found(axis, width):
    image, truth = edge(axis, width)
    np.testing.assert_array_equal(mixed(image, np.ones_like(truth)), truth)
    np.testing.assert_array_equal(mixed(image[::-1, ::-1, ::-1], truth | True), np.flip(truth))


def test_a_steep_field_and_thin_layers_are_no_edges():
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, 16)] * 3, indexing="ij")
    field = np.exp(0.5 * (x - 0.4 * y * z + x**2)).astype(np.float32)
    field[:, 8] *= 3  # brighter than both its neighbours
    assert not mixed(field, np.ones(field.shape, bool)).any()
    noisy = (field * (1 + RNG.normal(0, 0.01, field.shape))).astype(np.float32)
    assert mixed(noisy, np.ones(field.shape, bool)).mean() < 0.005


def test_noise_and_texture_raise_what_counts_as_an_edge():
    image = np.exp(RNG.normal(0, 0.3, (16, 16, 16))).astype(np.float32)
    assert mixed(image, np.ones(image.shape, bool)).mean() < 0.05


def test_where_most_samples_would_be_edges_none_is():
    steps = np.array([1, 1, 2, 4, 8, 16, 16, 16, 32, 64, 128, 128], np.float32)
    image = np.broadcast_to(steps, (4, 4, 12))
    assert not mixed(image, np.broadcast_to(np.arange(12) % 5 > 1, image.shape)).any()


def test_empty_voxels_and_an_empty_mask_are_no_trouble():
    image = np.zeros((1, 5, 5), np.float32)
    image[:, 3:] = -1
    for mask in (np.zeros(image.shape, bool), np.ones(image.shape, bool)):
        assert not mixed(image, mask).any()


def test_blocks_at_the_border_of_the_tissue_are_left_out_of_the_solve():
    image = np.full((16, 32, 32), 0.3, np.float32)
    image[:, 14:] = 1  # the fourth row of blocks of four is mixed
    kept = {}
    for sampling in ("mean", "itk"):
        options = StackOptions(match="none", mode="global", shrink_factor=4, sampling=sampling)
        stack = thinned_stack(image, np.ones(image.shape, bool), (1, 1, 1), options)
        made = section_plan(options, image.shape, (1, 1, 1), 10)
        samples = samples_of(stack.thin, stack.mask, made, stack.how)
        kept[sampling] = samples.mask
    expected = np.arange(8) != 3
    np.testing.assert_array_equal(kept["mean"].all(axis=(0, 2)), expected)
    assert kept["itk"].all()  # as ITK does it
