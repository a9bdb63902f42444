"""Intensities of sections made alike: histogram matching, profile along Z, scale of medians.

All of it works on the thinned stack, on the host, and yields a few numbers for each plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

N_BINS = 512
CHUNK = 1 << 18
TOP = 99.9
"""percentile of the stack's tissue at which the bins end; higher intensities are scaled"""
MOST = 1 << 24
"""samples from which the stack's own distribution is taken"""
FEWEST = 500
"""voxels of tissue in a section; with fewer it is left as it is"""
FEWEST_IN_PLANE = 100
"""the same for a plane when the profile along Z is smoothed"""
REACH = 8
"""standard deviations at which a Gaussian along Z ends"""


class Matching(NamedTuple):
    """How intensities of each plane are mapped: linear between the edges of equal bins."""

    low: float
    """intensities up to this are background and stay as they are"""
    high: float
    """above this, intensities are multiplied as the highest bin's edge is"""
    tables: np.ndarray
    """(planes, N_BINS + 1), float32, new intensity at each edge"""


def matching(
    thin: np.ndarray, groups: Sequence[tuple[int, int]], threshold: float, area: int
) -> Matching | None:
    """Match the histogram of each group of planes to that of the whole stack.

    Parameters
    ----------
    thin : array (planes, rows, columns)
    groups : first plane of each group, and the plane after its last one
    threshold : intensities above this are tissue
    area : voxels of the stack that one sample stands for

    Returns
    -------
    Matching, or None if the stack is a single group or has no tissue of different intensities
    """
    if len(groups) == 1:
        return None
    # A part of a large stack decides as well where its bins end.
    part = thin[:: max(1, thin.size // MOST)]
    tissue = part[part > threshold]
    if not tissue.size:
        return None
    low, high = float(threshold), float(np.percentile(tissue, TOP))
    if not high > low:
        return None
    edges = np.linspace(low, high, N_BINS + 1)
    wanted = _distribution(tissue, low, high)
    tables = np.tile(edges.astype(np.float32), (len(thin), 1))
    for start, stop in groups:
        group = thin[start:stop]
        group = group[group > threshold]
        if group.size * area < FEWEST:
            continue
        tables[start:stop] = np.interp(_distribution(group, low, high), wanted, edges)
    return Matching(low, high, tables)


def _distribution(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the share of values up to each edge of the bins."""
    counts = np.zeros(N_BINS + 1)
    for start in range(0, values.size, CHUNK):
        part = np.minimum(values[start : start + CHUNK], high)
        # A value at the upper edge of a bin belongs to it: the first bin begins above the
        # threshold.
        place = np.ceil((part - low) * (N_BINS / (high - low))).astype(np.intp)
        counts += np.bincount(np.clip(place, 1, N_BINS), minlength=N_BINS + 1)
    share = np.cumsum(counts) / values.size
    # Strictly increasing, so that the inverse is unique where bins are empty.
    return share + np.arange(N_BINS + 1) * 1e-12


def matched(thin: np.ndarray, how: Matching) -> np.ndarray:
    """Map the intensities of a stack in place, and return it.

    Parameters
    ----------
    thin : float32 array (planes, rows, columns), overwritten
    how : Matching
    """
    edges = np.linspace(how.low, how.high, N_BINS + 1)
    for plane, table in zip(thin, how.tables, strict=True):
        tissue = plane > how.low
        values = plane[tissue]
        mapped = np.interp(values, edges, table)
        over = values > how.high
        mapped[over] = values[over] * (table[-1] / how.high)
        plane[tissue] = mapped
    return thin


def profile_gains(
    thin: np.ndarray, threshold: float, sigma: float, area: int
) -> np.ndarray | None:
    """Return the factor of each plane that smooths the tissue's mean along Z.

    Parameters
    ----------
    thin : array (planes, rows, columns), matched
    threshold : intensities above this are tissue
    sigma : standard deviation of the Gaussian, planes; 0 = none
    area : pixels of a plane that one sample stands for

    Returns
    -------
    array (planes,), 1 for planes with fewer than 100 pixels of tissue; None if nothing is smoothed
    """
    if sigma <= 0:
        return None
    means, valid = np.ones(len(thin)), np.zeros(len(thin), bool)
    for z, plane in enumerate(thin):
        tissue = plane[plane > threshold]
        valid[z] = tissue.size * area >= FEWEST_IN_PLANE
        if valid[z]:
            means[z] = tissue.mean(dtype=np.float64)
    if np.count_nonzero(valid) < 3:
        return None
    gains = np.ones(len(thin))
    gains[valid] = smoothed(means, valid, sigma)[valid] / means[valid]
    return gains


def smoothed(values: np.ndarray, valid: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth a profile by a Gaussian, from its valid entries alone; only these have a result."""
    reach = min(len(values), math.ceil(REACH * sigma))
    total, share = (
        gaussian_filter1d(each, sigma, mode="constant", radius=reach)
        for each in (np.where(valid, values, 0.0), valid.astype(np.float64))
    )
    found: np.ndarray = total / np.where(valid, share, 1.0)
    return found


def scale_factors(medians: np.ndarray, kind: str, sigma: float) -> np.ndarray:
    """Return the factor of each section that brings the medians of its tissue to the target.

    Parameters
    ----------
    medians : array (sections,), NaN without tissue
    kind : "common" for one median, "trend" for the medians smoothed along Z, or "none"
    sigma : standard deviation of the trend's Gaussian, sections

    Returns
    -------
    array (sections,), 1 where the median is not positive
    """
    factors = np.ones(len(medians))
    valid = np.isfinite(medians) & (medians > 0)
    if kind == "none" or not valid.any():
        return factors
    logs = np.log(np.where(valid, medians, 1.0))
    if kind == "common":
        target = np.full(len(logs), np.median(logs[valid]))
    else:
        target = smoothed(logs, valid, sigma)
    factors[valid] = np.exp(target[valid] - logs[valid])
    return factors
