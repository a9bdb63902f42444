"""Masks that bright voxels decided, few samples, and fields that are none."""

import warnings

import jax
import nibabel as nb
import numpy as np
import pytest

from n4ax_bids import N4Options, N4Warning, n4, n4_batch
from n4ax_bids.core.n4.automatic import check_automatic_mask
from n4ax_bids.core.n4.estimate import estimate
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.n4.remarks import beyond_range, few_samples
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.phantoms import phantom

QUICK = N4Options(n_iterations=(2, 2))


@pytest.fixture(scope="module")
def head():
    return phantom((44, 52, 47), seed=1)


def with_hot_spot(image, size, factor, constant):
    hot = image.copy()
    place = tuple(slice(n // 2 - size // 2, n // 2 - size // 2 + size) for n in image.shape)
    hot[place] = factor * image.max() if constant else factor * (image[place] + image.max())
    return hot


@pytest.mark.parametrize("constant", (True, False), ids=("constant", "varied"))
@pytest.mark.parametrize(
    "size, factor",
    [(8, 15), (6, 30), (2, 30), (3, 100), (4, 15), (6, 8), (8, 5), (10, 15), (12, 4), (14, 15)]
    + [(16, 5), (18, 15), (20, 15), (24, 8)],
)
def test_no_hot_spot_decides_the_mask_in_silence(head, size, factor, constant):
    image = with_hot_spot(head.image, size, factor, constant)
    assert otsu_mask(image).mean() < 0.15 < otsu_mask(head.image).mean()
    for given in (image, jax.numpy.asarray(image)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                n4(given, options=QUICK)
            except ValueError as error:
                assert "expected another mask" in str(error) and "of 1573 samples" in str(error)
            else:
                (warning,) = told
                assert warning.category is N4Warning and warning.filename == __file__
                assert "leaves out an object" in str(warning.message)


def test_fewer_samples_than_control_points_is_an_error(head):
    image = with_hot_spot(head.image, 8, 15, True)
    words = "holds 8 of 1573 samples, fewer than the 64 control points.*smaller shrink factor"
    with pytest.raises(ValueError, match=words):
        n4(image, options=QUICK)
    with pytest.raises(ValueError, match=r"images\[1\]: Otsu's mask holds 8 of 1573"):
        n4_batch([head.image, image], options=QUICK)
    mask = otsu_mask(image)
    with pytest.warns(N4Warning, match="8 of 1573 samples take part"):
        n4(head.image, mask, options=QUICK)  # a mask that was passed is taken, as ANTs does


def test_batches_warn_with_the_number_of_the_image(head):
    image = with_hot_spot(head.image, 20, 15, False)
    with pytest.warns(N4Warning, match=r"images\[1\]: Otsu's mask holds") as told:
        n4_batch([head.image, image], options=QUICK)
    assert len(told) == 1 and told[0].filename == __file__


@pytest.mark.parametrize("radius", (0.3, 0.6, 0.9))
def test_a_ball_in_noise_leaves_nothing_out(radius):
    """A test object of one material: what is outside the mask is noise, however it is split."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing="ij", sparse=True)
    ball = 100.0 * (sum(x**2 for x in axes) < radius**2)
    noise = rng.normal(0, 2, ball.shape) + 1j * rng.normal(0, 2, ball.shape)
    image = np.abs(ball + noise).astype(np.float32)
    solve = plan(N4Options(shrink_factor=2), image.shape)
    assert check_automatic_mask(image, otsu_mask(image), solve) is None


@pytest.mark.parametrize("size, factor", [(8, 30), (10, 30), (12, 8), (12, 30), (14, 15)])
def test_a_shaded_hot_spot_is_told(head, size, factor):
    """Its dim part is outside the mask and brighter than the object: one split finds that only."""
    image = np.pad(head.image * np.linspace(0.6, 1.6, 44)[:, None, None], 8).astype(np.float32)
    image[tuple(slice(n // 2 - 5, n // 2 - 5 + size) for n in image.shape)] *= factor
    mask = otsu_mask(image)
    solve = plan(N4Options(shrink_factor=2), image.shape)
    try:
        said = check_automatic_mask(image, mask, solve)
    except ValueError as error:
        said = str(error)
    assert "may have decided it" in said


def test_a_small_share_is_told(head):
    """A small object in a large field of view, none left out."""
    image = np.zeros((120, 120, 120), np.float32)
    image[50:70, 50:70, 50:70] = head.image[10:30, 16:36, 14:34] + 1
    with pytest.warns(N4Warning, match=r"holds 125 of 27000 samples \(0.46 %\)"):
        n4(image, options=QUICK)


@pytest.mark.parametrize("pad", (0, 40, 90))
def test_a_brain_in_a_large_field_of_view_is_silent(test_data, pad):
    image = np.asarray(nb.load(test_data("brain-niivue_FLAIR.nii.gz")).dataobj, np.float32)
    image = np.pad(image, pad)
    assert check_automatic_mask(image, otsu_mask(image), plan(QUICK, image.shape)) is None


def test_real_images_are_silent(test_data):
    """Heads, a brain, spines, a kidney and slices, at any usual spacing of samples."""
    left_out = ("dseg", "label", "mask", "Segmentation.", "Posteriors", "field_true")
    paths = [
        path
        for path in sorted(test_data(".").rglob("*.nii*"))
        if not any(part in path.name for part in left_out)
    ]
    assert len(paths) > 20
    for path in paths:
        image = np.asarray(nb.load(path).dataobj, np.float32)
        image = (image[..., 0] if image.ndim == 4 else image).squeeze()
        mask = otsu_mask(image)
        for factor in (1, 2, 4):
            solve = plan(N4Options(shrink_factor=factor), image.shape)
            assert check_automatic_mask(image, mask, solve) is None, (path.name, factor)


def test_fields_of_real_images_are_silent(test_data):
    """Where the mean of ln b drifts most, and an unmasked image."""
    path = test_data("slice2d-ixi002/T1w.nii.gz")
    image = np.asarray(nb.load(path).dataobj, np.float32).squeeze()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, log_bias = n4(image, return_bias=True)
        n4(image, None)
    assert np.abs(log_bias[otsu_mask(image)]).max() > 1


def test_small_images_are_solved_with_a_warning():
    small = phantom((14, 12, 13), seed=2)
    with pytest.warns(
        N4Warning, match="of 27 samples take part, fewer than the 64 control points"
    ):
        n4(small.image, options=QUICK)
    slice_2d = phantom((60, 48), seed=2)  # 16 control points
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        n4(slice_2d.image, options=QUICK)


def test_few_samples_say_what_to_do():
    shape = (20, 20, 20)
    assert few_samples(64, plan(QUICK, shape)) is None
    assert "smaller shrink factor" in few_samples(63, plan(QUICK, shape))
    assert "larger mask" in few_samples(63, plan(N4Options(shrink_factor=1), shape))
    assert "too small for N4" in few_samples(9, plan(N4Options(shrink_factor=1), (3, 3, 3)))
    assert few_samples(16, plan(QUICK, (20, 20, 1))) is None  # one slice in three axes


def test_a_field_beyond_the_range_of_the_image_is_told():
    assert beyond_range((0.0, 0.7), (-0.2, 0.49)) is None
    assert beyond_range((3.0, 3.7), (-1.3, -0.8)) is None  # the mean of ln b drifts
    assert "from -26.8 to -26.1 inside the mask" in beyond_range((0.0, 0.7), (-26.8, -26.1))
    assert beyond_range((3.0, 3.7), (-0.4, 0.4)) is not None


def test_two_values_sharpened_to_noise():
    """Rounding drops the upper class from the histogram; its bin is noise over noise."""
    options = N4Options(
        shrink_factor=1, n_iterations=(20, 20), histogram_sharpening=(0.01, 1e-4, 200)
    )
    seen, span = [], np.log(1000)
    for seed in (*range(6), 35, 42, 52):
        chosen = np.random.default_rng(seed).random((16, 16, 16)) < (0.1, 0.5, 0.9)[seed % 3]
        image = np.where(chosen, 1, 1000).astype(np.float32)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            _, log_bias = n4(image, None, options=options, return_bias=True)
        beyond = bool(np.ptp(log_bias) > span or np.abs(log_bias).max() > 5 * span)
        assert bool(told) is beyond
        seen.append(beyond)
    assert True in seen and False in seen


@pytest.mark.parametrize("path", ({}, {"on_device": True}, {"memory": "slabs"}), ids=str)
def test_ranges_are_those_of_the_voxels_that_take_part(head, path):
    from n4ax_bids.core.field import evaluate
    from n4ax_bids.core.n4.take import take

    solve = plan(N4Options(shrink_factor=1, n_iterations=(3, 0, 2)), head.image.shape)
    image = np.where(head.mask, head.image, 1e6).astype(np.float32)
    if path.get("memory"):
        with jax.enable_x64(True):
            path = {"memory": take(image, head.mask, None, solve).n_bytes(4)}
    result = estimate(image, head.mask, plan=solve, **path)
    log_image = np.log(image[head.mask])
    log_field = np.asarray(evaluate(result.log_field, [(0, n) for n in image.shape]))[head.mask]
    for found, values in (
        (result.log_image_range, log_image),
        (result.log_field_range, log_field),
    ):
        np.testing.assert_allclose(found, (values.min(), values.max()), atol=2e-6)


@pytest.mark.parametrize("n", (2, 3, 16))
def test_where_the_image_only_rises_all_voxels_count(n):
    """ITK 5 finds no minimum there and divides by its largest number (docs/method.md §4.1)."""
    mask = np.zeros((16, 16, 16), bool)
    mask[:n, 8, 8] = True
    image = np.ones(mask.shape, np.float32)
    image[:n, 8, 8] = np.linspace(1, 2, n)
    lattices = [
        estimate(image, mask, plan=plan(options, mask.shape)).log_field.lattice
        for options in (
            N4Options(shrink_factor=1, n_iterations=(3,), itk_version=version) for version in "56"
        )
    ]
    np.testing.assert_array_equal(*lattices)
    assert np.abs(lattices[0]).max() < 0.1


@pytest.mark.parametrize(("n", "times", "background"), [(14, 15, 0), (17, 8, 0), (17, 5, 20)])
def test_a_large_hot_spot_of_uneven_brightness_is_told(n, times, background):
    """The object that is left out is uneven as well: by its field, and by two tissues."""
    shape, rng = (40, 44, 30), np.random.default_rng(0)
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"))
    radius = (x**2).sum(0)
    body = radius < 0.6
    tissue = 100.0 * body + 60 * (radius < 0.25) + 60 * (body & (radius > 0.5))
    noise = rng.normal(0, 0.3 * background or 3, shape)
    image = np.abs(tissue * np.exp(0.4 * x[0] + 0.2 * x[1] ** 2) + noise + background)
    image[5 : 5 + n, 5 : 5 + n, 5 : 5 + n] = image.max() * times * rng.uniform(0.5, 1.5, (n,) * 3)
    image = image.astype(np.float32)
    mask = otsu_mask(image)
    assert np.count_nonzero(mask & body) < 0.3 * np.count_nonzero(body)
    told = check_automatic_mask(image, mask, plan(N4Options(shrink_factor=2), shape))
    assert "leaves out an object" in told


@pytest.mark.parametrize("mask", ["otsu", "given", None, "weight"])
def test_an_image_without_a_positive_value_is_told(head, mask):
    image, inside = -head.image - 1, np.asarray(head.mask)
    given = {"given": inside, "weight": None}.get(mask, mask)
    weight = inside.astype(np.float32) if mask == "weight" else None
    with pytest.warns(N4Warning, match="every voxel that is used is 0 or less"):
        n4(image, given, weight, options=QUICK)
    with pytest.warns(N4Warning, match=r"images\[0\]: every voxel that is used"):
        n4_batch([image], [given], [weight], options=QUICK)


def test_values_without_a_logarithm_are_counted_inside_a_mask_alone(head):
    inside = np.asarray(head.mask)
    image = np.where(inside & (head.image > np.median(head.image[inside])), -5, head.image)
    with pytest.warns(N4Warning, match="voxels inside the mask are 0 or less"):
        n4(image, inside, options=QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error", N4Warning)
        n4(np.where(inside, head.image, 0), None, options=QUICK)
