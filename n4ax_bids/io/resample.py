"""Bring a mask or a segmentation onto an image's grid through a transform between the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from n4ax_bids.io.grids import OnGrid, on_grid
from n4ax_bids.io.transform import read_transform
from n4ax_bids.io.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS+ to ITK's convention and back"""
IDENTITY = 1e-4
"""mm; a transform that moves no corner of an image further counts as the identity"""


def through(other: Volume, image: Volume, transform: str | Path, *, labels: bool) -> OnGrid:
    """Resample a file onto an image's grid through a transform, as antsApplyTransforms does.

    If the transform is the identity and both grids consist of the same voxels, nothing is
    interpolated.

    Parameters
    ----------
    other : mask, labels or probabilities
    image : the image whose grid is used
    transform : ITK transform file that takes images from `image`'s space to `other`'s, as
        fMRIPrep's `from-orig_to-T1w_mode-image_xfm.txt` does
    labels : use the nearest value for each voxel, instead of linear interpolation

    Raises
    ------
    OSError, ValueError
        If the transform cannot be read or has no inverse; one line that names it.
    """
    path = Path(transform)
    to_image = _read(path, image)
    n = image.data.ndim
    if other.data.ndim != n:
        raise ValueError(f"{other.path}: {other.data.ndim} axes; expected {n} as in {image.path}")
    reference = _itk(image, n)
    if _is_identity(to_image, reference):
        try:
            return on_grid(other, image)
        except ValueError:  # the same space, but another grid
            pass
    # The transform maps points from the other file to the image; the sampler needs the inverse.
    try:
        inverse = to_image.GetInverse()
    except RuntimeError as error:
        raise ValueError(
            f"{path}: a transform without an inverse; expected a linear one"
        ) from error
    how = sitk.sitkNearestNeighbor if labels else sitk.sitkLinear
    found = sitk.Resample(_itk(other, n), reference, inverse, how, 0.0, sitk.sitkFloat32)
    data = np.asfortranarray(sitk.GetArrayFromImage(found).T)
    between = "nearest neighbour" if labels else "linear interpolation"
    note = (
        f"{other.path}: resampled onto the grid of {image.path.name} through {path.name} "
        f"({between})"
    )
    return OnGrid(data, False, (note,))


def _read(path: Path, image: Volume) -> sitk.Transform:
    found = read_transform(path)
    if found.GetDimension() != image.data.ndim:
        raise ValueError(
            f"{path}: a transform of {found.GetDimension()} axes; expected {image.data.ndim} as "
            f"in {image.path}"
        )
    return found


def _itk(volume: Volume, n_axes: int) -> sitk.Image:
    """Return an ITK image, placed by the affine, which prefers the s-form as fMRIPrep does."""
    image = sitk.GetImageFromArray(volume.data.T)
    affine = LPS @ volume.affine
    columns = affine[:n_axes, :n_axes]
    lengths = np.linalg.norm(columns, axis=0)
    try:
        image.SetSpacing(lengths.tolist())
        image.SetOrigin(affine[:n_axes, 3].tolist())
        image.SetDirection((columns / np.where(lengths > 0, lengths, 1)).ravel().tolist())
    except RuntimeError as error:
        raise ValueError(f"{volume.path}: its affine has axes without length") from error
    return image


def _is_identity(transform: sitk.Transform, image: sitk.Image) -> bool:
    size = np.array(image.GetSize())
    corners = np.array(np.meshgrid(*((0, n - 1) for n in size))).reshape(len(size), -1).T
    points = [
        image.TransformContinuousIndexToPhysicalPoint(c.astype(float).tolist()) for c in corners
    ]
    moved = [np.subtract(transform.TransformPoint(p), p) for p in points]
    return bool(np.abs(moved).max() <= IDENTITY)
