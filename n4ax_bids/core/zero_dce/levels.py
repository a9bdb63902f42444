"""The refinement of a field by tissue levels, on the host: few numbers, no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from n4ax_bids.core.field import LogField, sample
from n4ax_bids.core.zero_dce import lattice

N_BINS = 512


def refined(
    field: LogField,
    log_image: np.ndarray,
    weight: np.ndarray,
    centres: Sequence[np.ndarray],
    shape: Sequence[int],
    zooms: Sequence[float],
    spacing: float,
    *,
    n_levels: int,
    n_rounds: int,
) -> LogField:
    """Refit the field so that each block has the intensity of one of a few levels.

    Each round divides the image by the field, finds the levels in the histogram, and fits the
    field to ln of image / level of the block. A block that is bright because of its tissue then no
    longer counts as bright because of the field.

    Parameters
    ----------
    field : from the network
    log_image : array (n_1, ..., n_D), ln of the blocks' means
    weight : array like `log_image`, 0 for blocks that do not count
    centres : for each axis, places of the blocks in voxels
    shape, zooms, spacing : as for `lattice.fitted`
    n_levels : at least 2
    n_rounds : int

    Returns
    -------
    LogField, on the lattice of the same spacing
    """
    for _ in range(n_rounds):
        log_flat = log_image - sample(field, centres)
        edges = np.log(level_edges(np.exp(log_flat), weight, n_levels))
        level = np.searchsorted(edges, log_flat)
        sums = np.bincount(level.ravel(), weight.ravel(), n_levels)
        means = np.bincount(level.ravel(), (weight * log_flat).ravel(), n_levels)
        means = means / np.where(sums > 0, sums, 1)
        # Noise of intensity is noise of its logarithm times the intensity, and the darkest level
        # has no lower end: dark blocks count little.
        trust = weight * np.exp(2 * np.minimum(log_flat, means[level]))
        field = lattice.fitted(log_image - means[level], trust, centres, shape, zooms, spacing)
    return field


def level_edges(values: np.ndarray, weight: np.ndarray, n_levels: int) -> np.ndarray:
    """Return what separates levels of intensity: the classes of least squares in a histogram.

    Parameters
    ----------
    values : array, > 0
    weight : array like `values`
    n_levels : at least 2

    Returns
    -------
    array (n_levels - 1,), increasing
    """
    counted = weight > 0
    low, high = values[counted].min(), values[counted].max()
    if not low < high:
        return np.full(n_levels - 1, high)
    heights, edges = np.histogram(values, N_BINS, (low, high), weights=weight)
    middles = (edges[1:] + edges[:-1]) / 2
    share = np.cumsum(heights) / heights.sum()
    levels = np.interp((np.arange(n_levels) + 0.5) / n_levels, share, middles)
    for _ in range(100):
        between = (levels[1:] + levels[:-1]) / 2
        of_bin = np.searchsorted(between, middles)
        n = np.bincount(of_bin, heights, n_levels)
        sums = np.bincount(of_bin, heights * middles, n_levels)
        found = np.where(n > 0, sums / np.where(n > 0, n, 1), levels)
        if np.allclose(found, levels, rtol=1e-6):
            break
        levels = found
    return (levels[1:] + levels[:-1]) / 2
