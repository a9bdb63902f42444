"""The choice of the mask in which the field of a head with a brain is estimated, without labels.

A field is estimated within each candidate on the coarse copy. Deep in the brain, which all
candidates contain, a better field leaves intensities that lie closer to those of the tissues:
their histogram has a lower entropy.
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
"""share of brain or head that Otsu's mask covers under a weak field; with less it is not a
candidate"""
AGREE = 0.88
"""correlation of the fields in the brain and in Otsu's mask; below it, neither is reliable"""
DEEP = 3.0
"""depth in blocks below the brain's edge from which histograms are taken"""
FEWEST_BLOCKS = 500
"""smallest number of blocks for a histogram"""
BINS = 200
"""bins of the histogram of ln of intensity, from -1 to 1 about the median"""
SMOOTH = 2.0
"""standard deviation in bins of the Gaussian that smooths the histogram"""
COMPARED = N4Options(shrink_factor=1, n_iterations=(10, 10, 10, 10), over_relaxation=1.9)


class Choice(NamedTuple):
    """A mask that was chosen."""

    kind: Literal["brain", "otsu"]
    inner: float
    """mm by which the brain mask is made smaller"""
    note: str | None
    """a sentence that says why it is not the brain"""


def choose(head: Head, brain: Brain, shape: Sequence[int], zooms: Sequence[float]) -> Choice:
    """Choose among the brain without its rim, the whole brain, and Otsu's mask.

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
    """Return the correlation of two fields; 0 if one of them is constant."""
    if min(one.std(), other.std()) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _entropy(logs: np.ndarray) -> float:
    """Return the entropy of the smoothed histogram of ln of intensity about its median."""
    counts, _ = np.histogram(logs - np.median(logs), BINS, (-1, 1))
    shares = ndimage.gaussian_filter1d(counts / counts.sum(), SMOOTH)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
