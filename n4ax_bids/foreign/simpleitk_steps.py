"""The steps of an execution of SimpleITK's filter: its settings as options, solve, divide.

jax is imported at the first solve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from n4ax_bids.options import N4Options

if TYPE_CHECKING:
    from n4ax_bids.core.estimator import Estimate, Report
    from n4ax_bids.core.field import LogField


def is_ours(n4: sitk.N4BiasFieldCorrectionImageFilter, *args: Any) -> bool:
    """Return whether SimpleITK would correct these images with the filter's settings."""
    if not (1 <= len(args) <= 2 and all(isinstance(each, sitk.Image) for each in args)):
        return False
    image, *masks = args
    n_axes, size = image.GetDimension(), image.GetSize()
    fits = image.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64) and n_axes in (2, 3)
    points, order = n4.GetNumberOfControlPoints()[:n_axes], n4.GetSplineOrder()
    return (
        fits
        and min(size) > 1
        and all(each.GetPixelID() == sitk.sitkUInt8 and each.GetSize() == size for each in masks)
        and all(_in_same_place(image, each) for each in masks)
        and len(n4.GetMaximumNumberOfIterations()) > 0
        and len(points) == n_axes
        and 0 < order < min(points)
    )


def _in_same_place(image: sitk.Image, other: sitk.Image) -> bool:
    """Return whether ITK takes two images together, within the tolerances that are set."""
    voxel = sitk.ProcessObject.GetGlobalDefaultCoordinateTolerance() * image.GetSpacing()[0]
    turn = sitk.ProcessObject.GetGlobalDefaultDirectionTolerance()
    pairs = (
        (image.GetOrigin(), other.GetOrigin(), voxel),
        (image.GetSpacing(), other.GetSpacing(), voxel),
        (image.GetDirection(), other.GetDirection(), turn),
    )
    return all(np.abs(np.subtract(a, b)).max() <= most for a, b, most in pairs)


def options(n4: sitk.N4BiasFieldCorrectionImageFilter, n_axes: int) -> N4Options:
    """Return the filter's settings as options; ITK runs all iterations for a threshold below 0."""
    return N4Options(
        shrink_factor=1,
        n_iterations=n4.GetMaximumNumberOfIterations(),
        convergence_threshold=max(0.0, n4.GetConvergenceThreshold()),
        bspline_order=n4.GetSplineOrder(),
        n_control_points=n4.GetNumberOfControlPoints()[:n_axes],
        histogram_sharpening=(
            n4.GetBiasFieldFullWidthAtHalfMaximum(),
            n4.GetWienerFilterNoise(),
            n4.GetNumberOfHistogramBins(),
        ),
        itk_version="6" if sitk.Version.ITKMajorVersion() >= 6 else "5",
    )


def prepared(
    n4: sitk.N4BiasFieldCorrectionImageFilter, image: sitk.Image, mask: sitk.Image | None
) -> Callable[[Report | None], Estimate]:
    """Return the solve of an image with the settings that the filter has now.

    Raises
    ------
    ValueError
        If a setting has no meaning.
    """
    from n4ax_bids.core.estimator import Given
    from n4ax_bids.foreign.solve import solve as solve_given

    inside = None
    if mask is not None:
        labels = sitk.GetArrayViewFromImage(mask).T
        inside = labels == n4.GetMaskLabel() if n4.GetUseMaskLabel() else labels != 0
    settings, n_threads = options(n4, image.GetDimension()), n4.GetNumberOfThreads()
    kept = sitk.Image(image)  # shares its voxels until the caller changes them

    def solve(report: Report | None) -> Estimate:
        # The view does not keep its image alive; this function does.
        values = sitk.GetArrayViewFromImage(kept).T
        given = Given(values, inside, None, kept.GetSpacing())
        return solve_given(given, settings, report, n_threads)

    return solve


def divided(image: sitk.Image, field: LogField) -> sitk.Image:
    """Return image / b at every voxel, computed in the image's type as in ITK."""
    from n4ax_bids.core.field import divide

    values = sitk.GetArrayViewFromImage(image)
    if values.dtype == np.float32:
        return placed(divide(values.T, field)[0].T, image)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return placed(values / np.exp(sampled(field, image.GetSize())), image)


def sampled(field: LogField, size: tuple[int, ...]) -> np.ndarray:
    """Return ln b at every voxel of a grid from the first knot to the last; planes come first."""
    from n4ax_bids.core.field import sample, transposed
    from n4ax_bids.core.n4.plan import positions

    spans = [points - field.order for points in field.lattice.shape]
    n_axes = len(spans)
    places = [positions(*each) for each in zip(spans, size[:n_axes], strict=True)]
    first, step, clamp = zip(*places, strict=True)
    stretched = field._replace(first=first, step=step, clamp=clamp)
    return sample(transposed(stretched), [np.arange(n) for n in size[:n_axes][::-1]])


def placed(array: np.ndarray, reference: sitk.Image) -> sitk.Image:
    """Return voxels as an image in the place of another; planes come first."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.CopyInformation(reference)
    return image
