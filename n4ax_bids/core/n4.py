"""N4 bias field correction (Tustison et al. 2010), with the numbers of ITK's implementation.

v = ln(intensity) = u + b: u is sharp, b a smooth spline. Each iteration sharpens what is left,
fits a lattice to what the sharpening took away and adds it to the field; each level halves the
knot spacing. Facts and roundings: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from n4ax_bids.core import bspline, convergence
from n4ax_bids.core.field import LogField, divide
from n4ax_bids.core.iterate import Numbers, State, end_level, last_difference, run, start
from n4ax_bids.core.levels import (
    MOST_ENTRIES,
    Levels,
    lattice_sizes,
    n_entries,
    padded_lattice,
    stack,
    unpadded_lattice,
)
from n4ax_bids.core.plan import Plan, plan
from n4ax_bids.core.rows import Layout, Rows, lay_out
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.options import N4Options

GPU_COPIES = 128
"""of the histogram: enough that threads seldom wait for one another. Not yet measured."""


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
    with jax.enable_x64(True):
        rows, layout = _rows(image, mask, weight, plan)
        field, ends = _solve(jax.device_put(rows), layout, plan, report)
    if not np.isfinite(field.lattice).all():
        raise ValueError("the solve has no finite answer; are intensities or options extreme?")
    return N4Result(
        _on_image(field, plan),
        tuple(end.n_iterations for end in ends),
        tuple(end.value for end in ends),
        tuple(end.n_iterations > 0 and end.value <= options.convergence_threshold for end in ends),
        int(rows.n_voxels),
    )


def _rows(image, mask, weight, plan: Plan) -> tuple[Rows, Layout]:
    """Check the arrays and lay out the voxels that the solve sees."""
    for name, array in (("image", image), ("mask", mask), ("weight", weight)):
        if array is not None and tuple(array.shape) != plan.shape:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; expected the image's {plan.shape}"
            )
    # ITK reads every pixel type into float32, whatever the solve's precision.
    values = _samples(plan, image, plan.image_start)
    if mask is None:
        mask = np.broadcast_to(np.True_, plan.shape)
    inside = np.asarray(plan.sample(mask, plan.mask_start)).T != 0
    if weight is not None:
        weight = _samples(plan, weight, plan.weight_start)
        inside = inside & ~(weight <= 0)  # one that is not a number stays, to be refused
    if not inside.any():
        raise ValueError(f"no voxel of {values.size} takes part: mask or weight is empty there")
    taken = values[inside]
    if not np.isfinite(taken).all() or not (weight is None or np.isfinite(weight[inside]).all()):
        raise ValueError("image or weight has values inside the mask that are not finite")
    if taken.min() == taken.max():
        raise ValueError(f"image is constant ({taken[0]}) inside the mask; expected contrast")
    arrays = (
        array if array is None or array.ndim == 3 else array[np.newaxis]
        for array in (values, inside, weight)
    )
    return lay_out(*arrays, np.dtype(plan.options.precision))


def _samples(plan: Plan, array, start: tuple[int, ...]) -> np.ndarray:
    return np.asarray(plan.sample(array, start)).T.astype(np.float32, copy=False)


def _fields(plan: Plan) -> list[LogField]:
    """A zero field on the shrunk grid at each level, axes in raster order."""
    first, step, clamp = zip(*(axis.sample for axis in reversed(plan.axes)), strict=True)
    order, points = plan.options.bspline_order, np.array(plan.n_control_points[::-1])
    fields = []
    for level in range(len(plan.options.n_iterations)):
        scale = 2**level if plan.options.refine else 1
        lattice = np.zeros((points - order) * scale + order, plan.options.precision)
        place = (tuple(scale * v for v in values) for values in (first, step, clamp))
        fields.append(LogField(lattice, order, *place))
    return fields


class _End(NamedTuple):
    """How a level ended."""

    n_iterations: int = 0
    value: float = float("nan")


def _solve(
    rows: Rows,
    layout: Layout,
    plan: Plan,
    report: Callable[[int, int, float], None] | None,
) -> tuple[LogField, list[_End]]:
    """Run all levels."""
    fields, most = _fields(plan), plan.options.n_iterations
    ends = [_End() for _ in most]
    field, bias = fields[0], np.zeros(rows.log_image.shape, fields[0].lattice.dtype)
    for group in _groups([level for level, n in enumerate(most) if n], fields, layout):
        field = _refined(field, fields[group[0]])
        levels = stack([fields[i] for i in group], [most[i] for i in group], layout)
        sizes = lattice_sizes(fields[group[-1]])
        state = start(padded_lattice(field.lattice, sizes), bias, len(group))
        tell = report and (lambda level, *told, group=group: report(group[level] + 1, *told))
        state = _iterate(rows, jax.device_put(levels), state, plan.options, tell)
        bias = state.bias
        field = fields[group[-1]]
        field = field._replace(lattice=unpadded_lattice(state.lattice, field.lattice))
        for level, n, value in zip(group, state.done, state.changes, strict=True):
            ends[level] = _End(int(n), float(value))
    return _refined(field, fields[-1]), ends


def _groups(
    levels: Sequence[int], fields: Sequence[LogField], layout: Layout
) -> list[Sequence[int]]:
    """The levels that share a program: all of them, or each its own where that takes memory."""
    if not levels:
        return []
    shared = len(levels) * n_entries(fields[levels[-1]], layout) <= MOST_ENTRIES
    return [levels] if shared else [[level] for level in levels]


def _iterate(
    rows: Rows,
    levels: Levels,
    state: State,
    options: N4Options,
    tell: Callable[[int, int, float], None] | None,
) -> State:
    """Run the levels of one group.

    The compiled loop ends levels by itself; only where ITK's own statistic might end one, or where
    each iteration is to be told, does it come back to the host, which decides and sends it on.
    """
    threshold = options.convergence_threshold
    can_stop = threshold > convergence.NO_STOP
    by_itk = can_stop and options.convergence_statistic == "itk"
    fwhm, noise, n_bins = options.histogram_sharpening
    numbers = Numbers(
        stop_at=threshold * convergence.MARGIN if by_itk else threshold,
        host_decides=by_itk,
        wait_always=tell is not None,
        fwhm=fwhm,
        noise=noise,
        over_relaxation=options.over_relaxation,
    )
    on_gpu = rows.log_image.device.platform != "cpu"
    while True:
        state = run(
            rows,
            state,
            levels,
            numbers,
            n_bins=n_bins,
            can_stop=can_stop,
            skip_rising=options.itk_version == "5",
            copies=GPU_COPIES if on_gpu else 1,
        )
        if not state.waits:
            return state
        value, n = float(state.change), int(state.iteration)
        candidate = can_stop and value <= numbers.stop_at
        shown = value
        if (by_itk and candidate) or (tell and options.convergence_statistic == "itk"):
            difference = np.asarray(last_difference(rows, state, levels), np.float32)
            shown = convergence.itk(difference[: int(rows.n_voxels)])
        if by_itk and candidate:
            value, candidate = shown, shown <= threshold
        if tell:
            tell(int(state.level), n, shown)
        if candidate or n == levels.max_iterations[state.level]:
            state = end_level(levels, state, value)
        else:
            state = state._replace(waits=np.False_)


def _refined(field: LogField, later: LogField) -> LogField:
    """The same function on the lattice of a later level."""
    lattice = np.asarray(field.lattice)
    while lattice.shape != later.lattice.shape:
        lattice = bspline.refine(lattice, field.order)
    return later._replace(lattice=lattice)


def _on_image(field: LogField, plan: Plan) -> LogField:
    """The field of the shrunk grid on the grid of the image, axes in NIfTI order."""
    scale = (field.lattice.shape[-1] - field.order) / (plan.n_control_points[0] - field.order)
    axes = [axis.image for axis in plan.axes]
    place = (tuple(v * scale for v in column) for column in zip(*axes, strict=True))
    return LogField(field.lattice.T, field.order, *place)
