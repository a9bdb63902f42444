"""Which voxels of a stack enter the estimate: planes are thinned as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from n4ax_bids.core.n4.plan import Axis, Plan, plan
from n4ax_bids.core.stack.mixed import mixed
from n4ax_bids.options.stack import StackOptions


class Along(NamedTuple):
    """The samples of one axis in the plane."""

    factor: int
    start: float
    """voxel of the first sample, or of the first block; a whole number unless the samples come
    from a coarser level of a pyramid"""
    n: int
    """number of samples"""

    @property
    def centre(self) -> np.ndarray:
        """Position of each block's centre, voxels."""
        return self.start + self.factor * np.arange(self.n) + (self.factor - 1) / 2


class Thinning(NamedTuple):
    """How planes are thinned: the same for all planes of a stack."""

    sampled: tuple[Along, Along]
    """rows and columns that ITK's shrinking takes"""
    blocks: tuple[Along, Along]
    """blocks whose means are taken"""
    means: bool
    """whether the estimate uses the means"""

    @property
    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the samples that the estimate uses, voxels."""
        if self.means:
            return self.blocks[0].centre, self.blocks[1].centre
        rows, columns = (a.start + a.factor * np.arange(a.n) for a in self.sampled)
        return rows, columns

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a thinned plane."""
        rows, columns = self.blocks if self.means else self.sampled
        return rows.n, columns.n


def blocks_of(n: int, factor: int) -> Along:
    """Return the whole blocks of an axis; an equal number of voxels is left out at both ends."""
    count = max(1, n // factor)
    return Along(min(factor, n), (n - count * min(factor, n)) // 2, count)


def section_plan(
    options: StackOptions, shape: Sequence[int], zooms: Sequence[float], spline_mm: float
) -> Plan:
    """Plan the solve of some planes.

    The spans of the first level are the extent divided by the distance of knots, rounded, but no
    more than leave each span of the last level a sample.

    Parameters
    ----------
    options : StackOptions
    shape : planes, rows and columns
    zooms : size of a voxel on these axes, mm
    spline_mm : distance of knots at the first level
    """
    doublings = 2 ** (len(options.n_iterations) - 1)
    points = []
    for n, zoom in zip(shape[::-1], zooms[::-1], strict=True):
        n_samples = max(1, n // min(options.shrink_factor, max(1, n // 2)))
        most = max(1, (n_samples - 1) // doublings)
        points.append(min(max(1, round(n * zoom / spline_mm)), most) + 3)
    return plan(options.n4(n_control_points=tuple(points)), shape[::-1], zooms[::-1])


def thinning(options: StackOptions, shape: Sequence[int], zooms: Sequence[float]) -> Thinning:
    """Return how the planes of a stack are thinned."""
    made = section_plan(options, shape, zooms, options.global_spline_mm)
    sampled, blocks = [], []
    for d, n in ((1, shape[1]), (0, shape[2])):
        axis = made.axes[d]
        start = made.image_start[d] + axis.shrink_factor * axis.first_sample
        sampled.append(Along(axis.shrink_factor, start, axis.count))
        blocks.append(blocks_of(n, axis.shrink_factor))
    means = options.sampling == "mean"
    return Thinning((sampled[0], sampled[1]), (blocks[0], blocks[1]), means)


def thinned(slab: np.ndarray, how: Thinning, *, means: bool) -> np.ndarray:
    """Return the samples of some planes.

    Parameters
    ----------
    slab : array (planes, rows, columns)
    how : Thinning
    means : means of blocks instead of single voxels

    Returns
    -------
    float32 array (planes, fewer rows, fewer columns)
    """
    rows, columns = how.blocks if means else how.sampled
    with np.errstate(over="ignore"):
        if not means:
            part = slab[:, int(rows.start) :: rows.factor, int(columns.start) :: columns.factor]
            return np.array(part[:, : rows.n, : columns.n], np.float32)
        return _mean(_mean(slab, rows, 1), columns, 2)


def _mean(array: np.ndarray, along: Along, axis: int) -> np.ndarray:
    """Average the blocks of one axis, one voxel of all blocks after the other."""
    total: np.ndarray | None = None
    latest = array.shape[axis] - along.factor * along.n
    start = min(max(0, round(along.start)), latest)
    for k in range(along.factor):
        first = start + k
        last = first + along.factor * (along.n - 1) + 1
        index = [slice(None)] * array.ndim
        index[axis] = slice(first, last, along.factor)
        part = array[tuple(index)]
        total = part.astype(np.float32) if total is None else np.add(total, part, out=total)
    assert total is not None
    total /= np.float32(along.factor)
    return total


class Samples(NamedTuple):
    """The samples of some planes, ready for N4."""

    image: np.ndarray
    """float32, axes in reverse order (columns, rows, planes)"""
    mask: np.ndarray
    """bool, like the image"""
    plan: Plan
    """of the samples"""


def samples_of(thin: np.ndarray, mask: np.ndarray, made: Plan, how: Thinning) -> Samples:
    """Return the samples of some thinned planes, and the plan of their solve.

    Means of blocks that an edge divides are left out of the mask.

    Parameters
    ----------
    thin, mask : arrays (planes, rows, columns), thinned in the plane only
    made : Plan of the planes before they were thinned
    how : Thinning
    """
    if not how.means:
        return Samples(thin.T, mask.T, _on_sampled(made, thin.shape[::-1]))
    n = thin.shape[0]
    planes = blocks_of(n, made.axes[2].shrink_factor)
    image, inside = _mean(thin, planes, 0), _mean(mask, planes, 0) >= 0.5
    inside &= ~mixed(image, inside)
    along = (how.blocks[1], how.blocks[0], planes)
    return Samples(image.T, inside.T, _on_blocks(made, along))


def _on_sampled(made: Plan, shape: tuple[int, ...]) -> Plan:
    """Return the plan for an image whose planes hold only the samples."""
    axes = tuple(
        replace(axis, shrink_factor=1, first_sample=0) if d < 2 else axis
        for d, axis in enumerate(made.axes)
    )
    start = (0, 0, made.image_start[2])
    return replace(
        made, shape=shape, axes=axes, image_start=start, mask_start=start, weight_start=start
    )


def _on_blocks(made: Plan, along: Sequence[Along]) -> Plan:
    """Return the plan for an image of block means, which lie at the centres of their blocks."""
    axes = tuple(map(_centred, made.axes, along))
    shape, start = tuple(each.n for each in along), (0, 0, 0)
    return replace(
        made, shape=shape, axes=axes, image_start=start, mask_start=start, weight_start=start
    )


def _centred(axis: Axis, blocks: Along) -> Axis:
    first, step, clamp = axis.image
    at = first + step * (blocks.start + (blocks.factor - 1) / 2)
    sample = (at, step * blocks.factor, clamp)
    return replace(axis, shrink_factor=1, first_sample=0, count=blocks.n, sample=sample)
