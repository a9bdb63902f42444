"""Where a field is estimated: mask and weight of an image, from files or by Otsu's threshold."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.io.finite import require_finite
from n4ax_bids.io.grids import on_grid
from n4ax_bids.io.resample import through
from n4ax_bids.io.volume import Volume, load

_log = logging.getLogger(__name__)

LEAVE_OUT = "set such voxels to 0, or give a mask file that leaves them out"
SET_TO_0 = "set such voxels to 0"
"""remedies for voxels that are NaN"""


class Region(NamedTuple):
    """The voxels that take part in an estimate."""

    name: str
    """"none", "otsu" or the mask's path"""
    mask: np.ndarray | None
    """bool; None for every voxel"""
    weight: np.ndarray | None
    """float32 values of a weight file"""
    inside: np.ndarray | None
    """bool, mask and positive weight; None for every voxel"""
    mask_values: np.ndarray | None
    """float32 values of a mask file"""
    mask_header: Path | None
    """the file whose header decides which voxels of the mask are sampled; None: the image"""
    weight_header: Path | None
    """the same for the weight"""
    notes: tuple[str, ...]
    """what a person should know about the files"""
    sha256: dict[str, str]
    """of the files"""


class _File(NamedTuple):
    """A mask or weight file on the image's grid."""

    values: Volume | None
    header: Path | None
    """the file whose header decides which voxels are sampled; None: the image's"""
    notes: tuple[str, ...]
    sha256: str


def region(
    image: Volume,
    *,
    mask_image: str | Path | None = None,
    auto_mask: Literal["otsu"] | None = None,
    weight_image: str | Path | None = None,
    mask_transform: str | Path | None = None,
    weight_transform: str | Path | None = None,
) -> Region:
    """Read or make the mask of an image, and read its weight.

    Parameters
    ----------
    image : Volume
    mask_image : NIfTI file on the image's voxels, in any order of the axes; not 0 = inside
    auto_mask : "otsu" for the voxels above Otsu's threshold
    weight_image : NIfTI file on the image's voxels, in any order of the axes; > 0 = inside
    mask_transform, weight_transform : ITK transform file that takes images from the image's
        space to that of the mask or weight, which is then resampled onto the image's grid

    Raises
    ------
    OSError, ValueError
        If a file does not fit the image, no voxel is left, or a voxel that is used is NaN or
        infinite; one line that names the file.
    """
    if mask_image is not None and auto_mask is not None:
        raise ValueError(f"{mask_image}: a mask file and auto_mask {auto_mask!r}; expected one")
    if auto_mask not in (None, "otsu"):
        raise ValueError(f"auto_mask is {auto_mask!r}; expected otsu or None")
    mask_file = _file(mask_image, image, mask_transform, labels=True)
    weight_file = _file(weight_image, image, weight_transform, labels=False)
    digests = {"mask_image": mask_file.sha256, "weight_image": weight_file.sha256}
    mask, name = None, "none"
    if mask_file.values is not None:
        require_finite(mask_image, mask_file.values.data, None, SET_TO_0)
        mask, name = mask_file.values.data != 0, str(mask_image)
        if not mask.any():
            raise ValueError(f"{mask_image}: every voxel of the mask is 0; expected some inside")
    elif auto_mask == "otsu":
        require_finite(image.path, image.data, None, LEAVE_OUT)
        try:
            mask, name = otsu_mask(image.data), "otsu"
        except ValueError as error:  # it knows no file
            raise ValueError(f"{image.path}: {error}") from error
    inside, weight = mask, None
    if weight_file.values is not None:
        require_finite(weight_image, weight_file.values.data, mask, SET_TO_0)
        weight = weight_file.values.data
        positive = weight > 0
        if not positive.any():
            raise ValueError(f"{weight_image}: no weight is above 0; expected some")
        inside = positive if mask is None else mask & positive
        if not inside.any():
            raise ValueError(f"{weight_image}: no weight above 0 inside the mask ({name})")
    require_finite(image.path, image.data, inside, LEAVE_OUT)
    notes = mask_file.notes + weight_file.notes
    for note in notes:
        _log.info(note)
    return Region(
        name,
        mask,
        weight,
        inside,
        None if mask_file.values is None else mask_file.values.data,
        mask_file.header,
        weight_file.header,
        notes=notes,
        sha256={name: digest for name, digest in digests.items() if digest},
    )


def _file(
    path: str | Path | None, image: Volume, transform: str | Path | None, *, labels: bool
) -> _File:
    """Read a mask or weight and lay it on the image's grid."""
    if path is None:
        return _File(None, None, (), "")
    other = load(path)
    if transform is None:
        found = on_grid(other, image)
    else:
        found = through(other, image, transform, labels=labels)
    # Where ANTs would refuse the file, it is sampled as if it had the image's header.
    header = other.path if found.itk_agrees else None
    values = replace(other, data=found.data)
    return _File(values, header, other.notes + found.notes, other.sha256)
