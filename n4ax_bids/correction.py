"""The record of a correction, and the numbers of its field."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np


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


def field_of(image: np.ndarray, corrected: np.ndarray, log_bias: np.ndarray) -> np.ndarray:
    """Return the field, computed in the memory of its logarithm.

    Raises
    ------
    ValueError
        If the field is not finite or not above 0, or makes a finite voxel infinite or NaN.
    """
    low, high = log_bias.min(), log_bias.max()
    with np.errstate(over="ignore", under="ignore"):
        usable = 0 < np.exp(low) and np.exp(high) < np.inf
    if not (usable and _finite_where_image_is(corrected, image)):
        raise ValueError(
            f"no usable field: its logarithm goes from {low:.3g} to {high:.3g} (intensities <= 0 "
            "inside the mask enter the estimate as they are; use a mask or shift the image)"
        )
    return np.exp(log_bias, out=log_bias)


def _finite_where_image_is(corrected: np.ndarray, image: np.ndarray) -> bool:
    """Return whether every voxel that was finite before the division still is."""
    if np.isfinite(corrected.min()) and np.isfinite(corrected.max()):
        return True
    return bool((np.isfinite(corrected) | ~np.isfinite(image)).all())


class FieldNumbers(TypedDict):
    """The numbers of a field inside a mask; the keys are fields of `Correction`."""

    n_voxels_mask: int
    non_positive: int
    field_min: float
    field_max: float
    field_cv: float


def statistics(image: np.ndarray, bias: np.ndarray, inside: np.ndarray | None) -> FieldNumbers:
    """Return the numbers of a field inside a mask.

    Parameters
    ----------
    image : float32 array, as recorded
    bias : array like `image`, the field
    inside : bool array like `image`; None for every voxel
    """
    with np.errstate(invalid="ignore"):  # NaN outside the mask
        non_positive = image <= 0
    field = bias.T
    if inside is not None:
        non_positive &= inside
        field = field[inside.T]  # Fortran order: one sweep over memory
    return {
        "n_voxels_mask": int(field.size),
        "non_positive": int(np.count_nonzero(non_positive)),
        "field_min": float(field.min()),
        "field_max": float(field.max()),
        "field_cv": float(field.std(dtype=np.float64) / field.mean(dtype=np.float64)),
    }
