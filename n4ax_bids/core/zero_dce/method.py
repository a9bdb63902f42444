"""The zero-shot method as one of the methods: options and arrays in, the field out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from n4ax_bids.core.estimator import Estimate, Given, Report, Solve
from n4ax_bids.core.memory_maps import make_room
from n4ax_bids.core.zero_dce import fit, network, solve
from n4ax_bids.core.zero_dce.fit import Fitted
from n4ax_bids.options.zero_shot import ZeroShotOptions

CURVE = "curve"
"""label of the brightened image"""
SECTION = 16
"""most values on each axis of a map's section in the details"""
SATURATED = 0.5
"""share of the foreground with its tone map at the limit that is called saturation"""


@dataclass(frozen=True)
class ZeroShotDetails:
    """The numbers of a solve that only this method has."""

    n_parameters: int
    """weights of the network"""
    factors: tuple[int, ...]
    """voxels of each axis for one of the grid that the network sees; lowered on short axes"""
    losses: tuple[float, ...]
    """before each step and after the last"""
    saturated: bool
    """whether the tone map is at its limit in most of the foreground: the result means nothing"""
    saturated_share: float
    """share of the foreground where it is at its limit"""
    alpha_min: float
    alpha_max: float
    """range of the tone map, which lies between -1 and 1"""
    alpha_section: tuple[tuple[float, ...], ...]
    """the tone map in the middle plane of the last axis, at most 16 values on each axis"""
    bias_section: tuple[tuple[float, ...], ...]
    """the bias map in the same plane"""


def prepare(given: Given, options: ZeroShotOptions) -> Solve:
    """Prepare a solve; see `n4ax_bids.core.estimator.Estimator`.

    Raises
    ------
    ValueError
        If arrays or options do not fit.
    """
    image = solve.image_of(given, options)

    def run(report: Report | None = None) -> Estimate:
        return solve_all([image], options, one_by_one, report)[0]

    return run


Fit = Callable[[list[fit.Arrays], list[fit.Form], ZeroShotOptions], list[Fitted]]
"""Fits one network to each of several images."""


def one_by_one(
    arrays: list[fit.Arrays], forms: list[fit.Form], options: ZeroShotOptions
) -> list[Fitted]:
    """Fit the images one after the other."""
    numbers = solve.numbers_of(options)
    return [
        fit.fit(solve.start(options, each.coarse.ndim), each, form, numbers)
        for each, form in zip(arrays, forms, strict=True)
    ]


def solve_all(
    images: list[solve.Image], options: ZeroShotOptions, fitting: Fit, report: Report | None = None
) -> list[Estimate]:
    """Estimate the fields of images.

    Parameters
    ----------
    images : checked
    options : for all of them
    fitting : fits the networks
    report : called with 1, the step from 1, and the loss before it
    """
    make_room()
    views = [solve.seen(image, options) for image in images]
    forms = [solve.form_of(image, options) for image in images]
    fitted = fitting([view.arrays for view in views], forms, options)
    found = []
    for image, view, each in zip(images, views, fitted, strict=True):
        if report is not None:
            for step, value in enumerate(np.asarray(each.losses), start=1):
                report(1, step, float(value))
        found.append(_estimate(image, view, each, options))
    return found


def _estimate(
    image: solve.Image, view: solve.Seen, fitted: Fitted, options: ZeroShotOptions
) -> Estimate:
    """Return the field of one image and what the user should know of it."""
    learned = solve.learned(image, view, fitted, options)
    field = solve.refined(image, view, learned.log_field, options)
    n_coarse = [axis.n_coarse for axis in image.axes]
    details = ZeroShotDetails(
        n_parameters=network.n_parameters(options.width, len(image.axes)),
        factors=tuple(axis.factor for axis in image.axes),
        losses=tuple(float(f"{value:.6g}") for value in np.asarray(fitted.losses)),
        saturated=learned.saturated > SATURATED,
        saturated_share=round(learned.saturated, 4),
        alpha_min=learned.range_alpha[0],
        alpha_max=learned.range_alpha[1],
        alpha_section=_section(np.asarray(fitted.alpha), n_coarse),
        bias_section=_section(np.asarray(fitted.bias), n_coarse),
    )
    images = {}
    if options.output == "curve":
        images[CURVE] = solve.brightened(image, view, fitted, options)
    return Estimate(field, details, _notes(image, details), images)


def _notes(image: solve.Image, details: ZeroShotDetails) -> tuple[str, ...]:
    """Return what a user should know of a result."""
    notes = []
    if details.saturated:
        notes.append(
            f"saturated: the tone map is at its limit in {details.saturated_share:.0%} of the "
            "foreground, where all tissues become equally bright; the result means nothing"
        )
    short = [axis.n for axis in image.axes if axis.short]
    if short:
        factors = "x".join(str(n) for n in details.factors)
        notes.append(
            f"an axis of {min(short)} voxels is short: the network saw the image shrunk by "
            f"{factors}"
        )
    return tuple(notes)


def _section(values: np.ndarray, n_coarse: Sequence[int]) -> tuple[tuple[float, ...], ...]:
    """Return the middle plane of the last axis, thinned, with three digits."""
    values = values[tuple(slice(n) for n in n_coarse)]
    if values.ndim == 3:
        values = values[..., values.shape[2] // 2]
    step = [max(1, -(-n // SECTION)) for n in values.shape]
    thin = values[:: step[0], :: step[1]]
    return tuple(tuple(round(float(value), 3) for value in row) for row in thin)


def memory(options: ZeroShotOptions, shape: Sequence[int], zooms: Sequence[float]) -> int:
    """Return about how many bytes the solve of an image takes, without those of the image.

    Parameters
    ----------
    options : ZeroShotOptions
    shape : voxels of each axis
    zooms : mm of each axis
    """
    axes = solve.axes_of(shape[:3], zooms[:3], options)
    n, n_axes = math.prod(shape[:3]), len(axes)
    coarse = math.prod(axis.padded / axis.factor for axis in axes)
    blocks = math.prod(axis.padded / axis.block for axis in axes)
    # Copies of the image on the host; neighbours of each channel's voxels; blocks of the loss.
    return int(16 * n + 4 * coarse * 3**n_axes * options.width * 20 + 160 * blocks)
