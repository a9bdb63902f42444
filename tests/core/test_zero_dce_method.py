"""The zero-shot method on arrays: recovery of a field, saturation, batches, odd inputs."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from n4ax_bids import N4Warning, ZeroShotOptions, zero_shot, zero_shot_batch
from n4ax_bids.core.estimator import Given
from n4ax_bids.core.field import LogField, divide
from n4ax_bids.core.metrics import coefficient_of_variation, field_error, joint_variation
from n4ax_bids.core.zero_dce import method
from n4ax_bids.options.zero_shot import PRESETS
from n4ax_bids.phantoms import GREY, WHITE, Phantom, phantom

SHAPE = (48, 48, 48)
ZOOMS = (4.0, 4.0, 4.0)
VOXELS = ZeroShotOptions(scaled=False)
"""sizes in voxels: few samples, so that the tests take little time and share a program"""
TISSUES = {"grey": GREY, "white": WHITE}


@pytest.fixture(scope="module")
def made() -> Phantom:
    return phantom(SHAPE, seed=1, field="coils", amplitude=0.5)


@pytest.fixture(scope="module")
def estimate(made):
    given = Given(made.image, made.mask, None, ZOOMS)
    return method.prepare(given, VOXELS)(None)


def variations(image, made) -> tuple[float, float, float]:
    grey, white = made.labels == GREY, made.labels == WHITE
    of = (coefficient_of_variation(image, tissue) for tissue in (grey, white))
    return *of, joint_variation(image, white, grey)


def ratio(image, made) -> float:
    return image[made.labels == GREY].mean() / image[made.labels == WHITE].mean()


def test_a_known_field_is_found(made, estimate):
    corrected, log_bias = divide(made.image, estimate.log_field)
    before, after = variations(made.image, made), variations(corrected, made)
    assert all(b > a for b, a in zip(before, after, strict=True)), (before, after)
    truth = ratio(made.image / np.exp(made.log_field), made)
    assert abs(ratio(corrected, made) / truth - 1) < 0.1
    assert field_error(log_bias, made.log_field, made.mask).correlation >= 0.85
    assert not estimate.details.saturated and estimate.notes == ()


def test_the_loss_falls_and_nothing_is_nan(estimate):
    losses = np.array(estimate.details.losses)
    assert losses.size == VOXELS.n_steps + 1 and np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert estimate.details.n_parameters == 2964
    assert estimate.details.factors == (8, 8, 8)


def test_the_same_seed_gives_the_same_bits(made, estimate):
    again = method.prepare(Given(made.image, made.mask, None, ZOOMS), VOXELS)(None)
    assert (again.log_field.lattice == estimate.log_field.lattice).all()
    assert again.details == estimate.details


def test_it_is_a_log_field_and_field_times_corrected_is_the_input(made, estimate):
    assert isinstance(estimate.log_field, LogField)
    corrected, log_bias = zero_shot(
        made.image, made.mask, zooms=ZOOMS, options=VOXELS, return_bias=True
    )
    inside = made.mask
    product = corrected * np.exp(log_bias)
    np.testing.assert_allclose(product[inside], made.image[inside], rtol=1e-5)
    expected = divide(made.image, estimate.log_field)[1]
    np.testing.assert_array_equal(log_bias, expected)


def test_scaling_the_image_scales_the_result(made):
    one = zero_shot(made.image, made.mask, zooms=ZOOMS, options=VOXELS)
    # A power of two changes no bit of the scaled image; others change roundings, which the
    # steps of the optimiser enlarge.
    other = zero_shot(made.image * 1024, made.mask, zooms=ZOOMS, options=VOXELS)
    np.testing.assert_allclose(other, 1024 * one, rtol=1e-6)


def test_the_literal_loss_saturates_and_says_so(made):
    """Empty regions never become bright enough, so that the curve goes to its limit everywhere."""
    body = made.mask
    options = replace(
        PRESETS["paper"], weight_exposure=1000.0, learning_rate=0.1, weight_smooth=0.0
    )
    with pytest.warns(N4Warning, match="saturated: the tone map is at its limit"):
        bright = zero_shot(made.image, body, zooms=ZOOMS, options=options)
    for tissue in TISSUES.values():
        assert coefficient_of_variation(bright, made.labels == tissue) < 0.05
    details = method.prepare(Given(made.image, body, None, ZOOMS), options)(None).details
    assert details.saturated and details.alpha_max > 0.95


def test_the_preset_paper_lowers_the_variation_and_returns_the_brightened_image(made):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bright, log_bias = zero_shot(
            made.image, made.mask, zooms=ZOOMS, options=PRESETS["paper"], return_bias=True
        )
    assert bright.shape == made.image.shape and bright.dtype == np.float32
    assert variations(bright, made)[0] < variations(made.image, made)[0]
    assert not np.allclose(bright, made.image / np.exp(log_bias), rtol=0.01)
    assert bright.max() <= np.percentile(made.image[made.mask], 99.9) * 1.001


def test_a_batch_is_the_same_as_one_by_one(made):
    images = [made.image, made.image[:44, :40], 2 * made.image]
    masks = [made.mask, made.mask[:44, :40], made.mask]
    given = {"zooms": [ZOOMS] * 3, "options": VOXELS, "return_bias": True}
    _, together = zero_shot_batch(images, masks, **given)
    for image, mask, log_bias in zip(images[:2], masks[:2], together[:2], strict=True):
        _, alone = zero_shot(image, mask, zooms=ZOOMS, options=VOXELS, return_bias=True)
        # The order of sums may differ in a batch; 100 steps of the optimiser enlarge that.
        np.testing.assert_allclose(log_bias, alone, atol=5e-3)


def test_a_uniform_image_stays_uniform():
    image = np.full(SHAPE, 7.0, np.float32)
    corrected = zero_shot(image, None, zooms=ZOOMS, options=VOXELS)
    assert np.abs(corrected / corrected.mean() - 1).max() < 0.02


@pytest.mark.parametrize(
    ("image", "mask", "said"),
    [
        (np.zeros(SHAPE), np.ones(SHAPE), "no voxel inside the mask is above 0"),
        (np.ones(SHAPE), np.zeros(SHAPE), "mask and weight leave no voxel"),
        (np.ones(SHAPE), np.ones((3, 3, 3)), "mask has shape"),
        (np.ones((2, 2, 2, 2)), None, "expected 2 or 3 axes"),
    ],
)
def test_what_cannot_be_corrected_is_refused_in_one_line(image, mask, said):
    with pytest.raises(ValueError, match=said) as refused:
        zero_shot(image, mask)
    assert "\n" not in str(refused.value)


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match=r"PRESETS\['dixon'\]"):
        zero_shot(np.ones(SHAPE), None, options="dixon")
    with pytest.raises(TypeError, match="did you mean n_steps"):
        ZeroShotOptions(n_step=3)
    for name, value, said in (
        ("n_steps", 0, "1 to 100000"),
        ("exposure", 1.5, "above 0, at most 1"),
        ("region_exposure", 6, "a multiple of block, 4"),
        ("output", "image", "field or curve"),
        ("background", 1, "True or False"),
        ("weight_prior", -1, "at least 0"),
        ("field_spacing", 0, "a positive number of mm"),
        ("gradient_clip", 0, "a number above 0"),
    ):
        with pytest.raises(ValueError, match=f"{name} is .*{said}"):
            ZeroShotOptions(**{name: value})


def test_values_that_are_not_finite_count_as_nothing(made):
    image = made.image.copy()
    image[0, 0, 0], image[1, 0, 0] = np.nan, -3
    mask = made.mask.copy()
    _, log_bias = zero_shot(image, mask, zooms=ZOOMS, options=VOXELS, return_bias=True)
    image[:2, 0, 0] = 0
    _, plain = zero_shot(image, mask, zooms=ZOOMS, options=VOXELS, return_bias=True)
    np.testing.assert_array_equal(log_bias, plain)


def test_a_plane_and_an_array_on_a_device():
    made = phantom((64, 60), seed=2, amplitude=0.4)
    image = jnp.asarray(made.image)
    corrected = zero_shot(image, made.mask, zooms=(2.0, 2.0))
    assert corrected.shape == image.shape and not isinstance(corrected, np.ndarray)
    assert np.isfinite(np.asarray(corrected)[made.mask]).all()


def test_a_short_axis_is_told(made):
    with pytest.warns(N4Warning, match="an axis of 11 voxels is short"):
        zero_shot(made.image[:, :, 20:31], made.mask[:, :, 20:31], zooms=ZOOMS, options=VOXELS)


def test_optax_is_needed_only_by_the_fit():
    code = (
        "import sys, importlib, pkgutil; sys.modules['optax'] = None\n"
        "import n4ax_bids.core.zero_dce as folder\n"
        "for each in pkgutil.walk_packages(folder.__path__, folder.__name__ + '.'):\n"
        "    importlib.import_module(each.name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
