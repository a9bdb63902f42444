"""Closed forms, and what the two measures of evenness do not see."""

from __future__ import annotations

import numpy as np
import pytest

from n4ax_bids.core.metrics import coefficient_of_variation, field_error, joint_variation


@pytest.fixture
def tissues(rng):
    white = np.zeros((10, 10, 10), bool)
    white[:5] = True
    image = np.where(white, 100.0, 60.0) + rng.normal(0, 3, white.shape)
    return image, white, ~white


def test_closed_forms():
    image = np.array([[1.0, 3.0], [10.0, 14.0]])
    low, high = image < 5, image > 5
    assert coefficient_of_variation(image, low) == pytest.approx(1 / 2)
    assert coefficient_of_variation(image, high) == pytest.approx(2 / 12)
    assert joint_variation(image, high, low) == pytest.approx((2 + 1) / (12 - 2))


def test_scale_and_order_of_the_tissues_do_not_matter(tissues):
    image, white, grey = tissues
    assert coefficient_of_variation(7 * image, white) == pytest.approx(
        coefficient_of_variation(image, white)
    )
    assert joint_variation(7 * image, white, grey) == pytest.approx(
        joint_variation(image, grey, white)
    )


def test_only_the_joint_measure_sees_an_offset_and_lost_contrast(tissues):
    image, white, grey = tissues
    assert joint_variation(image + 50, white, grey) == pytest.approx(
        joint_variation(image, white, grey)
    )
    lost = np.where(white, image - 35, image)
    assert joint_variation(lost, white, grey) > 5 * joint_variation(image, white, grey)
    assert coefficient_of_variation(lost, white) < 0.06


def test_equal_means_are_infinitely_hard_to_tell_apart():
    image = np.array([1.0, 3.0, 0.0, 4.0])
    assert joint_variation(image, image % 2 == 1, image % 2 == 0) == float("inf")


def test_float32_sums_survive_a_large_offset():
    image = np.full((100, 100, 100), 1e4, np.float32)
    image[::2] += 1
    assert coefficient_of_variation(image, np.ones(image.shape, bool)) == pytest.approx(
        0.5 / 10000.5, rel=1e-6
    )


def test_field_error(rng):
    truth = rng.normal(size=(8, 8))
    everywhere = np.ones(truth.shape, bool)
    exact = field_error(truth + 0.3, truth, everywhere)
    assert exact == pytest.approx((1, 0), abs=1e-12)
    half = field_error(truth / 2, truth, everywhere)
    assert half == pytest.approx((1, truth.std() / 2))
    assert field_error(-truth, truth, everywhere).correlation == pytest.approx(-1)
    assert np.isnan(field_error(np.zeros_like(truth), truth, everywhere).correlation)


def test_only_the_mask_counts(rng):
    truth = rng.normal(size=(8, 8))
    wrong = truth.copy()
    wrong[0] += 100
    mask = np.ones(truth.shape, bool)
    mask[0] = False
    assert field_error(wrong, truth, mask).rmse == 0


@pytest.mark.parametrize("measure", [coefficient_of_variation, joint_variation, field_error])
def test_bad_masks_are_refused(measure):
    image, full = np.ones((4, 4)), np.ones((4, 4), bool)
    extra = () if measure is coefficient_of_variation else (full,)
    with pytest.raises(ValueError, match="empty; expected at least one voxel"):
        measure(image, *extra, ~full)
    with pytest.raises(ValueError, match=r"shape \(4, 3\); expected the image's \(4, 4\)"):
        measure(image, *extra, full[:, :3])


def test_a_mean_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="mean in the mask is 0.0; expected a positive one"):
        coefficient_of_variation(np.array([-1.0, 1.0]), np.ones(2, bool))
