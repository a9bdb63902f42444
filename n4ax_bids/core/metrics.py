"""Measures of how even tissues are and how close a field is to the true one, in numpy only.

The coefficient of variation falls whenever intensities become more alike, also when a field
removes tissue contrast. The coefficient of joint variation distinguishes the two: report both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class FieldError(NamedTuple):
    """Agreement of an estimated log field with the true one; a constant offset is ignored."""

    correlation: float
    """Pearson's r; NaN if one of the two is constant"""
    rmse: float
    """standard deviation of the difference, ln of intensity"""


def coefficient_of_variation(image: np.ndarray, mask: np.ndarray) -> float:
    """Return standard deviation / mean of the voxels in a mask.

    Parameters
    ----------
    image : array, intensities
    mask : bool array like `image`, one tissue

    Raises
    ------
    ValueError
        If shapes differ, the mask is empty or the mean is not positive.
    """
    mean, spread = _mean_and_spread(image, mask, "mask")
    if mean <= 0:
        raise ValueError(f"mean in the mask is {mean}; expected a positive one")
    return spread / mean


def joint_variation(image: np.ndarray, white: np.ndarray, grey: np.ndarray) -> float:
    """Return the coefficient of joint variation of two tissues (CJV).

    (SD of white + SD of grey) / |mean of white - mean of grey|: small if the tissues are even
    and far apart (Likar, Viergever and Pernus 2001, doi 10.1109/42.974934).

    Parameters
    ----------
    image : array, intensities
    white, grey : bool arrays like `image`

    Returns
    -------
    float; infinite if the means are equal

    Raises
    ------
    ValueError
        If shapes differ or a mask is empty.
    """
    white_mean, white_spread = _mean_and_spread(image, white, "white")
    grey_mean, grey_spread = _mean_and_spread(image, grey, "grey")
    distance = abs(white_mean - grey_mean)
    return (white_spread + grey_spread) / distance if distance > 0 else float("inf")


def field_error(log_field: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> FieldError:
    """Compare an estimated log field with the true one inside a mask.

    Parameters
    ----------
    log_field, truth : arrays, ln of the field
    mask : bool array of the same shape

    Raises
    ------
    ValueError
        If shapes differ or the mask is empty.
    """
    estimated, true = _inside(log_field, mask, "mask"), _inside(truth, mask, "mask")
    correlation = float("nan")
    if estimated.std() > 0 and true.std() > 0:
        correlation = float(np.corrcoef(estimated, true)[0, 1])
    return FieldError(correlation, float((estimated - true).std()))


def _mean_and_spread(image: np.ndarray, mask: np.ndarray, name: str) -> tuple[float, float]:
    values = _inside(image, mask, name)
    return float(values.mean()), float(values.std())


def _inside(image: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    image, mask = np.asarray(image), np.asarray(mask, bool)
    if image.shape != mask.shape:
        raise ValueError(f"{name} has shape {mask.shape}; expected the image's {image.shape}")
    values = image[mask].astype(np.float64)
    if values.size == 0:
        raise ValueError(f"{name} is empty; expected at least one voxel")
    return values
