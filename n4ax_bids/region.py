"""Where a field is estimated: mask and weight of an image, from files or by Otsu's threshold."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.io.geometry import itk_takes_as_same, read_geometry
from n4ax_bids.io.volume import Volume, load

_log = logging.getLogger(__name__)

SAME_PLACE = 1e-4
"""largest difference between entries of two affines that are taken as the same; tools round"""


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


def region(
    image: Volume,
    *,
    mask_image: str | Path | None = None,
    auto_mask: Literal["otsu"] | None = None,
    weight_image: str | Path | None = None,
) -> Region:
    """Read or make the mask of an image, and read its weight.

    Parameters
    ----------
    image : Volume
    mask_image : NIfTI file on the image's grid; not 0 = inside
    auto_mask : "otsu" for the voxels above Otsu's threshold
    weight_image : NIfTI file on the image's grid; > 0 = inside

    Raises
    ------
    OSError, ValueError
        If a file does not fit the image, or no voxel is left; one line that names the file.
    """
    if mask_image is not None and auto_mask is not None:
        raise ValueError(f"{mask_image}: a mask file and auto_mask {auto_mask!r}; expected one")
    if auto_mask not in (None, "otsu"):
        raise ValueError(f"auto_mask is {auto_mask!r}; expected otsu or None")
    values, mask_header, mask_notes, mask_sha256 = _on_grid(mask_image, image)
    weight, weight_header, weight_notes, weight_sha256 = _on_grid(weight_image, image)
    digests = {"mask_image": mask_sha256, "weight_image": weight_sha256}
    mask, name = None, "none"
    if values is not None:
        mask, name = values != 0, str(mask_image)
        if not mask.any():
            raise ValueError(f"{mask_image}: every voxel of the mask is 0; expected some inside")
    elif auto_mask == "otsu":
        try:
            mask, name = otsu_mask(image.data), "otsu"
        except ValueError as error:  # it knows no file
            raise ValueError(f"{image.path}: {error}") from error
    inside = mask
    if weight is not None:
        positive = weight > 0
        if not positive.any():
            raise ValueError(f"{weight_image}: no weight is above 0; expected some")
        inside = positive if mask is None else mask & positive
        if not inside.any():
            raise ValueError(f"{weight_image}: no weight above 0 inside the mask ({name})")
    return Region(
        name,
        mask,
        weight,
        inside,
        values,
        mask_header,
        weight_header,
        notes=mask_notes + weight_notes,
        sha256={name: digest for name, digest in digests.items() if digest},
    )


def _on_grid(
    path: str | Path | None, image: Volume
) -> tuple[np.ndarray | None, Path | None, tuple[str, ...], str]:
    """Load a mask or weight and hold it to the image's shape and affine.

    Returns values, the header to sample by, notes, and the file's digest.
    """
    if path is None:
        return None, None, (), ""
    other = load(path)
    if other.data.shape != image.data.shape:
        raise ValueError(
            f"{path}: shape {other.data.shape}; expected {image.data.shape} as in {image.path}"
        )
    difference = float(np.abs(other.affine - image.affine).max())
    if not difference <= SAME_PLACE:
        raise ValueError(
            f"{path}: lies elsewhere than {image.path}: affines {_one_line(other.affine)} and "
            f"{_one_line(image.affine)} differ by up to {difference:.3g}; expected the same"
        )
    if itk_takes_as_same(*(read_geometry(each.path, each.data.ndim) for each in (image, other))):
        return other.data, other.path, (), other.sha256
    # ANTs would refuse; sampled as if it had the image's header.
    note = f"{path}: its affine differs from the image's by up to {difference:.1e}, taken as equal"
    _log.info(note)
    return other.data, None, (note,), other.sha256


def _one_line(affine: np.ndarray) -> str:
    rows = (" ".join(f"{value:.6g}" for value in row) for row in affine[:3])
    return f"[{'; '.join(rows)}]"
