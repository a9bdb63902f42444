"""Maps of three tissues from the classes of a mixture; on the host."""

from __future__ import annotations

import itertools

import numpy as np

from n4ax_bids.core.field import LogField, sample
from n4ax_bids.core.tissue.mixture import N_TISSUES, Classes

PLANES = 16
"""planes of the last axis that are computed at a time"""


def tissues_of(classes: Classes) -> np.ndarray:
    """Return which of three tissues, from dark to bright, each class belongs to: (K,), int.

    The classes are sorted by their means and split where the variance of the means around their
    tissue's mean is smallest.
    """
    mean, share = np.asarray(classes.mean), np.asarray(classes.share)
    n = len(mean)
    best, found = np.inf, np.zeros(n, int)
    for first, second in itertools.combinations(range(1, n), 2):
        tissue = np.repeat(np.arange(N_TISSUES), (first, second - first, n - second))
        weight = np.bincount(tissue, share, N_TISSUES)
        middle = np.bincount(tissue, share * mean, N_TISSUES) / weight
        around = float((share * (mean - middle[tissue]) ** 2).sum())
        if around < best:
            best, found = around, tissue
    return found


def maps_of(
    values: np.ndarray,
    inside: np.ndarray,
    log_field: LogField,
    classes: Classes,
    noise: float,
    tissues: np.ndarray,
) -> np.ndarray:
    """Return the probability of each tissue at each voxel.

    Parameters
    ----------
    values : array (I, J[, K]), intensities, >= 0
    inside : bool array like `values`; elsewhere all maps are 0
    log_field : on the grid of the image
    classes : sorted by their means
    noise : standard deviation of the noise of a voxel, intensity
    tissues : (K,), from `tissues_of`

    Returns
    -------
    array (3, I, J[, K]), float32; the sum over tissues is at most 1, the rest are outliers
    """
    found = np.zeros((N_TISSUES, *values.shape), np.float32)
    others = [np.arange(n) for n in values.shape[:-1]]
    for start in range(0, values.shape[-1], PLANES):
        stop = min(start + PLANES, values.shape[-1])
        part = inside[..., start:stop] & (values[..., start:stop] > 0)
        if not part.any():
            continue
        seen = values[..., start:stop][part].astype(np.float64)
        field = sample(log_field, [*others, np.arange(start, stop)])[part]
        nu = (noise / seen) ** 2
        r = np.log(seen) - field
        for tissue, share in enumerate(_shares(r, nu, classes, tissues)):
            found[tissue, ..., start:stop][part] = share
    return found


def _shares(r: np.ndarray, nu: np.ndarray, classes: Classes, tissues: np.ndarray) -> np.ndarray:
    """Return the probability of each tissue at voxels: (3, n)."""
    each = np.zeros((N_TISSUES, len(r)))
    for k, tissue in enumerate(tissues):
        variance = classes.variance[k] + nu
        away = (r - classes.mean[k]) ** 2 / variance
        each[tissue] += classes.share[k] * np.exp(-away / 2) / np.sqrt(2 * np.pi * variance)
    low, high = classes.mean[0], classes.mean[-1]
    sd = np.sqrt(np.asarray(classes.variance).max())
    uniform = float(classes.outliers) / (high - low + 6 * sd)
    shares: np.ndarray = each / (each.sum(axis=0) + uniform)
    return shares
