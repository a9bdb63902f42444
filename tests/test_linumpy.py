"""linumpy's names: defaults, buffers, sections, agreement with N4 of this package."""

import numpy as np
import pytest

import n4ax_bids
from n4ax_bids import N4Options, linumpy, n4
from tests.core.stack.stacks import cv, ellipsoid

SHORT = {"shrink_factor": 2, "n_iterations": (15, 15), "spline_distance_mm": 28.0}


@pytest.fixture(scope="module")
def known():
    return ellipsoid()


@pytest.fixture(scope="module")
def answer(known):
    return n4ax_bids.n4_correct(known.image, known.mask, **SHORT)


def test_the_numbers_are_those_of_n4_with_the_right_axes(known, answer):
    """28 planes and 56 rows: if axes were exchanged, the lattice would not fit."""
    options = N4Options(
        shrink_factor=2,
        n_iterations=(15, 15),
        convergence_threshold=1e-3,
        n_control_points=(5, 5, 4),
    )
    expected = n4(known.image.T, known.mask.T, options=options)
    np.testing.assert_allclose(answer[0], expected.T, rtol=1e-6)
    np.testing.assert_allclose(answer[0] * answer[1], known.image, rtol=1e-5)
    assert cv((answer[1] / known.field)[known.mask]) < 0.05


def test_buffers_are_filled_and_returned(known, answer):
    image, bias = known.image.copy(), np.empty_like(known.image)
    corrected, field = n4ax_bids.n4_correct(image, known.mask, **SHORT, out=image, bias_out=bias)
    assert corrected is image and field is bias
    np.testing.assert_allclose(image, answer[0], rtol=1e-6)
    np.testing.assert_allclose(bias, answer[1], rtol=1e-6)
    for name in ("out", "bias_out"):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            n4ax_bids.n4_correct(known.image, **SHORT, **{name: np.empty((2, 2, 2), np.float32)})


def test_each_section_is_as_if_alone(known):
    corrected, bias = n4ax_bids.n4_correct_per_section(
        known.image, 2, known.mask, n_processes=4, **SHORT
    )
    for part in (slice(14), slice(14, 28)):
        alone = n4ax_bids.n4_correct(known.image[part], known.mask[part], **SHORT)
        np.testing.assert_array_equal(corrected[part], alone[0])
        np.testing.assert_array_equal(bias[part], alone[1])


def test_the_fixed_lattice_of_the_gpu_call(known):
    corrected, bias = n4ax_bids.n4_correct_gpu(
        known.image, known.mask, **SHORT | {"spline_distance_mm": 14.0}, use_gpu=False
    )
    assert cv((bias / known.field)[known.mask]) < 0.05
    np.testing.assert_allclose(corrected * bias, known.image, rtol=1e-5)


def test_what_is_no_stack_is_refused():
    for call, more in ((n4ax_bids.n4_correct, ()), (n4ax_bids.n4_correct_per_section, (2,))):
        with pytest.raises(ValueError, match="vol has shape"):
            call(1.0, *more)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend is 'tpu'"):
        n4ax_bids.n4_correct(np.ones((4, 4, 4)), backend="tpu")


def test_a_gpu_that_is_missing_is_told(known):
    if linumpy.resolve("auto").platform != "cpu":
        pytest.skip("there is a GPU")
    with pytest.warns(n4ax_bids.N4Warning, match="the CPU is used"):
        n4ax_bids.n4_correct(known.image, known.mask, backend="gpu", **SHORT)


def test_apply_bias_field():
    vol, bias = np.array([2.0, 3.0]), np.array([2.0, 0.0])
    found = n4ax_bids.apply_bias_field(vol, bias, floor=0.5)
    np.testing.assert_array_equal(found, [1, 6])
    assert found.dtype == np.float32
    with pytest.raises(ValueError, match="bias has shape"):
        n4ax_bids.apply_bias_field(vol, bias[:1])


def test_sharpening_draws_tissues_together():
    rng = np.random.default_rng(0)
    tissue = rng.integers(0, 2, (20, 20, 20)).astype(np.float32)
    image = tissue + rng.normal(0, 0.06, tissue.shape).astype(np.float32)
    mask = np.ones(image.shape, bool)
    mask[:, :3] = False
    found = n4ax_bids.sharpen_residual(image, mask)
    assert found.shape == image.shape
    np.testing.assert_array_equal(found[:, :3], image[:, :3])
    inside = mask & (tissue == 1)
    assert found[inside].std() < 0.9 * image[inside].std()


@pytest.mark.parametrize("mask", (np.zeros((4, 4), bool), np.eye(4, dtype=bool)))
def test_nothing_to_sharpen(mask):
    image = np.full((4, 4), 0.5, np.float32)
    np.testing.assert_array_equal(n4ax_bids.sharpen_residual(image, mask), image)
