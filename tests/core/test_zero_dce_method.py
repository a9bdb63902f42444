"""The zero-shot method on arrays: recovery of a field, saturation, batches, odd inputs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from n4ax_bids import N4Options, N4Warning, ZeroShotOptions, zero_shot, zero_shot_batch
from n4ax_bids.core.estimator import Given
from n4ax_bids.core.field import LogField, divide
from n4ax_bids.core.metrics import coefficient_of_variation, field_error, joint_variation
from n4ax_bids.core.zero_dce import method, solve
from n4ax_bids.options.zero_shot import PRESETS
from n4ax_bids.phantoms import GREY, WHITE, Phantom, phantom

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHAPE = (48, 48, 48)
ZOOMS = (4.0, 4.0, 4.0)
VOXELS = ZeroShotOptions(scaled=False)
"""sizes in voxels: few samples, so that the tests take little time and share a program"""


@pytest.fixture(scope="module")
def made() -> Phantom:
    return phantom(SHAPE, seed=1, field="coils", amplitude=0.5)


@pytest.fixture(scope="module")
def estimate(made):
    given = Given(made.image, made.mask, None, ZOOMS)
    return method.prepare(given, VOXELS)(None)


@pytest.fixture(scope="module")
def both(made) -> tuple[np.ndarray, np.ndarray]:
    """The corrected image and its field, from the public call."""
    return zero_shot(made.image, made.mask, zooms=ZOOMS, options=VOXELS, return_bias=True)


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
    error = field_error(log_bias, made.log_field, made.mask)
    assert error.correlation >= 0.99 and error.rmse < 0.02
    assert not estimate.details.saturated and estimate.notes == ()


@pytest.mark.parametrize(("kind", "tissue"), [("water", 2), ("fat", 1)])
def test_a_pelvis_under_a_field_of_1_to_8_gets_flatter_than_with_n4(kind, tissue):
    """Sizes in voxels, so that the compiled program is that of the other tests."""
    spec = importlib.util.spec_from_file_location("dixon", EXAMPLES / "dixon.py")
    dixon = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dixon)
    made = dixon.pelvis(kind)
    options = replace(PRESETS["dixon"], scaled=False)
    image, log_bias = dixon.corrected(made, options)
    by_n4, _ = dixon.corrected(made, N4Options())
    true = made.image / np.exp(made.log_field)
    ours, n4s, best = (
        coefficient_of_variation(each, made.labels == tissue) for each in (image, by_n4, true)
    )
    assert ours < n4s and ours < best + 0.01, (ours, n4s, best)
    assert field_error(log_bias, made.log_field, made.body).rmse < 0.03


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


def test_it_is_a_log_field_and_field_times_corrected_is_the_input(made, estimate, both):
    assert isinstance(estimate.log_field, LogField)
    corrected, log_bias = both
    inside = made.mask
    product = corrected * np.exp(log_bias)
    np.testing.assert_allclose(product[inside], made.image[inside], rtol=1e-5)
    expected = divide(made.image, estimate.log_field)[1]
    np.testing.assert_array_equal(log_bias, expected)


def test_scaling_the_image_scales_the_result(made, both):
    # A power of two changes no bit of the scaled image; others change roundings, which the
    # steps of the optimiser enlarge.
    other = zero_shot(made.image * 1024, made.mask, zooms=ZOOMS, options=VOXELS)
    np.testing.assert_allclose(other, 1024 * both[0], rtol=1e-6)


def test_the_literal_loss_saturates_and_says_so(made):
    """Empty regions never become bright enough, so that the curve goes to its limit everywhere.

    Nothing differs from the preset `paper` but the weight of the exposure, which is 10 in the code
    of Zero-DCE++. A coefficient of variation of nearly 0 then says nothing.
    """
    options = replace(PRESETS["paper"], weight_exposure=10.0)
    found = method.prepare(Given(made.image, made.mask, None, ZOOMS), options)(None)
    bright = found.images[method.CURVE]
    before = variations(made.image, made)[:2]
    after = variations(bright, made)[:2]
    assert min(before) > 0.1 and max(after) < 0.01, (before, after)
    assert abs(ratio(bright, made) - 1) < 0.01
    assert found.notes[0].startswith("saturated: the tone map is at its limit in 100%")
    details = found.details
    assert details.saturated and details.saturated_share > 0.99 and details.alpha_max > 0.95


def test_the_preset_paper_lowers_the_variation_and_returns_the_brightened_image(made):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bright, log_bias = zero_shot(
            made.image, made.mask, zooms=ZOOMS, options=PRESETS["paper"], return_bias=True
        )
    assert bright.shape == made.image.shape and bright.dtype == np.float32
    after, before = variations(bright, made), variations(made.image, made)
    assert after[0] < before[0] and after[1] < before[1]
    assert not np.allclose(bright, made.image / np.exp(log_bias), rtol=0.01)
    assert bright.max() <= np.percentile(made.image[made.mask], 99.9) * 1.001


def test_a_batch_is_the_same_as_one_by_one(made, both):
    images = [made.image, made.image[:44, :40], 2 * made.image]
    masks = [made.mask, made.mask[:44, :40], made.mask]
    given = {"zooms": [ZOOMS] * 3, "options": VOXELS, "return_bias": True}
    _, together = zero_shot_batch(images, masks, **given)
    _, second = zero_shot(images[1], masks[1], zooms=ZOOMS, options=VOXELS, return_bias=True)
    for log_bias, alone in zip(together, (both[1], second, both[1]), strict=True):
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


def test_options_that_do_not_fit_are_refused_before_a_mask_is_searched_for():
    with pytest.raises(ValueError, match="field_spacing is 1 mm"):
        zero_shot(np.ones(SHAPE), "brain", options=ZeroShotOptions(field_spacing=1))


def test_a_batch_says_which_image_is_refused(made):
    with pytest.raises(ValueError, match=r"images\[1\]: no voxel inside the mask is above 0"):
        zero_shot_batch([made.image, np.zeros(SHAPE)], [made.mask, np.ones(SHAPE)])


def test_a_weight_counts_as_a_mask_does_and_at_most_1(made):
    weight = np.where(made.mask, 3.0, -1.0)
    weight[24] = 0.25
    alone, both = (
        solve.image_of(Given(made.image, mask, weight, ZOOMS), VOXELS).foreground
        for mask in (None, np.arange(48)[:, None, None] < np.full(SHAPE, 30))
    )
    np.testing.assert_array_equal(alone, np.clip(weight, 0, 1))
    np.testing.assert_array_equal(both[:30], alone[:30])
    assert not both[30:].any()


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


def test_a_plane_and_an_array_on_a_device_and_a_short_axis_is_told():
    made = phantom((64, 60), seed=2, amplitude=0.4)
    image, mask = jnp.asarray(made.image[:, 24:35]), made.mask[:, 24:35]
    with pytest.warns(N4Warning, match="an axis of 11 voxels is short: .* shrunk by 4x2"):
        corrected = zero_shot(image, mask, zooms=(2.0, 2.0))
    assert corrected.shape == image.shape and not isinstance(corrected, np.ndarray)
    assert np.isfinite(np.asarray(corrected)[mask]).all()


def test_optax_is_needed_only_by_the_fit():
    code = (
        "import sys, importlib, pkgutil; sys.modules['optax'] = None\n"
        "import n4ax_bids.core.zero_dce as folder\n"
        "for each in pkgutil.walk_packages(folder.__path__, folder.__name__ + '.'):\n"
        "    importlib.import_module(each.name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
