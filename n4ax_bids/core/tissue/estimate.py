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
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.core.tissue import blocks as block_means
from n4ax_bids.core.tissue import spline as splines
from n4ax_bids.core.tissue.blocks import Blocks
from n4ax_bids.core.tissue.mixture import N_NOISES, Classes
from n4ax_bids.core.tissue.solve import (
    APART,
    COARSE,
    FEWEST_ROUNDS,
    Arrays,
    Numbers,
    Solved,
    solve,
    start,
)
from n4ax_bids.core.tissue.spline import Spline
from n4ax_bids.options.tissue import TissueOptions

PAD = 16
"""blocks on each axis are padded to a multiple of this, so that images share programs"""
REGION = 25.0
"""mm, size of the regions of the misfit"""
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


def estimate(image: Image, options: TissueOptions) -> Found | None:
    """Estimate the field; None if too few blocks have a signal and homogeneous surroundings."""
    blocks = block_means.blocks_of(image.values, image.weight, image.zooms, options.block_mm)
    h = block_means.homogeneity(blocks, options.homogeneity)
    n_blocks = int(np.count_nonzero(h))
    if n_blocks < FEWEST_BLOCKS:
        return None
    spline = splines.spline_of(blocks, options.knots)
    with jax.enable_x64(True):
        arrays = _arrays(blocks, h, spline, options.knots)
        begin = start(arrays, strides=_strides(blocks.mm))
        solved = _solved(arrays, begin, options, options.stiffness)
        stiffness = softened(options, float(solved.sd))
        n_rounds, changes = int(solved.n_rounds), _changes(solved)
        if stiffness < options.stiffness:
            solved = _solved(arrays, solved.lattice, options, stiffness)
            n_rounds, changes = n_rounds + int(solved.n_rounds), changes + _changes(solved)
    lattice = np.asarray(solved.lattice).reshape(spline.points)
    weight = h[spline.box]
    level = _mean(lattice, spline, weight)
    order = np.argsort(solved.classes.mean, kind="stable")
    mean, share, variance = (np.asarray(each, np.float64)[order] for each in solved.classes[:3])
    return Found(
        splines.log_field(spline, lattice - level, blocks.factors),
        Classes(mean, share, variance, float(solved.classes.outliers)),
        n_blocks,
        n_rounds,
        changes,
        stiffness,
        float(solved.misfit),
        float(solved.sd),
        blocks.noise,
    )


def softened(options: TissueOptions, sd: float) -> float:
    """Return the stiffness for a field of this strength (sd of ln b), mm^6.

    Strong fields come from surface coils and bend more than weak ones.
    """
    lowest = min(options.stiffness, SOFTEST)
    if not sd > STRONG:
        return options.stiffness
    return max(options.stiffness * (STRONG / sd) ** options.softening, lowest)


def _solved(arrays: Arrays, lattice: Any, options: TissueOptions, stiffness: float) -> Solved:
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


def _strides(mm: Sequence[float]) -> tuple[tuple[int, int], ...]:
    """Return the steps of the start on each axis, in blocks and in such steps."""
    steps = [max(1, round(COARSE / each)) for each in mm]
    return tuple((s, max(1, round(APART / (each * s)))) for s, each in zip(steps, mm, strict=True))


def _arrays(blocks: Blocks, h: np.ndarray, spline: Spline, knots: float) -> Arrays:
    """Return the arrays of the solve, padded."""
    box = spline.box
    sizes = [high - low for low, high in zip(spline.lower, spline.upper, strict=True)]
    padded = [-(-size // PAD) * PAD for size in sizes]

    def grown(values: np.ndarray) -> np.ndarray:
        more = [(0, to - size) for size, to in zip(sizes, padded, strict=True)]
        return np.pad(values[box], more)

    def tall(matrix: np.ndarray, to: int) -> jax.Array:
        return jnp.asarray(np.pad(matrix, ((0, to - len(matrix)), (0, 0))), jnp.float32)

    steps = _steps(blocks.mm, knots)
    counted = blocks.nu[h > 0]
    edges = np.quantile(counted, np.linspace(0, 1, N_NOISES + 1)[1:-1])
    bins = np.searchsorted(edges, counted)
    n = np.bincount(bins, minlength=N_NOISES)
    nu = np.bincount(bins, counted, N_NOISES) / np.maximum(n, 1)
    return Arrays(
        x=jnp.asarray(grown(blocks.x), jnp.float32),
        h=jnp.asarray(grown(h), jnp.float32),
        ok=jnp.asarray(grown(blocks.ok)),
        noise_bin=jnp.asarray(np.searchsorted(edges, grown(blocks.nu)), jnp.int32),
        nu=jnp.asarray(nu, jnp.float32),
        listed=jnp.asarray(_listed(grown(h)), jnp.int32),
        bases=tuple(tall(each, to) for each, to in zip(spline.bases, padded, strict=True)),
        penalty=jnp.asarray(spline.penalty, jnp.float64),
        area=jnp.asarray(_areas(padded, steps), jnp.int32),
        smoothing=tuple(
            jnp.asarray(_smoothing(-(-to // step)), jnp.float32)
            for to, step in zip(padded, steps, strict=True)
        ),
        cells=tuple(
            tall(_regions(size, mm), to)
            for size, mm, to in zip(sizes, blocks.mm, padded, strict=True)
        ),
    )


def _listed(h: np.ndarray) -> np.ndarray:
    """Return the flat indices of blocks with a weight, padded so that images share programs."""
    found = np.flatnonzero(h)
    step = max(1024, 1 << max(0, h.size.bit_length() - 4))
    return np.pad(found, (0, -len(found) % step), constant_values=h.size)


def _regions(n: int, mm: float) -> np.ndarray:
    """Return which region each block of an axis lies in: (n, regions), 0 and 1."""
    n_regions = max(1, round(n * mm / REGION))
    return np.eye(n_regions)[np.arange(n) * n_regions // n]


def _steps(mm: Sequence[float], knots: float) -> list[int]:
    """Return how many blocks an area has on each axis."""
    return [max(1, round(knots / 2 / each)) for each in mm]


def _areas(sizes: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """Return the number of the area that each block lies in."""
    own = np.indices(sizes, np.int32, sparse=True)
    each = [at // step for at, step in zip(own, steps, strict=True)]
    counts = [-(-n // step) for n, step in zip(sizes, steps, strict=True)]
    return np.ravel_multi_index(np.broadcast_arrays(*each), counts)


def _smoothing(n: int) -> np.ndarray:
    """Return the matrix that averages each area with its two neighbours: (n, n)."""
    return (np.eye(n) + (np.eye(n, k=1) + np.eye(n, k=-1)) / 2) / 2
