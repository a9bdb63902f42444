"""One image: its arrays for a fit, and the field from what was fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.estimator import Given, positive_values, require_axes
from n4ax_bids.core.field import LogField
from n4ax_bids.core.zero_dce import grid, lattice, levels, losses, network
from n4ax_bids.core.zero_dce.fit import Arrays, Fitted, Form, Numbers
from n4ax_bids.core.zero_dce.grid import Axis
from n4ax_bids.options.zero_shot import WEIGHTS, ZeroShotOptions

TOP = 99.9
"""percentile of the foreground that becomes 1"""
LIMIT = 0.95
"""a tone map above this is at its limit, 1"""


class Image(NamedTuple):
    """A checked image."""

    values: np.ndarray
    """float32, 0 where the image was negative or not finite"""
    foreground: np.ndarray
    """float32 like `values`: the weight inside the mask, at most 1; 0 outside"""
    zooms: tuple[float, ...]
    """mm"""
    axes: tuple[Axis, ...]


class Seen(NamedTuple):
    """An image as the fit sees it."""

    arrays: Arrays
    inside: np.ndarray
    """share of foreground of each block"""
    blocks: np.ndarray
    """mean of the foreground of each block, 0 to 1"""
    scale: float
    """intensity that became 1"""


class Learned(NamedTuple):
    """What a fit has found."""

    log_field: LogField
    saturated: float
    """share of the foreground where the tone map is at its limit"""
    range_alpha: tuple[float, float]


def image_of(given: Given, options: ZeroShotOptions) -> Image:
    """Check the arrays.

    Raises
    ------
    ValueError
        If shapes differ, nothing is inside the mask, or the image is 0 there.
    """
    require_fit(np.shape(given.image), given.zooms, options)
    values, foreground = positive_values(given, most=1.0)
    axes = axes_of(values.shape, given.zooms, options)
    return Image(values, foreground, tuple(given.zooms), axes)


def require_fit(shape: Sequence[int], zooms: Sequence[float], options: ZeroShotOptions) -> None:
    """Refuse a shape, voxel sizes or a distance of knots that cannot be used.

    Raises
    ------
    ValueError
        One line with the value and what was expected.
    """
    require_axes(shape, zooms)
    lattice.points(shape, zooms, options.field_spacing)


def axes_of(
    shape: Sequence[int], zooms: Sequence[float], options: ZeroShotOptions
) -> tuple[Axis, ...]:
    """Return the axes of an image on their grids."""
    regions = (options.region_spatial, options.region_exposure)
    sizes_mm = zooms if options.scaled else (1.0,) * len(shape)
    return tuple(
        grid.axis_of(n, options.downsample, options.block, regions, mm)
        for n, mm in zip(shape, sizes_mm, strict=True)
    )


def form_of(image: Image, options: ZeroShotOptions) -> Form:
    """Return what decides the compiled program."""
    spatial, exposure = zip(*(axis.regions for axis in image.axes), strict=True)
    regions = losses.Regions(spatial, exposure, options.neighbours)
    clip = options.gradient_clip is not None
    return Form(options.n_curves, options.n_steps, regions, clip)


def numbers_of(options: ZeroShotOptions) -> Numbers:
    """Return the numbers that may change without another compilation."""
    return Numbers(
        losses.Terms(*(getattr(options, name) for name in WEIGHTS)),
        options.exposure,
        options.learning_rate,
        options.weight_decay,
        options.gradient_clip or 0.0,
    )


def start(options: ZeroShotOptions, n_axes: int) -> list[network.Layer]:
    """Return the random weights at the start."""
    return network.initial(jax.random.key(options.seed), options.width, n_axes)


def seen(image: Image, options: ZeroShotOptions) -> Seen:
    """Return the image as the fit sees it: scaled, shrunk and in blocks."""
    values = image.values
    counted = values[image.foreground > 0]
    scale = float(np.percentile(counted, TOP)) or float(counted.max())
    values = np.clip(values / np.float32(scale), 0, 1)
    inside, blocks = _means(values, image.foreground, image.axes)
    share, means = inside, blocks
    if options.background:
        share, means = _means(values, np.ones_like(values), image.axes)
    coarse = grid.contracted(values, [axis.shrink() for axis in image.axes])
    valid = np.zeros(coarse.shape, np.float32)
    valid[tuple(slice(axis.n_coarse) for axis in image.axes)] = 1
    per_axis = [axis.n / axis.block for axis in image.axes]
    places = [axis.enlarge(axis.block_centres()).astype(np.float32) for axis in image.axes]
    arrays = Arrays(
        coarse=jnp.asarray(coarse),
        inside=jnp.asarray(valid),
        image=jnp.asarray(means),
        weight=jnp.asarray(share),
        enlarge=tuple(jnp.asarray(each) for each in places),
        per_block=jnp.asarray(per_axis, jnp.float32) / 256,
        n_blocks=jnp.asarray(math.prod(per_axis), jnp.float32),
    )
    return Seen(arrays, inside, blocks, scale)


def learned(image: Image, given: Seen, fitted: Fitted, options: ZeroShotOptions) -> Learned:
    """Return the field of a fit: a spline through ln of image / brightened image."""
    alpha = np.asarray(bspline.contract(fitted.alpha, given.arrays.enlarge))
    bright = losses.curve(given.blocks, alpha, options.n_curves)
    counts = (given.inside > 0) & (given.blocks > levels.DARKEST)
    weight = np.where(counts, given.inside, 0)
    if not counts.any():
        raise ValueError(
            f"every block of the foreground is below {levels.DARKEST:g} of its brightest voxels; "
            "expected an image without extreme values, or a mask that leaves them out"
        )
    ratio = np.where(counts, given.blocks, 1) / np.where(counts, bright, 1)
    centres = [axis.block_centres() for axis in image.axes]
    shape = image.values.shape
    # Coarse at first: a fine spline would take the anatomy that the curve follows for field.
    spacing = options.field_spacing * (2 if options.refines else 1)
    found = lattice.fitted(np.log(ratio), weight, centres, shape, image.zooms, spacing)
    saturated = float(weight[np.abs(alpha) > LIMIT].sum() / weight.sum())
    coarse = np.asarray(fitted.alpha)[tuple(slice(axis.n_coarse) for axis in image.axes)]
    return Learned(found, saturated, (float(coarse.min()), float(coarse.max())))


def refined(image: Image, given: Seen, field: LogField, options: ZeroShotOptions) -> LogField:
    """Return the field after its rounds by tissue classes.

    Parameters
    ----------
    given : the image as the fit sees it
    field : from the fit
    """
    if not options.refines:
        return field
    samples = levels.samples_of(image.values, image.foreground, image.zooms, given.scale)
    if not samples.weight.any():
        return field
    return levels.refined(
        field,
        samples,
        image.values.shape,
        image.zooms,
        options.field_spacing,
        n_levels=options.n_levels,
        n_rounds=options.n_rounds,
    )


def brightened(image: Image, given: Seen, fitted: Fitted, options: ZeroShotOptions) -> np.ndarray:
    """Return the brightened image X at full resolution in the units of the image."""
    alpha = grid.contracted(
        fitted.alpha, [axis.enlarge(np.arange(axis.n, dtype=float)) for axis in image.axes]
    )
    values = np.clip(image.values / np.float32(given.scale), 0, 1)
    return losses.curve(values, alpha, options.n_curves) * np.float32(given.scale)


def _means(
    values: np.ndarray, weight: np.ndarray, axes: Sequence[Axis]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of weight and the weighted mean of each block."""
    matrices = [axis.means() for axis in axes]
    share = grid.contracted(weight, matrices)
    sums = grid.contracted(values * weight, matrices)
    return share, sums / np.where(share > 0, share, 1)
