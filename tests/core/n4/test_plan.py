import numpy as np
import pytest

from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.n4.shrinking import padding, predict_shrink_start, shrink_factors
from n4ax_bids.options import N4Options


def test_positions_cover_the_spans():
    solved = plan(N4Options(shrink_factor=3), (31, 20), (1, 1))
    for axis, n in zip(solved.axes, (31, 20), strict=True):
        first, step, clamp = axis.image
        assert first == 0
        assert first + step * (n - 1) == pytest.approx(1)
        assert clamp == pytest.approx(1 - 1e-3 * step)
        first, step, _ = axis.sample
        assert first + step * (axis.count - 1) == pytest.approx(1)


def test_sample_takes_every_nth_voxel_inside_the_image():
    image = np.arange(31 * 20).reshape(31, 20)
    solved = plan(N4Options(shrink_factor=3), image.shape, (1, 1))
    assert solved.image_start == (2, 2)
    np.testing.assert_array_equal(solved.sample(image, solved.image_start), image[2:30:3, 2:18:3])


def test_spline_distance_pads_to_whole_spans():
    options = N4Options(bspline_fitting_distance=20.0)
    # 50 mm need 3 spans of 20 mm: 10 mm or 10 voxels more; 59 mm: 1 voxel more
    assert padding(options, (51, 60), (1.0, 1.0)) == ((5, 5), (0, 1))
    solved = plan(options, (51, 60), (1.0, 1.0))
    assert solved.n_control_points == (6, 6)
    first, step, _ = solved.axes[0].image
    assert (first, step) == pytest.approx((3 * 5 / 60, 3 / 60))


def test_samples_in_the_padding_are_left_out_and_keep_their_places():
    options = N4Options(bspline_fitting_distance=20.0, shrink_factor=4)
    solved = plan(options, (51, 51), (1.0, 1.0), image_start=(-5, -3))
    image = np.arange(51 * 51).reshape(51, 51)
    # -5, -1, 3, ... 47 and -3, 1, ... 49; the padded grid has 61 // 4 = 15 samples
    np.testing.assert_array_equal(solved.sample(image, solved.image_start), image[3:51:4, 1:51:4])
    assert solved.axes[0].sample[0] == pytest.approx(2 * 3 / 14)
    assert solved.axes[1].sample[0] == pytest.approx(1 * 3 / 14)


def test_mask_can_be_sampled_beside_the_image():
    """ANTs shrinks each file by its own header; a sample in the padding is 0."""
    options = N4Options(bspline_fitting_distance=20.0, shrink_factor=4)
    solved = plan(options, (51, 51), (1, 1), image_start=(-4, -3), mask_start=(-5, -3))
    image = np.arange(51 * 51).reshape(51, 51)
    sampled = solved.sample(image, solved.image_start)
    mask = solved.sample(np.ones((51, 51), bool), solved.mask_start)
    assert sampled.shape == mask.shape == solved.sample_shape
    np.testing.assert_array_equal(sampled, image[0:51:4, 1:51:4])
    assert not mask[0].any() and mask[1:].all()


def test_samples_lie_as_far_apart_as_asked():
    options = N4Options(shrink_mm=4.0)
    assert shrink_factors(options, (256, 256, 100, 3), (1.0, 0.7, 3.0, 0.1)) == (4, 6, 1, 1)
    assert shrink_factors(options, (256, 256, 20), (1.6, 5.0, 0.0)) == (2, 1, 1)


def test_a_distance_leaves_samples_on_the_axes_of_a_small_object():
    """A mouse in voxels of 0.15 mm is shrunk as ANTs does; finer heads as far as was asked."""
    options = N4Options(shrink_mm=4.0)
    assert shrink_factors(options, (112, 128, 80), (0.15,) * 3) == (4, 4, 4)
    assert shrink_factors(options, (340, 512, 512), (0.5,) * 3) == (8, 8, 8)
    assert shrink_factors(options, (340, 512, 512), (0.1,) * 3) == (10, 16, 16)
    fine = N4Options(shrink_mm=4.0, shrink_factor=1)
    assert shrink_factors(fine, (112, 128, 80), (0.15,) * 3) == (3, 4, 2)
    coarse = N4Options(shrink_mm=8.0, shrink_factor=8)
    assert shrink_factors(coarse, (112, 128, 80), (1.0,) * 3) == (8, 8, 8)


def test_thin_axes_are_shrunk_less():
    options = N4Options(shrink_factor=4)
    assert shrink_factors(options, (100, 6, 1), (1, 1, 1)) == (4, 3, 1)


@pytest.mark.parametrize(
    "shape, factor, expected", [(10, 4, 3), (12, 4, 2), (13, 4, 2), (9, 3, 1), (7, 1, 0)]
)
def test_phase_is_centred_and_rounded_up(shape, factor, expected):
    assert predict_shrink_start((shape,), (1.0,), (factor,), (0,)) == (expected,)


def test_phase_is_that_of_itk():
    sitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(0)
    for _ in range(100):
        shape = [int(n) for n in rng.integers(8, 60, 3)]
        factors = [int(s) for s in rng.integers(1, 5, 3)]
        zooms = [float(np.float32(z)) for z in rng.uniform(0.4, 3, 3)]
        index = np.ravel_multi_index(np.indices(shape), shape).astype(np.int32)
        image = sitk.GetImageFromArray(np.ascontiguousarray(index.T))
        image.SetSpacing(zooms)
        shrunk = sitk.GetArrayFromImage(sitk.Shrink(image, factors)).T
        first = np.unravel_index(shrunk[0, 0, 0], shape)
        assert predict_shrink_start(shape, zooms, factors, (0, 0, 0)) == first


@pytest.mark.parametrize(
    "options, shape, zooms, words",
    [
        ({}, (5,), None, "1 axes"),
        ({}, (5, 5, 5, 5), None, "4 axes"),
        ({}, (5, 0), None, "at least one voxel"),
        ({}, (5, 5), (1.0, 0.0), "positive numbers of mm"),
        ({}, (5, 5), (1.0,), "positive numbers of mm"),
        ({"n_control_points": (4, 4, 4)}, (9, 9), None, "n_control_points"),
        ({"shrink_start": (1,)}, (9, 9), None, "shrink_start"),
        ({"shrink_start": (99, 0)}, (9, 9), None, "another shrink_start"),
        ({"bspline_fitting_distance": 1e-6}, (24, 24), None, "spans on 24 voxels"),
        ({"bspline_fitting_distance": 0.01}, (24, 24, 24), None, "control points"),
        ({"bspline_fitting_distance": 200.0}, (24, 24), (1e15, 1e15), "spans on 24 voxels"),
        ({"n_iterations": (1,) * 12}, (24, 24, 24), None, "12 levels"),
    ],
)
def test_what_does_not_fit_is_named(options, shape, zooms, words):
    with pytest.raises(ValueError, match=words):
        plan(N4Options(**options), shape, zooms)


@pytest.mark.parametrize("n, pads", [(21, (9, 9)), (24, (7, 8)), (28, (5, 6))])
def test_padding_of_a_voxel_size_that_float32_does_not_hold(n, pads):
    """The spacing is rounded to float32 before the product: with these pads the field agrees with
    that of the ANTs program (antspyx, spacing 0.16) to 2.4e-7; one voxel less gives 1.9e-3."""
    options = N4Options(bspline_fitting_distance=3)
    assert padding(options, (n,), (0.16,)) == (pads,)
