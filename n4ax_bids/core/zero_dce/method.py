"""The zero-shot method as one of the methods: options and arrays in, the field out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from n4ax_bids.core.estimator import Estimate, Given, Report, Solve
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
    """before each step and after the last, pass after pass"""
    saturated: bool
    """whether the tone map is at its limit in most of the foreground: the result means nothing"""
    saturated_share: float
    """share of the foreground where it is at its limit, in the last pass"""
    alpha_min: float
    alpha_max: float
    """range of the tone map in the last pass; it lies between -1 and 1"""
    alpha_section: tuple[tuple[float, ...], ...]
    """the tone map of the last pass in the middle plane of the last axis, at most 16 values on
    each axis"""
    bias_section: tuple[tuple[float, ...], ...]
    """the bias map in the same plane"""


class Solved(NamedTuple):
    """The outcome of all passes over one image."""

    estimate: Estimate
    curve: np.ndarray | None
    """the brightened image, in the units of the image; None unless it was asked for"""


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
    layers = solve.start(options, arrays[0].coarse.ndim)
    numbers = solve.numbers_of(options)
    return [
        fit.fit(layers, each, form, numbers) for each, form in zip(arrays, forms, strict=True)
    ]


def solve_all(
    images: list[solve.Image], options: ZeroShotOptions, fitting: Fit, report: Report | None = None
) -> list[Estimate]:
    """Run all passes over images of the same number of axes."""
    fields: list = [None] * len(images)
    curves: list[list[float]] = [[] for _ in images]
    forms = [solve.form_of(image, options) for image in images]
    for number in range(options.n_passes):
        before = fields
        views = [solve.seen(i, f, options) for i, f in zip(images, fields, strict=True)]
        fitted = fitting([view.arrays for view in views], forms, options)
        passes = [
            solve.learned(image, field, view, each, options)
            for image, field, view, each in zip(images, fields, views, fitted, strict=True)
        ]
        fields = [each.log_field for each in passes]
        for curve, each in zip(curves, fitted, strict=True):
            values = [float(f"{value:.6g}") for value in np.asarray(each.losses)]
            curve += values
            for step, value in enumerate(values if report else [], start=1):
                report(number + 1, step, value)
    return [
        _estimate(image, curve, last, view, each, field, options)
        for image, curve, last, view, each, field in zip(
            images, curves, passes, views, fitted, before, strict=True
        )
    ]


def _estimate(
    image: solve.Image,
    curve: list[float],
    last: solve.Pass,
    view: solve.Seen,
    fitted: Fitted,
    before: solve.LogField | None,
    options: ZeroShotOptions,
) -> Estimate:
    n_coarse = [axis.n_coarse for axis in image.axes]
    details = ZeroShotDetails(
        n_parameters=network.n_parameters(options.width, len(image.axes)),
        factors=tuple(axis.factor for axis in image.axes),
        losses=tuple(curve),
        saturated=last.saturated > SATURATED,
        saturated_share=round(last.saturated, 4),
        alpha_min=last.range_alpha[0],
        alpha_max=last.range_alpha[1],
        alpha_section=_section(np.asarray(fitted.alpha), n_coarse),
        bias_section=_section(np.asarray(fitted.bias), n_coarse),
    )
    images = {}
    if options.output == "curve":
        images[CURVE] = solve.brightened(image, view, fitted, before, options)
    return Estimate(last.log_field, details, _notes(image, details, options), images)


def _notes(
    image: solve.Image, details: ZeroShotDetails, options: ZeroShotOptions
) -> tuple[str, ...]:
    """Return what a user should know of a result."""
    notes = []
    if details.saturated:
        notes.append(
            f"saturated: the tone map is at its limit in {details.saturated_share:.0%} of the "
            "foreground, where all tissues become equally bright; the result means nothing"
        )
    if any(factor < options.downsample for factor in details.factors):
        shape = "x".join(str(n) for n in image.values.shape)
        factors = "x".join(str(n) for n in details.factors)
        notes.append(
            f"shrunk by {factors} instead of {options.downsample} on each axis: {shape} voxels "
            "are few"
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
    n_axes = min(3, len(shape))
    n = math.prod(shape[:n_axes])
    coarse = n / options.downsample**n_axes
    # Copies of the image on the host; rows of neighbours of each channel; blocks of the loss.
    return int(16 * n + 4 * coarse * 3**n_axes * options.width * 20 + 160 * n / options.block**n_axes)
