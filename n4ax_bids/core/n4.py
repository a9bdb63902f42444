"""N4 bias field correction (Tustison et al. 2010), with the numbers of ITK's implementation.

v = ln(intensity) = u + b: u is sharp, b a smooth spline. Each iteration sharpens what is left,
fits a lattice to what the sharpening took away and adds it to the field; each level halves the
knot spacing. Facts and roundings: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from n4ax_bids.core import bspline, convergence, iterate
from n4ax_bids.core.field import LogField, basis_matrices, divide
from n4ax_bids.core.iterate import Grid, Matrices, Numbers
from n4ax_bids.core.plan import Plan, plan
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.options import N4Options


class N4Result(NamedTuple):
    """The field and how the solve went."""

    log_field: LogField
    """on the grid of the full image"""
    n_iterations: tuple[int, ...]
    """iterations done at each level"""
    convergence: tuple[float, ...]
    """last value of the stopping statistic at each level; NaN where no iteration was asked for"""
    converged: tuple[bool, ...]
    """whether a level ended because that value was not above the threshold"""
    n_voxels: int
    """voxels that took part, after shrinking"""


def n4(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray | str | None = "otsu",
    weight: jax.Array | np.ndarray | None = None,
    *,
    zooms: Sequence[float] | None = None,
    options: N4Options | None = None,
    return_bias: bool = False,
):
    """Correct the bias field of an image.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), intensities; axes in NIfTI order
    mask : array like `image` (non-zero = inside), "otsu" for the voxels above Otsu's threshold,
        or None for all voxels (as the ANTs program without a mask)
    weight : array like `image`, confidence of each voxel; voxels with weight <= 0 take no part
    zooms : voxel size of each axis in mm, 1 where not given; matters with a spline distance only
    options : N4Options, the ANTs program's defaults where not given
    return_bias : also return the field

    Returns
    -------
    corrected : float32 array like `image`, image / exp(log_bias) at every voxel, also outside the
        mask; a jax array if `image` is one, else numpy
    log_bias : float32 array like `image`, ln of the field; only with `return_bias`

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, the mask is empty or the image is constant in it.

    References
    ----------
    N. J. Tustison et al., N4ITK: Improved N3 Bias Correction, IEEE Trans Med Imaging 29(6),
    2010, doi 10.1109/TMI.2010.2046908.
    """
    image, mask, weight = map(_as_array, (image, mask, weight))
    if isinstance(mask, str):
        if mask != "otsu":
            raise ValueError(f"mask is {mask!r}; expected an array, 'otsu' or None")
        mask = otsu_mask(image)
    solved = plan(options or N4Options(), np.shape(image), zooms)
    result = estimate(image, mask, weight, plan=solved)
    corrected, log_bias = divide(image, result.log_field)
    return (corrected, log_bias) if return_bias else corrected


def _as_array(value):
    """Take lists as arrays; leave arrays, names and None as they are."""
    given = value if value is None or isinstance(value, str | jax.Array) else np.asarray(value)
    if getattr(given, "dtype", np.dtype(bool)).kind not in "biufV":
        raise ValueError(f"an array has the type {given.dtype}; expected real numbers")
    return given


def estimate(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray | None = None,
    weight: jax.Array | np.ndarray | None = None,
    *,
    plan: Plan,
    report: Callable[[int, int, float], None] | None = None,
) -> N4Result:
    """Estimate the log field of an image.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), full resolution
    mask : array like `image`, non-zero = inside; None for all voxels
    weight : array like `image`, or None for equal weights
    plan : Plan for the image's shape
    report : called after each iteration with the level and the iteration, both from 1, and the
        stopping statistic. The result is the same with it and without; the time is not: each
        iteration comes back to the host.

    Raises
    ------
    ValueError
        As `n4`.
    """
    options = plan.options
    dtype = np.dtype(options.precision)
    with jax.enable_x64(True):
        grid = _grid(image, mask, weight, plan, dtype)
        field = _first_field(plan, dtype)
        bias = np.zeros(grid.log_image.shape, dtype)
        done, values, ended = [], [], []
        for level, most in enumerate(options.n_iterations):
            if level and options.refine:
                field = _refined(field)
            tell = report and partial(report, level + 1)
            field, bias, n, value = _level(grid, field, bias, most, options, tell)
            done.append(n)
            values.append(value)
            ended.append(most > 0 and value <= options.convergence_threshold)
        if not np.isfinite(field.lattice).all():
            raise ValueError("the solve has no finite answer; are intensities or options extreme?")
        axes = [axis.image for axis in plan.axes]
        scale = (field.lattice.shape[-1] - field.order) / (plan.n_control_points[0] - field.order)
        first, step, clamp = (
            tuple(v * scale for v in column) for column in zip(*axes, strict=True)
        )
        log_field = LogField(field.lattice.T, field.order, first, step, clamp)
    return N4Result(log_field, tuple(done), tuple(values), tuple(ended), int(grid.n_voxels))


def _grid(image, mask, weight, plan: Plan, dtype: np.dtype) -> Grid:
    """Check the arrays and take the voxels that the solve sees, in raster order."""
    for name, array in (("image", image), ("mask", mask), ("weight", weight)):
        if array is not None and tuple(array.shape) != plan.shape:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; expected the image's {plan.shape}"
            )
    # ITK reads every pixel type into float32, whatever the solve's precision.
    values = _samples(plan, image, plan.image_start, dtype)
    if mask is None:
        mask = np.broadcast_to(np.True_, plan.shape)
    inside = np.asarray(plan.sample(mask, plan.mask_start)).T != 0
    weights = inside.astype(dtype)
    if weight is not None:
        weights = _samples(plan, weight, plan.weight_start, dtype)
        inside = inside & (weights > 0)
        weights = np.where(inside, weights, 0)
    taken = values[inside]
    if taken.size == 0:
        raise ValueError(f"no voxel of {values.size} takes part: mask or weight is empty there")
    if not np.isfinite(taken).all() or not np.isfinite(weights).all():
        raise ValueError("image or weight has values inside the mask that are not finite")
    if taken.min() == taken.max():
        raise ValueError(f"image is constant ({taken[0]}) inside the mask; expected contrast")
    positive = values > 0
    log_image = np.where(positive, np.log(np.where(positive, values, 1)), values)
    raster = np.full(values.size, values.size, np.int32)
    raster[: taken.size] = np.flatnonzero(inside)
    log_image = np.where(inside, log_image, 0)
    return jax.device_put(Grid(log_image, inside, weights, np.asarray(taken.size), raster))


def _samples(plan: Plan, array, start: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.asarray(plan.sample(array, start)).T.astype(np.float32).astype(dtype)


def _first_field(plan: Plan, dtype: np.dtype) -> LogField:
    """A zero field on the shrunk grid at the first level, axes in raster order."""
    first, step, clamp = zip(*(axis.sample for axis in reversed(plan.axes)), strict=True)
    lattice = np.zeros(plan.n_control_points[::-1], dtype)
    return LogField(lattice, plan.options.bspline_order, first, step, clamp)


def _refined(field: LogField) -> LogField:
    """The same function with twice the spans."""
    twice = [tuple(2 * v for v in values) for values in (field.first, field.step, field.clamp)]
    return LogField(bspline.refine(field.lattice, field.order), field.order, *twice)


def _level(
    grid: Grid,
    field: LogField,
    bias: jax.Array,
    most: int,
    options: N4Options,
    tell: Callable[[int, float], None] | None = None,
) -> tuple[LogField, jax.Array, int, float]:
    """Run one fitting level: the field, ln b on the grid, iterations and last statistic.

    The loop is compiled and ends by itself; only where ITK's own statistic might end it, or where
    each iteration is to be told, does it come back to the host, which decides and sends it on.
    """
    if most == 0:
        return field, bias, 0, float("nan")
    matrices = _matrices(field, grid.log_image.shape)
    threshold = options.convergence_threshold
    can_stop = threshold > convergence.NO_STOP
    by_itk = can_stop and options.convergence_statistic == "itk"
    fwhm, noise, n_bins = options.histogram_sharpening
    numbers = Numbers(
        max_iterations=most,
        stop_at=threshold * convergence.MARGIN if by_itk else threshold,
        fwhm=fwhm,
        noise=noise,
        over_relaxation=options.over_relaxation,
    )
    skip_rising = options.itk_version == "5"
    state, n = iterate.start(field.lattice, bias), 0
    while True:
        state, change = iterate.run(
            grid,
            state,
            matrices,
            numbers if tell is None else numbers._replace(max_iterations=n + 1),
            n_bins=n_bins,
            can_stop=can_stop,
            skip_rising=skip_rising,
        )
        value, n = float(change), int(state.iteration)
        ends = float(state.change) <= numbers.stop_at  # infinite where nothing can stop it
        shown = value
        if (by_itk and ends) or (tell and options.convergence_statistic == "itk"):
            difference = np.asarray(iterate.last_difference(state, matrices))
            shown = convergence.itk(difference[np.asarray(grid.mask)].astype(np.float32))
        if by_itk and ends:
            value, ends = shown, shown <= threshold
        if tell:
            tell(n, shown)
        if ends or n == most:
            return field._replace(lattice=np.asarray(state.lattice)), state.bias, n, value


def _matrices(field: LogField, shape: tuple[int, ...]) -> Matrices:
    """Make the field's matrices on the host and round them to the solve's precision."""
    values = basis_matrices(field, [(0, n) for n in shape])
    factors = [bspline.fit_matrices(matrix) for matrix in values]
    groups = (values, *zip(*factors, strict=True))
    dtype = field.lattice.dtype
    return Matrices(*(tuple(m.astype(dtype) for m in group) for group in groups))
