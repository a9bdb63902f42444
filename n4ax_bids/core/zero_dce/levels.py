"""The refinement of a field by tissue classes, on the host: few numbers, no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from n4ax_bids.core.field import LogField, sample
from n4ax_bids.core.mask.morphology import box
from n4ax_bids.core.zero_dce import lattice

APART = 2.0
"""mm between samples on each axis"""
DARKEST = 1e-3
"""what is below this does not count, because its logarithm is noise"""
STEP = 1.8
"""how far each round goes, relative to its own solution: plain rounds all approach from one side,
and need three times as many"""
N_BINS = 512
TOP = 0.9995
"""quantile of the samples above which the histogram is cut"""
N_UPDATES = 30
"""updates of the classes in each round"""
OUTLIERS = 0.02
"""share of samples that belong to no class: vessels, fat, mixtures"""
NARROWEST = 0.02
"""smallest standard deviation of a class, relative to the histogram's range"""


class Samples(NamedTuple):
    """Single voxels: means of several would mix grey and white matter in most places."""

    log_image: np.ndarray
    """(n_1, ..., n_D), 0 where nothing counts"""
    weight: np.ndarray
    """like `log_image`, 0 where nothing counts"""
    places: list[np.ndarray]
    """for each axis, voxels of the image"""


class Classes(NamedTuple):
    """Normal distributions of intensity, each (n,)."""

    means: np.ndarray
    deviations: np.ndarray
    shares: np.ndarray


def samples_of(
    values: np.ndarray, foreground: np.ndarray, zooms: Sequence[float], scale: float
) -> Samples:
    """Take voxels about 2 mm apart, within the foreground's bounding box.

    Parameters
    ----------
    values : array, intensities
    foreground : array like `values`, weight of each voxel, somewhere above 0
    zooms : mm
    scale : intensity that becomes 1; brighter ones do as well
    """
    steps = [max(1, round(APART / mm)) for mm in zooms]
    places = [
        np.arange(s.start, s.stop)[min(step, s.stop - s.start) // 2 :: step]
        for s, step in zip(box(foreground > 0), steps, strict=True)
    ]
    chosen = np.ix_(*places)
    taken, weight = np.clip(values[chosen] / np.float32(scale), 0, 1), foreground[chosen]
    counts = (weight > 0) & (taken > DARKEST)
    return Samples(np.log(np.where(counts, taken, 1)), np.where(counts, weight, 0), places)


def refined(
    field: LogField,
    samples: Samples,
    shape: Sequence[int],
    zooms: Sequence[float],
    spacing: float,
    *,
    n_levels: int,
    n_rounds: int,
) -> LogField:
    """Refit the field so that each sample has the intensity of one of a few tissue classes.

    Each round divides the image by the field, describes the histogram by a few normal
    distributions, and fits the field to ln of image / mean of the sample's class. A sample that is
    bright because of its tissue then no longer counts as bright because of the field. One that may
    be of several classes has a mean of theirs, and counts by how narrow they are: wide classes,
    such as fluid and what is mixed with it, say little about the field.

    Parameters
    ----------
    field : from the network
    samples : Samples, of which one at least counts
    shape, zooms, spacing : as for `lattice.fitted`
    n_levels : number of classes, at least 2
    n_rounds : int

    Returns
    -------
    LogField, on the lattice of the same spacing
    """
    counts = samples.weight > 0
    log_image, weight = samples.log_image[counts], samples.weight[counts].astype(np.float64)
    classes = None
    for number in range(n_rounds):
        log_flat = log_image - sample(field, samples.places)[counts]
        target, trust, classes = _round(log_flat, weight, n_levels, classes)
        whole, trusts = np.zeros(counts.shape), np.zeros(counts.shape)
        whole[counts], trusts[counts] = log_image - target, trust
        found = lattice.fitted(whole, trusts, samples.places, shape, zooms, spacing)
        if number > 0:  # before that the knots may be others
            change = found.lattice - field.lattice
            found = found._replace(lattice=field.lattice + np.float32(STEP) * change)
        field = found
    return field


def _round(
    log_flat: np.ndarray, weight: np.ndarray, n_levels: int, classes: Classes | None
) -> tuple[np.ndarray, np.ndarray, Classes | None]:
    """Return ln of what each sample should be, how much it counts, and the classes."""
    flat = np.exp(log_flat)
    low, high = flat.min(), np.quantile(flat, TOP)
    if not low < high:
        return np.full_like(log_flat, np.average(log_flat, weights=weight)), weight, classes
    cut = np.minimum(flat, high)
    heights, edges = np.histogram(cut, N_BINS, (low, high), weights=weight)
    middles = (edges[1:] + edges[:-1]) / 2
    classes = classes or first_classes(heights, middles, n_levels)
    classes, belongs = updated(classes, heights, middles)
    # Noise of a class is noise of the logarithm times the mean of the class.
    certain = belongs * (classes.means / classes.deviations)[:, None] ** 2
    trust = certain.sum(axis=0)
    target = (certain * np.log(classes.means)[:, None]).sum(axis=0) / np.maximum(trust, 1e-12)
    target, trust = np.interp(cut, middles, target), np.interp(cut, middles, trust)
    # The darkest class has no lower end, and below it the logarithm is mostly noise.
    dark = np.minimum(1, np.exp(2 * (log_flat - target)))
    return target, weight * trust * dark, classes


def first_classes(heights: np.ndarray, middles: np.ndarray, n_levels: int) -> Classes:
    """Return the classes of least squares of a histogram.

    Parameters
    ----------
    heights, middles : weight and intensity of each bin
    n_levels : at least 2
    """
    share = np.cumsum(heights) / heights.sum()
    means = np.interp((np.arange(n_levels) + 0.5) / n_levels, share, middles)
    for _ in range(100):
        of_bin = np.searchsorted((means[1:] + means[:-1]) / 2, middles)
        n = np.bincount(of_bin, heights, n_levels)
        sums = np.bincount(of_bin, heights * middles, n_levels)
        found = np.where(n > 0, sums / np.where(n > 0, n, 1), means)
        if np.allclose(found, means, rtol=1e-6):
            break
        means = found
    squares = np.bincount(of_bin, heights * (middles - means[of_bin]) ** 2, n_levels)
    deviations = np.sqrt(squares / np.where(n > 0, n, 1))
    narrowest = NARROWEST * middles[-1]
    return Classes(means, np.maximum(deviations, narrowest), n / n.sum())


def updated(
    classes: Classes, heights: np.ndarray, middles: np.ndarray
) -> tuple[Classes, np.ndarray]:
    """Fit the classes to a histogram by expectation maximisation.

    Parameters
    ----------
    classes : where to begin
    heights, middles : weight and intensity of each bin

    Returns
    -------
    classes : Classes
    belongs : array (classes, bins), probability that a sample of a bin is of a class; the rest
        belongs to none
    """
    heights = heights / heights.sum()
    anything = OUTLIERS / (middles[-1] - middles[0])
    narrowest = NARROWEST * middles[-1]
    belongs = np.zeros((len(classes.means), len(middles)))
    for _ in range(N_UPDATES):
        means, deviations, shares = (each[:, None] for each in classes)
        density = np.exp(-0.5 * ((middles - means) / deviations) ** 2) / deviations
        density = density * shares / np.sqrt(2 * np.pi)
        belongs = density / (density.sum(axis=0) + anything)
        counted = belongs * heights
        n = counted.sum(axis=1) + 1e-9
        new_means = (counted @ middles + 1e-9 * classes.means) / n
        squares = (counted * (middles - new_means[:, None]) ** 2).sum(axis=1)
        new_deviations = np.maximum(np.sqrt(squares / n), narrowest)
        classes = Classes(new_means, new_deviations, (1 - OUTLIERS) * n / n.sum())
    return classes, belongs
