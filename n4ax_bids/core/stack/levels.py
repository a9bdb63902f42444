"""The samples of a stack from a coarser level of its pyramid. Host arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from n4ax_bids.core.stack.samples import Along, Thinning
from n4ax_bids.options.stack import StackOptions


class OnLevel(NamedTuple):
    """How the planes of a coarser level are thinned, and where its samples lie."""

    how: Thinning
    """the samples in voxels of the finest level"""
    grid: Thinning
    """the same blocks in voxels of this level"""
    planes: np.ndarray
    """(planes,), the plane of this level that is nearest to each plane of the finest one"""


def on_level(
    options: StackOptions,
    how: Thinning,
    shape: Sequence[int],
    level_shape: Sequence[int],
    factors: Sequence[int],
    first: Sequence[float],
) -> OnLevel | None:
    """Return how a coarser level is thinned.

    Its samples are as far apart as those of the finest level, or less far where the wanted
    distance is no multiple of its voxels. A level with fewer planes than the finest one serves
    only if no step looks at single planes or at the borders of sections.

    Parameters
    ----------
    options : StackOptions
    how : Thinning of the finest level
    shape, level_shape : planes, rows and columns of the finest level and of this one
    factors : voxels of the finest level on each axis of one of this level
    first : centre of this level's first voxel, in voxels of the finest level

    Returns
    -------
    OnLevel, or None if this level is too coarse, or ITK's samples are wanted
    """
    if not how.means or factors[0] > _most_planes(options, shape[0]):
        return None
    fine, coarse = [], []
    for along, n, its_n, factor, place in zip(
        how.blocks, shape[1:], level_shape[1:], factors[1:], first[1:], strict=True
    ):
        ratio = along.factor // factor
        count = min(its_n // ratio, n // (ratio * factor)) if ratio else 0
        if not count:
            return None
        block = Along(ratio, (its_n - count * ratio) // 2, count)
        start = place + factor * block.start - (factor - 1) / 2
        coarse.append(block)
        fine.append(Along(ratio * factor, start, count))
    planes = np.rint((np.arange(shape[0]) - first[0]) / factors[0])
    return OnLevel(
        how._replace(blocks=(fine[0], fine[1])),
        how._replace(blocks=(coarse[0], coarse[1])),
        np.clip(planes, 0, level_shape[0] - 1).astype(np.intp),
    )


def _most_planes(options: StackOptions, n: int) -> int:
    """Return how many planes of a stack one plane of a level may hold."""
    if options.sections != 1 or options.match == "plane" or options.profile_sigma:
        return 1
    return min(options.shrink_factor, max(1, n // 2))


def spacing(level: OnLevel) -> tuple[int, int]:
    """Return a key by which the level nearest to the wanted distance of samples is the largest."""
    rows, columns = level.how.blocks
    its_rows, its_columns = level.grid.blocks
    # Of levels whose samples are equally far apart, the coarsest has the fewest voxels.
    return rows.factor * columns.factor, -its_rows.factor * its_columns.factor
