"""What was done to an image: the record of a correction, and the numbers of its field."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Correction:
    """What was done to an image."""

    output_image: Path | None
    bias_image: Path | None
    lattice_image: Path | None
    found_mask_image: Path | None
    method_images: dict[str, Path]
    """further files of the method, by their labels"""
    mask: str
    """"none", the word of an automatic mask ("otsu", "auto", ...), or the mask's path"""
    mask_found: dict[str, str | int | float | None]
    """for "auto", "head" and "brain", empty for others: kind, share of the image's voxels, rounds,
    confidence, and otsu_covers, the share of the mask that Otsu's threshold alone would find; for
    "synthstrip" and "hd-bet" the program and its version in the place of rounds and confidence"""
    n_voxels_mask: int
    """voxels inside the mask and of positive weight, full grid"""
    shift: float
    """subtracted from every voxel first: the lowest value where that is negative, else 0"""
    non_positive: int
    """voxels inside the mask with an intensity <= 0; they enter the estimate without logarithm"""
    device: str
    method: str
    """name of the method that estimated the field"""
    details: Any
    """what only this method has to say of the solve, such as `core.n4.method.N4Details`"""
    lattice: dict[str, int | tuple[float, ...]]
    """order, first, step and clamp of the log field, and the shape of the image"""
    rescaled: bool
    """whether any voxel was: those where the mask is 1, if rescaling is asked for"""
    rescale_slope: float
    rescale_intercept: float
    """u = slope·v/b + intercept where the mask is 1; 1 and 0 without rescaling"""
    stored_slope: float
    stored_intercept: float
    """u = slope·voxel + intercept for the voxels of the corrected file; 1 and 0 if it is float"""
    field_min: float
    field_max: float
    field_cv: float
    """coefficient of variation of b; like its range, inside the mask"""
    notes: tuple[str, ...]
    """what a person should know about the inputs"""
    sha256: dict[str, str]
    """of the input files, as they were when they were read, by the names of `correct`'s inputs"""
    seconds: dict[str, float] = dataclasses.field(compare=False)
    """wall time of decode, mask, solve, divide and encode; not that of waiting for the device"""


def field_of(image: np.ndarray, corrected: np.ndarray, log_bias: np.ndarray) -> np.ndarray:
    """Return the field, in place of its logarithm; refuse one that is not finite or not > 0."""
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
    """Return whether division has made no voxel NaN or infinite that was a number before."""
    if np.isfinite(corrected.min()) and np.isfinite(corrected.max()):
        return True
    return bool((np.isfinite(corrected) | ~np.isfinite(image)).all())


def statistics(
    image: np.ndarray, bias: np.ndarray, inside: np.ndarray | None
) -> dict[str, int | float]:
    """Return the numbers of a field inside a mask, by the names that `Correction` has for them."""
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
