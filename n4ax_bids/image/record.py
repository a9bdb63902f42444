"""The record of a correction, and the numbers of its field."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict


@dataclass(frozen=True)
class Correction:
    """The record of what was done to one image."""

    output_image: Path | None
    bias_image: Path | None
    lattice_image: Path | None
    found_mask_image: Path | None
    method_images: dict[str, Path]
    """further files of the method, by label"""
    mask: str
    """"none", the word of an automatic mask ("otsu", "auto", ...), or the mask's path"""
    mask_found: dict[str, str | int | float | None]
    """how the mask of "auto", "head" or "brain" was found, empty for others: kind, share of the
    image's voxels, rounds, confidence, and otsu_covers, the share of the mask that Otsu's
    threshold alone would find; "synthstrip" and "hd-bet" have the program and its version instead
    of rounds and confidence"""
    n_voxels_mask: int
    """voxels of the full grid inside the mask that have a positive weight"""
    shift: float
    """value subtracted from every voxel first: the lowest one if it is negative, else 0"""
    non_positive: int
    """voxels inside the mask with an intensity <= 0; they enter the estimate without logarithm"""
    device: str
    method: str
    """name of the method that estimated the field"""
    details: Any
    """the method's own numbers of the solve, such as `core.n4.method.N4Details`"""
    lattice: dict[str, int | tuple[float, ...]]
    """order, first, step and clamp of the log field, and the shape of the image"""
    rescaled: bool
    """whether any voxel was rescaled: with rescaling, those where the mask is 1"""
    rescale_slope: float
    rescale_intercept: float
    """u = slope·v/b + intercept where the mask is 1; without rescaling they are 1 and 0"""
    stored_slope: float
    stored_intercept: float
    """u = slope·voxel + intercept for the stored voxels of the corrected file; 1 and 0 for
    float32"""
    field_min: float
    field_max: float
    field_cv: float
    """coefficient of variation of b inside the mask, where its range is taken too"""
    notes: tuple[str, ...]
    """what a user should know about the inputs and the result"""
    sha256: dict[str, str]
    """digests of the input files as they were read, by the names of the parameters of `correct`"""
    seconds: dict[str, float] = dataclasses.field(compare=False)
    """wall time of decode, mask, solve, divide and encode, without waiting for the device"""


class FieldNumbers(TypedDict):
    """The numbers of a field inside a mask; the keys are fields of `Correction`."""

    n_voxels_mask: int
    non_positive: int
    field_min: float
    field_max: float
    field_cv: float
