"""One image: checked arrays in, the field and the classes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.estimator import Given, positive_values, require_axes
from n4ax_bids.core.field import LogField
from n4ax_bids.core.memory_maps import make_room
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.core.tissue import blocks as block_means
from n4ax_bids.core.tissue import spline as splines
from n4ax_bids.core.tissue.arrays import arrays_of, strides_of
from n4ax_bids.core.tissue.blocks import Blocks
from n4ax_bids.core.tissue.equations import Arrays
from n4ax_bids.core.tissue.mixture import Classes
from n4ax_bids.core.tissue.solve import FEWEST_ROUNDS, Numbers, Solved, solve
from n4ax_bids.core.tissue.spline import Spline
from n4ax_bids.core.tissue.start import start
from n4ax_bids.options.tissue import TissueOptions

STRONG = 0.16
"""sd of ln b above which the stiffness is lowered"""
SOFTEST = 1e7
"""mm^6, lowest stiffness"""
FEWEST_BLOCKS = 64
"""blocks with a weight below which nothing is estimated"""


class Image(NamedTuple):
    """A checked image."""

    values: np.ndarray
    """float32, 0 where the image was negative or not finite"""
    weight: np.ndarray
    """float32 like `values`, 0 outside the mask"""
    zooms: tuple[float, ...]
    """mm"""
    notes: tuple[str, ...]


class Found(NamedTuple):
    """What was estimated of an image."""

    log_field: LogField
    classes: Classes
    """on the host, float64, sorted by their means"""
    n_blocks: int
    """blocks that had a weight"""
    n_rounds: int
    changes: tuple[float, ...]
    stiffness: float
    """mm^6, lowered where the field is strong"""
    misfit: float
    sd: float
    """of ln b at the blocks"""
    noise: float
    """standard deviation of the noise of a voxel, intensity"""


def image_of(given: Given, options: TissueOptions) -> Image:
    """Check the arrays.

    Raises
    ------
    ValueError
        If shapes differ, nothing is inside the mask, or the image is 0 there.
    """
    require_fit(np.shape(given.image), given.zooms, options)
    values, weight = positive_values(given)
    notes = []
    if given.mask is None and given.weight is None and values.min() < values.max():
        weight *= np.asarray(otsu_mask(values)) != 0
        notes.append("there is no mask: the voxels above Otsu's threshold were used")
    return Image(values, weight, tuple(given.zooms), tuple(notes))


def require_fit(shape: Sequence[int], zooms: Sequence[float], options: TissueOptions) -> None:
    """Refuse a shape, voxel sizes or a distance of knots that cannot be used.

    Raises
    ------
    ValueError
        One line with the value and what was expected.
    """
    require_axes(shape, zooms)
    n_points = math.prod(
        max(1, round(n * mm / options.knots)) + splines.ORDER
        for n, mm in zip(shape, zooms, strict=True)
    )
    if n_points > splines.MOST:
        raise ValueError(
            f"knots is {options.knots:g} mm, which needs {n_points} control points; expected a "
            f"larger distance, for at most {splines.MOST}"
        )


def estimate(images: Sequence[Image], options: TissueOptions) -> list[Found | None]:
    """Estimate the field that images of one grid share.

    Parameters
    ----------
    images : of one shape and one size of voxel
    options : TissueOptions

    Returns
    -------
    for each image what was found, with the field of all of them; None for an image with too few
    blocks that have a signal and homogeneous surroundings, which had no part in the estimate
    """
    every = [
        block_means.blocks_of(each.values, each.weight, each.zooms, options.block_mm)
        for each in images
    ]
    weights = [block_means.homogeneity(blocks, options.homogeneity) for blocks in every]
    enough = [int(np.count_nonzero(h)) >= FEWEST_BLOCKS for h in weights]
    both = [
        pair for pair, good in zip(zip(every, weights, strict=True), enough, strict=True) if good
    ]
    found = iter(_estimated(both, options) if both else [])
    return [next(found) if good else None for good in enough]


def _estimated(both: list[tuple[Blocks, np.ndarray]], options: TissueOptions) -> list[Found]:
    """Estimate the field from blocks and their weights, of each image."""
    make_room()
    first = both[0][0]
    ok = np.any([blocks.ok for blocks, _ in both], axis=0)
    spline = splines.spline_of(first._replace(ok=ok), options.knots)
    with jax.enable_x64(True):
        arrays = tuple(arrays_of(blocks, h, spline, options.knots) for blocks, h in both)
        strides = strides_of(first.mm)
        begins = [np.asarray(start(each, strides=strides)) for each in arrays]
        solved = _solved(arrays, np.mean(begins, axis=0), options, options.stiffness)
        stiffness = softened(options, float(solved.sd))
        n_rounds, changes = int(solved.n_rounds), _changes(solved)
        if stiffness < options.stiffness:
            solved = _solved(arrays, solved.lattice, options, stiffness)
            n_rounds, changes = n_rounds + int(solved.n_rounds), changes + _changes(solved)
    lattice = np.asarray(solved.lattice).reshape(spline.points)
    level = np.mean([_mean(lattice, spline, h[spline.box]) for _, h in both])
    field = splines.log_field(spline, lattice - level, first.factors)
    return [
        Found(
            field,
            _sorted(classes),
            int(np.count_nonzero(h)),
            n_rounds,
            changes,
            stiffness,
            float(misfit),
            float(solved.sd),
            blocks.noise,
        )
        for (blocks, h), classes, misfit in zip(both, solved.classes, solved.misfit, strict=True)
    ]


def _sorted(classes: Classes) -> Classes:
    """Return the classes from dark to bright, in double precision."""
    order = np.argsort(classes.mean, kind="stable")
    mean, share, variance = (np.asarray(each, np.float64)[order] for each in classes[:3])
    return Classes(mean, share, variance, float(classes.outliers))


def softened(options: TissueOptions, sd: float) -> float:
    """Return the stiffness for a field of this strength (sd of ln b), mm^6.

    Strong fields come from surface coils and bend more than weak ones.
    """
    lowest = min(options.stiffness, SOFTEST)
    if not sd > STRONG:
        return options.stiffness
    return max(options.stiffness * (STRONG / sd) ** options.softening, lowest)


def _solved(
    arrays: tuple[Arrays, ...], lattice: Any, options: TissueOptions, stiffness: float
) -> Solved:
    """Estimate classes and field, and fetch them from the device."""
    limit = max(options.most_rounds, FEWEST_ROUNDS)
    numbers = _numbers(options)._replace(stiffness=stiffness)
    begun = jnp.asarray(lattice)
    found = solve(arrays, numbers, begun, n_classes=options.n_classes, limit=limit)
    return Solved(*jax.device_get(found))


def _changes(solved: Solved) -> tuple[float, ...]:
    return tuple(float(each) for each in solved.changes[: int(solved.n_rounds)])


def _mean(lattice: np.ndarray, spline: Spline, weight: np.ndarray) -> float:
    """Return the weighted mean of the field at the blocks."""
    sums = weight
    for basis in spline.bases:
        sums = np.tensordot(sums, basis, (0, 0))
    return float((sums * lattice).sum() / weight.sum())


def _numbers(o: TissueOptions) -> Numbers:
    return Numbers(o.stiffness, o.balance, o.least_sd, o.convergence, o.most_rounds)
