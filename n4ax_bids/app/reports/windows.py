"""At which levels a report draws an image: window, factor between medians, median of the field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from n4ax_bids.app.reports.grid import grid_of
from n4ax_bids.app.reports.stack_shown import Shown

_EVERY = 1 << 18
"""most voxels that are used for a quantile"""
_PLACES = 24
"""most positions on each axis at which the field is evaluated for its median"""
HEADROOM = 1.15
"""upper end of the window, as a multiple of the tissue's highest intensities above the lower end:
the brightest tissue does not turn all white"""


@dataclass(frozen=True)
class Levels:
    """The levels at which both images are drawn."""

    window: tuple[float, float]
    """intensities of the image before the correction that are drawn black and white"""
    gain: float
    """the image after the correction is multiplied by it, which makes the medians inside the mask
    equal"""
    spread: tuple[float, float]
    """range of the histograms"""
    field_median: float
    """median of the field inside the mask"""


def levels(shown: Shown, tissue: np.ndarray | None) -> Levels:
    """Choose the levels for an image and its corrected image.

    The upper end of the window comes from the tissue alone. If no segmentation is known, it comes
    from the inner half of the mask. So bright fat under the skin does not darken the rest.

    Parameters
    ----------
    shown : the image before and after, its mask and its field
    tissue : bool array, voxels of white or grey matter; None if they are not known
    """
    image, corrected, inside = shown.image.data, shown.corrected.data, shown.inside
    some = _thinned_mask(inside)
    before, after = image[some][inside[some]], corrected[some][inside[some]]
    gain = gain_of(before, after)
    if tissue is not None and tissue[some].any():
        core = tissue[some][inside[some]]
        core = core if core.any() else np.ones_like(core)
    else:
        core = _inner_half(inside[some])
    low = float(np.percentile(_finite(_thinned(image)), 1))
    pairs = [_finite(before[core]), _finite(after[core] * gain)]
    high = low + HEADROOM * (float(np.percentile(np.concatenate(pairs), 98)) - low)
    both = np.concatenate([_finite(before), _finite(after * gain)])
    first, last = (float(q) for q in np.percentile(both, (0.2, 99.8)))
    return Levels(
        (low, high if high > low else low + 1.0),
        gain,
        (first, last if last > first else first + 1.0),
        _median_field(shown),
    )


def gain_of(before: np.ndarray, after: np.ndarray) -> float:
    """Return the factor that makes the medians equal; 1 if they are not both positive."""
    medians = [float(np.median(_finite(values))) for values in (before, after)]
    return medians[0] / medians[1] if min(medians) > 0 else 1.0


def _median_field(shown: Shown) -> float:
    """Return the median of b inside the mask, from voxels of a coarse grid."""
    grid = grid_of(shown.image)
    turned = grid.turned(shown.inside)
    places = tuple(
        np.unique(((np.arange(_PLACES) + 0.5) * n / _PLACES).astype(int)) for n in turned.shape
    )
    values, there = shown.log_field(places), turned[np.ix_(*places)]
    return float(np.exp(np.median(values[there] if there.any() else values)))


def _thinned_mask(inside: np.ndarray) -> tuple[slice, ...]:
    """Return slices that leave about a million voxels of an array, if some are in the mask."""
    step = max(1, round((inside.size / _EVERY) ** (1 / inside.ndim)))
    some = (slice(None, None, step),) * inside.ndim
    return some if inside[some].any() else (slice(None),) * inside.ndim


def _inner_half(inside: np.ndarray) -> np.ndarray:
    """Return which voxels of a mask are the half that is closest to its centre.

    Distances are in standard deviations of the mask's positions on each axis.
    """
    positions = np.nonzero(inside)
    away = np.zeros(len(positions[0]))
    for place in positions:
        away += ((place - place.mean()) / (place.std() or 1.0)) ** 2
    found: np.ndarray = away <= np.median(away)
    return found


def _finite(values: np.ndarray) -> np.ndarray:
    found = values[np.isfinite(values)]
    return found if found.size else np.zeros(1)


def _thinned(values: np.ndarray) -> np.ndarray:
    flat = values.ravel(order="K")
    return flat[:: max(1, flat.size // _EVERY)]
