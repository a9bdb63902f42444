"""A stack with ITK's samples has the numbers of ITK, and those of N4 on arrays."""

import numpy as np
import pytest

from n4ax_bids import N4Options, n4
from n4ax_bids.core.stack.call import correct_stack
from n4ax_bids.core.stack.samples import section_plan
from n4ax_bids.options import StackOptions
from tests.core.stack.stacks import PLAIN, ellipsoid


@pytest.fixture(scope="module")
def anisotropic():
    """A stack with planes 10 µm and pixels 5 µm apart; voxel sizes, options and our answer."""
    known = ellipsoid((24, 64, 48), seed=3)
    zooms = (0.010, 0.005, 0.005)
    options = StackOptions(**PLAIN | {"global_spline_mm": 0.12}, mode="global", sampling="itk")
    done = correct_stack(known.image, known.mask, voxel_size_mm=zooms, options=options)
    return known, zooms, options, done


def test_agreement_with_itk_on_an_anisotropic_stack(anisotropic):
    """S10: axes and spacing in ITK's order."""
    known, zooms, options, done = anisotropic
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(known.image)
    mask = sitk.GetImageFromArray(known.mask.astype(np.uint8))
    for each in (image, mask):
        each.SetSpacing(zooms[::-1])
    made = section_plan(options, known.image.shape, zooms, options.global_spline_mm)
    assert made.n_control_points == (5, 6, 5)
    itk = sitk.N4BiasFieldCorrectionImageFilter()
    itk.SetMaximumNumberOfIterations([15, 15])
    itk.SetConvergenceThreshold(0.001)
    itk.SetNumberOfControlPoints(made.n_control_points)
    itk.Execute(sitk.Shrink(image, [2] * 3), sitk.Shrink(mask, [2] * 3))
    theirs = np.exp(sitk.GetArrayFromImage(itk.GetLogBiasFieldAsImage(image)))
    ours = done.bias
    assert np.corrcoef(ours[known.mask], theirs[known.mask])[0, 1] >= 0.9999
    relative = np.abs(ours / theirs - 1)[known.mask]
    assert np.median(relative) <= 1e-4  # S10 asks for 1e-2


def test_itks_samples_give_the_numbers_of_n4(anisotropic):
    known, zooms, options, done = anisotropic
    made = section_plan(options, known.image.shape, zooms, options.global_spline_mm)
    same = N4Options(
        shrink_factor=2,
        n_iterations=(15, 15),
        convergence_threshold=0.001,
        n_control_points=made.n_control_points,
    )
    corrected = n4(known.image.T, known.mask.T, options=same)
    np.testing.assert_allclose(done.corrected, corrected.T, rtol=2e-6)
