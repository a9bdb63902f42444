"""The tissue mask: against SciPy and scikit-image step by step, known blocks, odd sections."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage import filters

from n4ax_bids.core import plane_words, tissue_mask
from n4ax_bids.core.stack.boundaries import section_bounds
from n4ax_bids.core.tissue_mask import compute_tissue_mask

PLANE = (61, 67)
"""odd numbers; most tests share them and sections of 12 planes, as each shape is compiled anew"""


def agarose(shape, tissue, seed=0):
    """Bright tissue in dim agarose, with noise."""
    rng = np.random.default_rng(seed)
    image = np.where(tissue, 0.8, 0.15) + rng.normal(0, 0.04, shape)
    return np.maximum(image, 0.001).astype(np.float32)


def block(shape, *slices):
    tissue = np.zeros(shape, bool)
    tissue[slices] = True
    return tissue


def iou(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def by_scipy(vol, sections, sigma=2.0, sigma_z=1.0, radius=3, reach=2, edge="replicate"):
    """The same steps with SciPy and scikit-image."""
    found = np.zeros(vol.shape, bool)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x**2 + y**2 <= radius**2
    bounds = section_bounds(len(vol), sections)
    for start, stop in bounds:
        smooth = ndimage.gaussian_filter(vol[start:stop], (sigma_z, sigma, sigma))
        mask = smooth > filters.threshold_otsu(smooth[smooth > 0], 256)
        for plane in mask:
            plane[:] = ndimage.binary_fill_holes(plane)
            if radius:
                plane[:] = ndimage.binary_closing(plane, disk)
        found[start:stop] = mask
    if len(bounds) > 1 and reach:
        more = reach if edge == "replicate" else 0
        padded = np.pad(found, ((more, more), (0, 0), (0, 0)), mode="edge")
        padded = ndimage.binary_closing(padded, np.ones((2 * reach + 1, 1, 1)))
        found = padded[more : more + len(vol)]
    return found


def blobs(shape, seed):
    """Smooth random tissue with holes and gaps, dark at the edge of the field of view."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), (2, 5, 5))
    return (np.exp(texture / texture.std()) + rng.uniform(0, 0.2, shape)).astype(np.float32)


@pytest.mark.parametrize("edge", ("replicate", "background"))
@pytest.mark.parametrize(("sections", "radius"), [(1, 3), (3, 3), (3, 0), ((0, 5, 30), 4)])
def test_scipy_finds_the_same(sections, radius, edge):
    vol = blobs((36, *PLANE), 1)
    ours = compute_tissue_mask(vol, n_serial_slices=sections, closing_radius=radius, edge=edge)
    theirs = by_scipy(vol, sections, radius=radius, edge=edge)
    assert ours.dtype == bool and 0.05 < theirs.mean() < 0.95
    # S6 asks for 99.9 %; only a voxel within rounding of the threshold may differ.
    assert np.mean(ours == theirs) >= 0.9999


def test_holes_in_winding_walls_are_filled():
    """The way out of a spiral turns many times; a closed ring has no way out."""
    n = 41
    walls = np.zeros((n, n), bool)
    for k in range(0, 18, 4):
        walls[k, k : n - k] = walls[k : n - k, n - 1 - k] = True
        walls[n - 1 - k, k + 2 : n - k] = True
        walls[k + 2 : n - k, k + 2] = True
    planes = np.stack([walls, np.roll(walls, 1, 1), np.pad(walls[1:-1, 1:-1], 1)])
    for flood in (False, True):
        words = plane_words.filled(
            plane_words.packed(jnp.asarray(planes, jnp.float32), np.float32(0.5)), flood
        )
        found = np.asarray(plane_words.unpacked(words, 3))
        expected = np.stack([ndimage.binary_fill_holes(plane) for plane in planes])
        np.testing.assert_array_equal(found, expected)


def test_more_planes_than_bits_of_a_word():
    vol = blobs((70, 24, 20), 2)
    np.testing.assert_array_equal(compute_tissue_mask(vol), by_scipy(vol, 1))


def test_a_block_in_agarose():
    tissue = block((12, *PLANE), slice(None), slice(16, 48), slice(12, 44))
    found = compute_tissue_mask(agarose(tissue.shape, tissue))
    assert found.shape == tissue.shape and found.dtype == bool
    assert not found.all() and iou(found, tissue) >= 0.9


def test_each_section_follows_its_own_tissue():
    left = block((24, *PLANE), slice(12), slice(16, 48), slice(4, 30))
    right = block((24, *PLANE), slice(12, 24), slice(16, 48), slice(34, 60))
    tissue = left | right
    vol = agarose(tissue.shape, tissue)
    found = compute_tissue_mask(vol, n_serial_slices=2, z_closing_sections=0)
    assert (found[:12] != found[12:]).any()
    assert iou(found[:12], left[:12]) >= 0.9 and iou(found[12:], right[12:]) >= 0.9


def test_an_oblique_block_is_followed():
    tissue = np.zeros((20, *PLANE), bool)
    for z in range(20):
        tissue[z, 20:44, 10 + z : 40 + z] = True
    found = compute_tissue_mask(agarose(tissue.shape, tissue))
    centre = np.array([np.argwhere(plane).mean(axis=0)[1] for plane in found])
    true = np.array([np.argwhere(plane).mean(axis=0)[1] for plane in tissue])
    assert centre[-1] - centre[0] > 5
    assert np.abs(centre - true).max() <= 1.5


def test_sections_without_a_threshold():
    shape = (36, *PLANE)
    vol = agarose(shape, block(shape, slice(None), slice(16, 44), slice(16, 44)))
    vol[12:24] = 0
    vol[14, 30, 30] = 1e-3
    alone = {"smoothing_sigma": 0, "smoothing_sigma_z": 0, "z_closing_sections": 0}
    found = compute_tissue_mask(vol, n_serial_slices=3, **alone)
    assert found[12:24].all() and not found[:12].all() and not found[24:].all()
    assert compute_tissue_mask(np.zeros((12, *PLANE))).all()  # fewer than 100 positive values
    assert not compute_tissue_mask(np.full((12, *PLANE), 0.7), **alone).any()


def test_sections_are_independent():
    vol = blobs((24, *PLANE), 3)
    whole = compute_tissue_mask(vol, n_serial_slices=2, z_closing_sections=0)
    np.testing.assert_array_equal(whole[12:], compute_tissue_mask(vol[12:]))


def test_a_jax_array_gives_the_same_on_its_device():
    vol = blobs((24, *PLANE), 4)
    found = compute_tissue_mask(jnp.asarray(vol), n_serial_slices=2)
    assert isinstance(found, jnp.ndarray)
    np.testing.assert_array_equal(found, compute_tissue_mask(vol, n_serial_slices=2))


def test_the_threshold_on_a_gpu_is_that_of_the_host(monkeypatch):
    values = blobs((6, 40, 30), 5) - 1
    low, high = values[values > 0].min(), values.max()
    expected = tissue_mask._threshold([values], low, high)
    assert expected == np.float32(filters.threshold_otsu(values[values > 0], tissue_mask.N_BINS))
    monkeypatch.setattr(tissue_mask, "is_on_gpu", lambda array: True)
    assert tissue_mask._threshold([jnp.asarray(values)], low, high) == expected


@pytest.mark.parametrize(
    ("vol", "more", "message"),
    [
        (np.ones((4, 4)), {}, "vol has shape"),
        (np.full((2, 4, 4), np.nan), {}, "vol has 32 values that are not finite"),
        (np.ones((2, 4, 4)), {"smoothing_sigma": -1}, "smoothing_sigma is -1"),
        (np.ones((2, 4, 4)), {"closing_radius": 1.5}, "closing_radius is 1.5"),
        (np.ones((2, 4, 4)), {"n_serial_slices": 3}, "sections is 3"),
        (np.ones((2, 4, 4)), {"edge": "mirror"}, "edge is 'mirror'"),
    ],
)
def test_bad_input_is_named(vol, more, message):
    with pytest.raises(ValueError, match=message):
        compute_tissue_mask(vol, **more)
