import tracemalloc

import jax
import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk

from n4ax_bids.core import threshold
from n4ax_bids.core.threshold import otsu_mask, otsu_threshold


def itk_otsu(image, n_bins=200):
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(n_bins)
    otsu.SetInsideValue(0)
    otsu.SetOutsideValue(1)
    mask = otsu.Execute(sitk.GetImageFromArray(np.ascontiguousarray(image.T)))
    return otsu.GetThreshold(), sitk.GetArrayFromImage(mask).T > 0


def images(rng):
    """Signed, rounded, half-empty and strongly scaled images of two classes."""
    for trial in range(60):
        values = rng.normal(size=(12, 11, 10)) * 10 ** rng.uniform(-3, 4)
        values += rng.uniform(-5, 5) * (trial % 2)
        if trial % 3 == 0:
            values = np.round(values)
        if trial % 7 == 0:
            values[::2] = 0
        values = np.concatenate([values, 3 * values + 4 * values.std()]).astype(np.float32)
        if values.min() < values.max():
            yield values


@pytest.mark.parametrize("n_bins", (16, 128, 200, 256))
def test_threshold_and_mask_are_those_of_itk(n_bins):
    for image in images(np.random.default_rng(n_bins)):
        level, mask = itk_otsu(image, n_bins)
        assert otsu_threshold(image, n_bins) == otsu_threshold(image, n_bins, threads=3) == level
        np.testing.assert_array_equal(otsu_mask(image, n_bins), mask)


def test_real_volumes(test_data):
    """Every real volume there is: heads, brain, spine, kidney, slices, label maps."""
    paths = sorted(test_data(".").rglob("*.nii*"))
    assert len(paths) > 15
    for path in paths:
        image = np.asarray(nb.load(path).get_fdata(), np.float32)
        image = image[..., 0] if image.ndim == 4 else image
        image = image.squeeze()
        level, mask = itk_otsu(image)
        assert otsu_threshold(image) == level, path.name
        np.testing.assert_array_equal(otsu_mask(image), mask, err_msg=path.name)


@pytest.mark.parametrize("power", (-80, -40, 40, 80))
def test_scale_makes_no_difference(power):
    """In ITK it does: it finds next to nothing in an image of values of 1e-7."""
    rng = np.random.default_rng(7)
    image = np.concatenate([rng.normal(1, 0.2, 5000), rng.normal(3, 0.3, 5001)]).astype(np.float32)
    scale = np.float32(2.0**power)
    assert otsu_threshold(scale * image) == scale * np.float32(otsu_threshold(image))


@pytest.mark.parametrize("n_bins", (200, 255, 256, 257))
@pytest.mark.parametrize("offset", (0, 1e3, 1e5, 1e6))
def test_counts_are_exact_far_from_zero(offset, n_bins):
    """Where the edges themselves are rounded."""
    for whole in (False, True):
        rng = np.random.default_rng(n_bins)
        values = rng.integers(0, 1001, 30001) if whole else rng.uniform(0, 1001, 30001)
        values = (offset + values).astype(np.float32)
        edges = np.linspace(values.min(), values.max() + 0.5, n_bins + 1, dtype=np.float32)
        expected = np.bincount(np.searchsorted(edges, values, side="right") - 1, minlength=n_bins)
        np.testing.assert_array_equal(threshold.counts_between(values, edges), expected)


def test_memory_does_not_depend_on_the_values():
    image = np.zeros((200, 200, 50), np.float32)
    image[100:] = np.random.default_rng(0).uniform(0, 1e6, (100, 200, 50))
    tracemalloc.start()
    otsu_threshold(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < image.nbytes


def test_constant_image_has_no_foreground():
    image = np.full((5, 5), 3, np.float32)
    assert otsu_threshold(image) == 3
    assert not otsu_mask(image).any()


def test_what_cannot_be_split_is_named():
    with pytest.raises(ValueError, match="empty"):
        otsu_threshold(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="nan"):
        otsu_threshold(np.array([1, np.nan]))


def test_counts_of_the_device_are_those_of_the_host():
    """What an image on a GPU goes through, here on the CPU."""
    for image in images(np.random.default_rng(7)):
        low, bins = image.min(), np.float32(200)
        top = image.max() + np.ptp(image) / bins / np.float32(100)
        edges = low + np.arange(201, dtype=np.float32) * ((top - low) / bins)
        edges[-1] = top
        found = threshold.counts_on_device(image, edges)
        np.testing.assert_array_equal(found, threshold.counts_between(image.ravel(), edges))


def test_mask_of_a_jax_array_is_one():
    image = next(images(np.random.default_rng(8)))
    mask = otsu_mask(jax.numpy.asarray(image))
    assert isinstance(mask, jax.Array)
    np.testing.assert_array_equal(mask, otsu_mask(image))
