"""Images of SimpleITK, and the filter for N4: theirs and ours."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from n4ax_bids import simpleitk as ours

THEIRS, OURS = sitk.N4BiasFieldCorrectionImageFilter, ours.N4BiasFieldCorrectionImageFilter
SIZE = (20, 24, 28)


def volume(seed: int = 1, pixel: int = sitk.sitkFloat32) -> sitk.Image:
    """Return an ellipsoid of three tissues with a field and noise, in an oblique place."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE[::-1]), indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.8
    tissue = np.where(inside, rng.choice([300.0, 500.0, 700.0], x.shape), 20.0)
    tissue *= np.exp(0.4 * x - 0.3 * y) * (1 + 0.03 * rng.standard_normal(x.shape))
    return sitk.Cast(placed(tissue), pixel)


def placed(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 1.7, 2.0)[: image.GetDimension()])
    image.SetOrigin((31.0, -44.0, 12.5)[: image.GetDimension()])
    if image.GetDimension() == 3:
        image.SetDirection((0, -1, 0, 0.8, 0, 0.6, -0.6, 0, 0.8))
    return image


def labelled(image: sitk.Image) -> sitk.Image:
    """Return labels 1 and 2 inside the ellipsoid."""
    array = (sitk.GetArrayFromImage(image) > 130).astype(np.uint8)
    array[14:] *= 2
    return placed(array)


def moved(mask, by):
    other = sitk.Image(mask)
    other.SetOrigin(np.add(mask.GetOrigin(), (by, 0, 0)).tolist())
    return other
