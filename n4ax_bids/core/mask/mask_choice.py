"""Which mask of a head with a brain the field is to be estimated in; no labels are needed.

A field is estimated within each candidate on the coarse copy. In the brain's depths, which all
candidates hold, the better field leaves intensities that gather more closely around those of the
tissues: their histogram has the lower entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

from n4ax_bids.core.mask.brain_mask import Brain
from n4ax_bids.core.mask.head_mask import Head, block_size, field_within
from n4ax_bids.options import N4Options

COVERED = 0.7
"""share of brain or head that Otsu's mask covers where the field is weak; with less it is no
candidate"""
AGREE = 0.88
"""correlation of the fields of brain and Otsu's mask, below which neither is to be trusted"""
DEEP = 3.0
"""blocks below the brain's edge where the histograms are taken"""
FEWEST_BLOCKS = 500
"""in the brain's depths, for a histogram"""
BINS = 200
"""of the histogram, for ln of intensity from -1 to 1 about the median"""
SMOOTH = 2.0
"""bins, standard deviation of the Gaussian by which the histogram is smoothed"""
COMPARED = N4Options(shrink_factor=1, n_iterations=(10, 10, 10, 10), over_relaxation=1.9)


class Choice(NamedTuple):
    """A mask that was chosen."""

    kind: Literal["brain", "otsu"]
    inner: float
    """mm by which the brain is made smaller"""
    note: str | None
    """why it is not the brain, a sentence"""


def choose(head: Head, brain: Brain, shape: Sequence[int], zooms: Sequence[float]) -> Choice:
    """Choose between the brain without its rim, the whole brain, and Otsu's mask.

    Parameters
    ----------
    head : Head, with an estimate of the field
    brain : Brain, found in it
    shape, zooms : of the image

    Returns
    -------
    Choice
    """
    block = block_size(shape, zooms)
    edge = np.full(head.copy.values.shape, -np.inf, np.float32, order="F")
    edge[brain.box] = brain.edge
    inner, deep = edge > brain.rim, edge > DEEP * block
    kept = Choice("brain", brain.rim, None)
    n_inner = np.count_nonzero(inner)
    if n_inner < FEWEST_BLOCKS:
        return kept

    def field(mask: np.ndarray) -> np.ndarray:
        return field_within(head.copy, mask, block, COMPARED)

    fields = {kept: field(inner)}
    if np.count_nonzero(head.otsu & inner) >= COVERED * n_inner:
        otsu = field(head.otsu)
        if _correlation(fields[kept][inner], otsu[inner]) < AGREE:
            return Choice("otsu", 0.0, WEAK)
        fields[Choice("otsu", 0.0, CLEARER)] = otsu
    if np.count_nonzero(deep) < FEWEST_BLOCKS:
        return kept
    fields[Choice("brain", 0.0, None)] = field(edge > 0)
    values = np.log(np.maximum(head.copy.values[deep], np.finfo(np.float32).tiny))
    return min(fields, key=lambda choice: _entropy(values - fields[choice][deep]))


WEAK = (
    "The fields estimated in the brain and in Otsu's mask do not agree: there is hardly any "
    "field; Otsu's mask is kept."
)
CLEARER = (
    "A brain was found, but the field estimated in Otsu's mask leaves clearer tissues in it; "
    "Otsu's mask is kept."
)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two fields; 0 where one of them is constant."""
    if min(one.std(), other.std()) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _entropy(logs: np.ndarray) -> float:
    """Entropy of the smoothed histogram of ln of intensity about its median."""
    counts, _ = np.histogram(logs - np.median(logs), BINS, (-1, 1))
    shares = ndimage.gaussian_filter1d(counts / counts.sum(), SMOOTH)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
