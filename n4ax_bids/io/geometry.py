"""The geometry of a file as ITK reads it, and the voxels that ITK keeps when it shrinks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nb
import numpy as np
import SimpleITK as sitk

from n4ax_bids.io import placement
from n4ax_bids.io.header import load_header

ITK_TOLERANCE = 1e-6
"""tolerance of direction cosines, and of positions in voxels: the default of ITK's filters"""


class Geometry(NamedTuple):
    """Spacing, origin and direction of an image, in ITK's convention (LPS+)."""

    spacing: tuple[float, ...]
    """mm; the header's float32 values as float64"""
    origin: tuple[float, ...]
    """mm"""
    direction: tuple[float, ...]
    """direction cosines, row by row"""


def read_geometry(path: str | Path, n_axes: int) -> Geometry:
    """Return the geometry of a file's first 2 or 3 axes as ITK reads it, in mm.

    If the file has more axes (a slice with a third axis of length 1), ITK uses no direction from
    it. ITK refuses some headers (an s-form with shear and no q-form); for these, and for those
    that ITK does not get to read (`_is_for_itk`), the geometry follows from nibabel's affine.
    """
    if not _is_for_itk(load_header(path)):
        return _from_header(path, n_axes)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    # ITK's warnings go to stderr without the file's name.
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
        # ITK corrects negative voxel sizes only when it reads the voxels.
        found = reader if min(reader.GetSpacing()) > 0 else reader.Execute()
    except RuntimeError:
        return _from_header(path, n_axes)
    n = found.GetDimension()
    if n < n_axes:
        return _from_header(path, n_axes)
    direction = np.reshape(found.GetDirection(), (n, n)) if n == n_axes else np.eye(n_axes)
    return _geometry(found.GetSpacing()[:n_axes], found.GetOrigin()[:n_axes], direction)


def itk_takes_as_same(one: Geometry, other: Geometry) -> bool:
    """Return whether ITK's filters accept two images together (tolerance 1e-6 of a voxel)."""
    voxel = ITK_TOLERANCE * one.spacing[0]
    tolerances = (voxel, voxel, ITK_TOLERANCE)
    return all(
        np.abs(np.subtract(mine, theirs)).max() <= tolerance
        for mine, theirs, tolerance in zip(one, other, tolerances, strict=True)
    )


def _is_for_itk(header: nb.Nifti1Header) -> bool:
    """Return whether ITK can read the geometry of a header without harm.

    ITK prints a matrix on stderr if the s-form has NaN, or if one of its numbers or a voxel size
    is too small for a normal float32. If a number is infinite, ITK never returns.
    """
    if header["sform_code"] <= 0:
        return True
    form = placement.s_form(header)
    lengths = np.abs(np.append(form[:3, :3], placement.sizes(header)))
    denormal = (lengths > 0) & (lengths < np.finfo(np.float32).tiny)
    within = np.abs(form) <= np.finfo(np.float32).max  # NIfTI-2 has float64; NaN is not within
    return bool(within.all() and not denormal.any())


def _from_header(path: str | Path, n_axes: int) -> Geometry:
    header = load_header(path)
    spacing = placement.zooms(header, n_axes)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ placement.affine(header)
    columns = affine[:n_axes, :n_axes]
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(columns, axis=0)
        direction = columns / np.where(lengths > 0, lengths, 1)
    return _geometry(spacing, affine[:n_axes, 3], direction)


def _geometry(
    spacing: Sequence[float], origin: Sequence[float], direction: np.ndarray
) -> Geometry:
    if not np.isfinite(direction).all() or abs(np.linalg.det(direction)) < 1e-12:
        direction = np.eye(len(spacing))
    return Geometry(
        tuple(float(v) for v in spacing),
        tuple(float(v) for v in origin),
        tuple(float(v) for v in direction.ravel()),
    )


def itk_shrink_start(
    path: str | Path, shape: Sequence[int], factors: Sequence[int], lower: Sequence[int]
) -> tuple[int, ...]:
    """Return the first voxel of this file that ITK's ShrinkImageFilter samples.

    Parameters
    ----------
    path : NIfTI file
    shape : voxels per axis, including padding
    factors : shrink factor per axis
    lower : voxels of padding before voxel 0, per axis

    Returns
    -------
    tuple of int, index in the image without padding; negative: in the padding. The samples are
    first + factor·k, k >= 0; those outside the image are padding.
    """
    return shrink_start(read_geometry(path, len(shape)), shape, factors, lower)


def shrink_start(
    geometry: Geometry, shape: Sequence[int], factors: Sequence[int], lower: Sequence[int]
) -> tuple[int, ...]:
    """Return the first voxel that ITK's ShrinkImageFilter samples, for a given geometry.

    The filter aligns the centres of the shrunk grid and of the image in mm, and rounds the
    position of the first sample to an index. The header's last bits and ITK's own arithmetic
    therefore decide a half-integer phase, so ITK computes it here for two one-voxel images
    (docs/method.md §10.3). Parameters as `itk_shrink_start`.
    """
    spacing, origin, _ = geometry
    start = [-low for low in lower]
    start_shrunk = [math.ceil(a / s) for a, s in zip(start, factors, strict=True)]
    n_shrunk = [max(1, n // s) for n, s in zip(shape, factors, strict=True)]
    centre = [a + (n - 1) / 2 for a, n in zip(start, shape, strict=True)]
    centre_shrunk = [a + (n - 1) / 2 for a, n in zip(start_shrunk, n_shrunk, strict=True)]

    image = _one_voxel(geometry)
    shrunk = _one_voxel(
        geometry._replace(spacing=tuple(z * s for z, s in zip(spacing, factors, strict=True)))
    )
    here = image.TransformContinuousIndexToPhysicalPoint(centre)
    there = shrunk.TransformContinuousIndexToPhysicalPoint(centre_shrunk)
    shrunk.SetOrigin([o + (p - q) for o, p, q in zip(origin, here, there, strict=True)])

    point = shrunk.TransformIndexToPhysicalPoint(start_shrunk)
    index = image.TransformPhysicalPointToIndex(point)
    return tuple(
        a * s + max(0, i - a * s) for i, a, s in zip(index, start_shrunk, factors, strict=True)
    )


def _one_voxel(geometry: Geometry) -> sitk.Image:
    image = sitk.Image([1] * len(geometry.spacing), sitk.sitkUInt8)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image


def closest_axes(affine: np.ndarray) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return the voxel axes closest to right, anterior and superior, and which run backwards.

    Parameters
    ----------
    affine : array (4, 4), voxel to mm, RAS+

    Returns
    -------
    axes : the voxel axis along each of the three directions
    flipped : whether that axis runs to the left, posterior or inferior
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = nb.io_orientation(affine)
    if np.isnan(found).any():  # an axis of length 0
        return (0, 1, 2), (False, False, False)
    axes = np.argsort(found[:, 0])
    return tuple(int(a) for a in axes), tuple(bool(found[a, 1] < 0) for a in axes)
