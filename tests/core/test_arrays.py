"""What may be passed as image, mask and weight, and what is said of the rest."""

import re
import warnings
from pathlib import Path

import jax
import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk

from n4ax_bids import n4, n4_batch, otsu_mask
from n4ax_bids.core.field import divide, evaluate
from n4ax_bids.core.n4.estimate import estimate
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.threshold import otsu_threshold
from n4ax_bids.options import N4Options
from n4ax_bids.phantoms import phantom

SHORT = N4Options(shrink_factor=2, n_iterations=(3, 3))
OFF_GRID = (12, 13, 11)
"""samples lie at odd places on the first axis"""


@pytest.fixture(scope="module")
def head():
    return phantom((24, 26, 22), seed=1)


FOREIGN = {
    "nibabel": (lambda x: nb.Nifti1Image(x, np.eye(4)), "pass np.asanyarray({}.dataobj)"),
    "SimpleITK": (sitk.GetImageFromArray, "pass SimpleITK.GetArrayFromImage({}).T"),
    "path": (lambda x: Path("T1w.nii.gz"), "for a file call n4ax_bids.correct"),
    "dict": (lambda x: {"image": x}, "{} is a dict; expected an array of real numbers"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_array_is_named_with_what_to_pass(head, kind):
    make, words = FOREIGN[kind]
    value = make(head.image)
    for name, call in {
        "image": lambda: n4(value),
        "mask": lambda: n4(head.image, value),
        "weight": lambda: n4(head.image, None, value),
        "images[1]: image": lambda: n4_batch([head.image, value]),
        "image ": lambda: otsu_mask(value),
    }.items():
        with pytest.raises(TypeError, match=re.escape(words.format(name.split()[-1]))) as raised:
            call()
        assert str(raised.value).startswith(name) and "\n" not in str(raised.value)


def test_names_of_files_are_no_arrays(head):
    for call in (lambda: n4("T1w.nii"), lambda: otsu_mask("T1w.nii"), lambda: n4_batch(["a.nii"])):
        with pytest.raises(TypeError, match="nii'; expected an array .*n4ax_bids.correct"):
            call()
    with pytest.raises(
        ValueError,
        match="mask is 'm.nii'; expected an array, 'otsu', 'auto', 'head', 'brain' or None",
    ):
        n4(head.image, "m.nii")
    for images in ("a.nii", nb.Nifti1Image(head.image, np.eye(4)), None):
        with pytest.raises(TypeError, match="images is .*; expected a list of arrays"):
            n4_batch(images)
    for options in ("fast", {"shrink_factor": 2}):
        with pytest.raises(TypeError, match="expected N4Options"):
            n4_batch([head.image], options=options)


@pytest.mark.parametrize(
    "transformed",
    [
        lambda image: jax.jit(n4)(image),
        lambda image: jax.vmap(n4)(image[None]),
        lambda image: jax.grad(lambda v: n4(v).sum())(image),
        lambda image: jax.jit(otsu_mask)(image),
        lambda image: jax.jit(otsu_threshold)(image),
        lambda image: jax.jit(lambda mask: n4(image, mask))(image),
        lambda image: jax.jit(lambda v: n4_batch([v]))(image),
    ],
)
def test_traced_values_are_refused_in_a_sentence(head, transformed):
    with pytest.raises(TypeError, match="traced by jit, vmap or grad.*n4_batch for many images"):
        transformed(head.image)


def test_the_path_that_composes_does(head):
    """What the message names: a field that was found can be evaluated and divided by."""
    image = jax.numpy.asarray(head.image)
    field = estimate(image, head.mask, plan=plan(SHORT, image.shape)).log_field
    box = [(0, n) for n in image.shape]
    expected = divide(head.image, field)[0]
    tolerance = {"rtol": 2e-6, "atol": 1e-6}  # another order of sums
    np.testing.assert_allclose(
        jax.jit(lambda v: divide(v, field)[0])(image), expected, **tolerance
    )
    many = jax.vmap(lambda v: divide(v, field)[0])(jax.numpy.stack([image, 2 * image]))
    np.testing.assert_allclose(many[1], 2 * expected, **tolerance)

    def total(lattice):
        moved = field._replace(lattice=lattice)
        return evaluate(moved, box).sum() + divide(image, moved)[0].sum()

    slope = jax.jit(jax.grad(total))(jax.numpy.asarray(field.lattice))
    assert slope.shape == field.lattice.shape and np.isfinite(slope).all()


def test_masked_arrays_leave_voxels_out_and_stay_masked(head):
    hidden = np.zeros(head.image.shape, bool)
    hidden[:, :9] = True
    spoiled = np.where(hidden, np.nan, head.image)
    image = np.ma.MaskedArray(spoiled, hidden)
    expected = n4(head.image, head.mask & ~hidden, options=SHORT, return_bias=True)
    for mask, weight in (
        (head.mask, None),
        (np.ma.MaskedArray(head.mask, hidden), None),
        (head.mask, np.ma.MaskedArray(np.ones(hidden.shape), hidden)),
        (np.ma.MaskedArray(np.ones(hidden.shape), ~head.mask), None),
    ):
        for one in (
            n4(image, mask, weight, options=SHORT, return_bias=True),
            [
                part[0]
                for part in n4_batch([image], [mask], [weight], options=SHORT, return_bias=True)
            ],
        ):
            for found, right in zip(one, expected, strict=True):
                np.testing.assert_array_equal(found.mask, hidden)
                np.testing.assert_array_equal(found.compressed(), right[~hidden])
    solved = plan(SHORT, image.shape)
    np.testing.assert_array_equal(
        estimate(image, np.ma.MaskedArray(head.mask, hidden), plan=solved).log_field.lattice,
        estimate(head.image, head.mask & ~hidden, plan=solved).log_field.lattice,
    )


def test_masked_mask_and_weight_of_a_plain_image(head):
    hidden = np.zeros(head.image.shape, bool)
    hidden[:, :9] = True
    expected = n4(head.image, head.mask & ~hidden, options=SHORT)
    mask, weight = (np.ma.MaskedArray(head.mask.astype(float), hidden) for _ in range(2))
    for given in ((mask, None), (None, weight)):
        found = n4(head.image, *given, options=SHORT)
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_otsu_of_a_masked_array(head):
    hidden = head.image > 0.8
    image = np.ma.MaskedArray(np.where(hidden, np.nan, head.image), hidden)
    level = otsu_threshold(head.image[~hidden])
    assert otsu_threshold(image) == level
    np.testing.assert_array_equal(otsu_mask(image), (head.image > np.float32(level)) & ~hidden)
    assert n4(image, options=SHORT).mask.sum() == hidden.sum()


@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf, 1e39))
@pytest.mark.parametrize("array", (np.asarray, jax.numpy.asarray), ids=("numpy", "jax"))
@pytest.mark.parametrize("place", (OFF_GRID, (13, 13, 11)), ids=("off the grid", "sampled"))
def test_values_that_are_not_finite_inside_the_mask(head, value, array, place):
    image = head.image.astype(float)
    image[place] = value
    image, words = array(image), re.escape(f"at voxel {place}, inside the mask")
    for mask, weight in ((head.mask, None), (None, None), (None, head.mask.astype(float))):
        with pytest.raises(ValueError, match=f"image has 1 value that is not finite.*{words}"):
            n4(image, mask, weight, options=SHORT)
        with pytest.raises(ValueError, match="not finite"):
            n4_batch([head.image, image], [mask] * 2, [weight] * 2, options=SHORT)
    with pytest.raises(ValueError, match="not finite"):
        n4(image, options=SHORT)


@pytest.mark.parametrize("array", (np.asarray, jax.numpy.asarray), ids=("numpy", "jax"))
def test_values_that_are_not_finite_outside_the_mask_stay(head, array):
    image = head.image.copy()
    image[0, 0, :2] = np.nan, np.inf
    expected = n4(head.image, head.mask, options=SHORT)
    found = np.asarray(n4(array(image), head.mask, options=SHORT))
    np.testing.assert_array_equal(~np.isfinite(found), ~np.isfinite(image))
    np.testing.assert_allclose(found[head.mask], expected[head.mask], rtol=1e-6)


def test_large_values_are_no_infinite_ones(head):
    """The sum of a slab overflows, its values do not."""
    image = head.image * np.float32(1e38)
    corrected = n4(image, head.mask, options=SHORT)
    assert np.isfinite(corrected).all()


def test_a_field_that_overflows_is_refused(head):
    options = N4Options(shrink_factor=2, n_iterations=(10, 10))
    with pytest.raises(ValueError, match="no usable field"):
        n4(-head.image * 1e9, None, options=options)


def test_masks_that_are_not_finite(head):
    between = np.ones(head.image.shape)
    between[2, 2, 2] = np.nan  # no sample at shrink 4
    for arrays in ((between, None), (None, between)):
        with pytest.raises(ValueError, match=r"not finite.*nan at voxel \(2, 2, 2\)"):
            n4(head.image, *arrays)
    outside = np.ones(head.image.shape, bool)
    outside[2, 2, 2] = False
    n4(head.image, outside, between, options=N4Options(n_iterations=(1,)))
    with pytest.raises(ValueError, match="mask has values that are not finite"):
        n4(head.image, np.where(head.mask, 1, np.nan), options=SHORT)
    with pytest.raises(ValueError, match="weight has .* values that are not finite"):
        n4(head.image, None, np.where(head.mask, 1, np.nan), options=SHORT)


def test_constant_arrays_are_called_so():
    for image in (np.full((20, 20, 20), 7.0), jax.numpy.full((20, 20, 20), 7.0)):
        with pytest.raises(ValueError, match="image is constant, every value is 7; expected"):
            n4(image)
        with pytest.raises(ValueError, match="image is constant"):
            n4_batch([image])


def test_a_mask_between_samples(head):
    mask = np.zeros(head.image.shape, bool)
    mask[11:13, 11:13, 11:13] = True
    mask[1::4, 1::4, 1::4] = mask[2::4, 2::4, 2::4] = False
    n = np.count_nonzero(mask)
    at = plan(N4Options(), head.image.shape)
    mask[tuple(slice(begin, None, 4) for begin in at.image_start)] = False
    n = np.count_nonzero(mask)
    for given in ((mask, None), (None, mask.astype(float))):
        words = rf"is sampled at shrink 4 x 4 x 4 \(it has {n}\); try shrink_factor=1"
        with pytest.raises(ValueError, match=words):
            n4(head.image, *given)
    with pytest.raises(ValueError, match="mask or weight is empty"):
        n4(head.image, mask, (~mask).astype(float))


def test_ordinary_calls_warn_of_nothing(head):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        n4(head.image, options=SHORT)
        n4_batch([head.image] * 2, options=SHORT)
