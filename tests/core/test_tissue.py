"""The tissue method on arrays: a known field, images that share one, the fall-back, odd inputs."""

from __future__ import annotations

import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from n4ax_bids import N4Warning, TissueOptions, tissue, tissue_batch, tissue_joint
from n4ax_bids.core.estimator import Given
from n4ax_bids.core.field import LogField, divide
from n4ax_bids.core.metrics import field_error
from n4ax_bids.core.tissue import estimate as estimates
from n4ax_bids.core.tissue import method
from n4ax_bids.options.tissue import CONTRASTS
from n4ax_bids.phantoms import CSF, GREY, WHITE, Phantom, mni152, phantom

SHAPE = (32, 30, 28)
ZOOMS = (4.0, 4.0, 4.0)
MAPS = TissueOptions(posteriors=True, contrast="T1w")


@pytest.fixture(scope="module")
def made() -> Phantom:
    return phantom(SHAPE, seed=1, field="coils", amplitude=0.5, noise=0.01)


@pytest.fixture(scope="module")
def estimate(made):
    return method.prepare(Given(made.image, made.mask, None, ZOOMS), MAPS)(None)


def test_a_known_field_is_found(made, estimate):
    _, log_bias = divide(made.image, estimate.log_field)
    before = made.log_field[made.mask].std()
    error = field_error(log_bias, made.log_field, made.mask).rmse
    assert error < 0.1 * before
    assert isinstance(estimate.log_field, LogField) and not estimate.details.fell_back
    assert abs(log_bias[made.mask].mean()) < 0.05


def test_the_posteriors_are_the_tissues(made, estimate):
    assert list(estimate.images) == ["CSF", "GM", "WM"]
    total = sum(estimate.images.values())
    assert total.max() <= 1 + 1e-5 and total[~made.mask].max() == 0
    for name, label in (("CSF", CSF), ("GM", GREY), ("WM", WHITE)):
        inside = made.labels == label
        assert estimate.images[name][inside].mean() > 0.9
        assert estimate.images[name].dtype == np.float32


def test_details_say_what_was_found(estimate):
    details = estimate.details
    assert details.n_rounds == len(details.changes) <= 50
    assert sum(details.class_shares) + details.outliers == pytest.approx(1, abs=0.01)
    assert list(details.class_means) == sorted(details.class_means)
    assert set(details.class_tissues) == {"CSF", "GM", "WM"}
    section = np.array(details.tissue_section)
    assert max(section.shape) <= 32 and set(np.unique(section)) == {0, 1, 2, 3}
    assert details.misfit < 0.03 and 0.005 < details.noise < 0.02


def test_a_second_call_is_equal_to_the_last_bit(made, estimate):
    again = method.prepare(Given(made.image, made.mask, None, ZOOMS), MAPS)(None)
    assert again.log_field.lattice.tobytes() == estimate.log_field.lattice.tobytes()


def test_the_public_calls_agree(made, estimate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corrected, log_bias = tissue(made.image, made.mask, zooms=ZOOMS, return_bias=True)
        on_device = tissue(jnp.asarray(made.image), made.mask, zooms=ZOOMS)
        (listed,) = tissue_batch([made.image], [made.mask], zooms=[ZOOMS])
    assert isinstance(on_device, jax.Array)
    np.testing.assert_allclose(corrected * np.exp(log_bias), made.image, rtol=1e-5)
    np.testing.assert_allclose(on_device, corrected, rtol=1e-5)
    np.testing.assert_array_equal(listed, corrected)


def test_two_images_share_one_field(made, estimate):
    """The second has the tissues in another order; an image of few voxels has no part in it."""
    level = np.array([0, 150, 100, 60], np.float32)[made.labels]
    other = level * np.exp(made.log_field)
    both, field = tissue_joint([made.image, other], made.mask, zooms=ZOOMS, return_bias=True)
    assert (
        field_error(field, made.log_field, made.mask).rmse < 0.1 * made.log_field[made.mask].std()
    )
    for image, corrected in zip((made.image, other), both, strict=True):
        np.testing.assert_allclose(corrected, image / np.exp(field), rtol=1e-5)
    alone = tissue_joint([made.image], [made.mask], zooms=ZOOMS, return_bias=True)[1]
    np.testing.assert_array_equal(alone, divide(made.image, estimate.log_field)[1])

    few = np.zeros(SHAPE, np.float32)
    few[14:17, 14:17, 14:17] = np.arange(1, 28).reshape(3, 3, 3)
    with pytest.warns(N4Warning, match=r"images\[1\]: .*the field is that of the other images"):
        field = tissue_joint(
            [made.image, few], [made.mask, few > 0], zooms=ZOOMS, return_bias=True
        )[1]
    np.testing.assert_array_equal(field, alone)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        tissue_joint([few, few], few > 0, zooms=ZOOMS)
    assert sum("that of a coarse N4" in str(each.message) for each in told) == 2
    with pytest.raises(ValueError, match=r"images\[1\] has shape .*share a field"):
        tissue_joint([made.image, other[1:]], "otsu", zooms=ZOOMS)


def test_an_image_that_the_model_does_not_fit_has_no_part_in_a_joint_field(made, estimate):
    """A texture without tissue levels: regions differ in ways that no smooth field explains."""
    noise = np.random.default_rng(0).standard_normal(SHAPE)
    smooth = ndimage.gaussian_filter(noise, 2.5)
    texture = np.exp(0.4 * smooth / smooth.std()).astype(np.float32)
    options = TissueOptions(largest_misfit=2 * estimate.details.misfit)
    images, given = [made.image, texture], {"zooms": ZOOMS, "return_bias": True}
    with pytest.warns(N4Warning, match=r"images\[1\]: .*the field is that of the other images"):
        field = tissue_joint(images, made.mask, options=options, **given)[1]
    alone = divide(made.image, estimate.log_field)[1]
    np.testing.assert_array_equal(field, alone)
    loose = TissueOptions(largest_misfit=1.0)
    assert np.abs(tissue_joint(images, made.mask, options=loose, **given)[1] - alone).max() > 0.01


def test_the_scale_of_the_image_does_not_matter(made, estimate):
    scaled = method.prepare(Given(1000 * made.image, made.mask, None, ZOOMS), MAPS)(None)
    found = (scaled.log_field.lattice, estimate.log_field.lattice)
    assert abs(found[0] - found[1]).max() < 2e-3


def test_a_model_that_does_not_fit_gives_a_coarse_n4(made):
    strict = TissueOptions(largest_misfit=0)
    with pytest.warns(
        N4Warning, match="do not fit this image .the misfit is .*expected at most 0"
    ):
        _, log_bias = tissue(made.image, made.mask, zooms=ZOOMS, options=strict, return_bias=True)
    plain = method.n4.prepare(Given(made.image, made.mask, None, ZOOMS), method.COARSE_N4)(None)
    np.testing.assert_array_equal(log_bias, divide(made.image, plain.log_field)[1])


def test_a_texture_without_tissues_does_not_fit():
    texture = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 2.5)
    image = np.exp(0.4 * texture / texture.std()).astype(np.float32)
    found = method.prepare(Given(image, np.ones(SHAPE), None, ZOOMS), TissueOptions())(None)
    assert found.details.fell_back and 0.04 < found.details.misfit < 0.1
    assert found.details.class_means and not found.details.class_tissues


def test_an_image_with_few_blocks_gives_a_coarse_n4():
    small = phantom((12, 12), amplitude=0.3)
    options = TissueOptions(posteriors=True)
    found = method.prepare(Given(small.image, small.mask, None, (4.0, 4.0)), options)(None)
    assert found.details.fell_back and found.details.misfit is None
    assert "too few blocks" in found.notes[0] and "maps are 0" in found.notes[0]
    assert all(not image.any() for image in found.images.values())


def test_odd_inputs_are_refused_or_left_out(made):
    with pytest.raises(ValueError, match=r"mask has shape \(2, 2\); expected the image's"):
        method.prepare(Given(made.image, np.ones((2, 2)), None, ZOOMS), MAPS)
    with pytest.raises(ValueError, match="leave no voxel"):
        method.prepare(Given(made.image, 0 * made.image, None, ZOOMS), MAPS)
    with pytest.raises(ValueError, match="no voxel inside the mask is above 0"):
        method.prepare(Given(-made.image, made.mask, None, ZOOMS), MAPS)
    with pytest.raises(ValueError, match=r"zooms is \(4.0, 0.0, 4.0\); expected 3 positive"):
        method.prepare(Given(made.image, None, None, (4.0, 0.0, 4.0)), MAPS)
    with pytest.raises(ValueError, match="knots is 5 mm, which needs 19575 control points"):
        tissue(made.image, zooms=ZOOMS, options=TissueOptions(knots=5))
    with pytest.raises(TypeError, match="options is 'default'; expected TissueOptions"):
        tissue(made.image, options="default")
    odd = made.image.copy()
    odd[16, 15, 14], odd[10, 10, 10] = np.nan, -3
    image = estimates.image_of(Given(odd, made.mask, None, ZOOMS), MAPS)
    assert image.weight[16, 15, 14] == 0 and image.values[10, 10, 10] == 0
    unmasked = estimates.image_of(Given(made.image, None, None, ZOOMS), MAPS)
    assert "Otsu's threshold" in unmasked.notes[0] and not unmasked.weight.all()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("n_classes", 2, "3 to 16"),
        ("block_mm", 0.0, "0.01 to 1000"),
        ("largest_misfit", -1.0, "at least 0"),
        ("contrast", "T1", "unknown or T1w"),
        ("posteriors", 1, "True or False"),
    ],
)
def test_options_out_of_range_are_refused(name, value, expected):
    with pytest.raises(ValueError, match=f"{name} is {value!r}; expected {expected}"):
        TissueOptions(**{name: value})


def test_every_contrast_has_three_tissues():
    assert {len(set(each)) for each in CONTRASTS.values()} == {3}


@pytest.mark.large
def test_a_template_without_a_field_keeps_its_tissues():
    made = mni152("T1w", 0, "polynomial", 0.0, 0.05)
    found = np.asarray(tissue(made.image, made.mask, zooms=(1.0,) * 3, return_bias=True)[1])
    # 0.039 if all areas have the same shares of the classes
    assert found[made.mask].std() < 0.0355


def test_importing_it_needs_no_solver_of_the_other_methods():
    code = "import n4ax_bids.core.tissue.call, sys; assert 'optax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
