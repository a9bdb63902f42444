"""The plan of a solve: sizes and positions from options and an image's shape, on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.n4.adaptive import adapted
from n4ax_bids.core.n4.shrinking import (
    MOST_POINTS_ON_AXIS,
    padding,
    predict_shrink_start,
    samples_inside,
    shrink_factors,
    spans_and_padding,
)
from n4ax_bids.options import N4Options

MOST_POINTS = 2**25
"""control points of the last level: 128 MB in float32"""
END = 1e-3
"""ITK places the last voxel of an axis this fraction of a voxel before the last knot."""


@dataclass(frozen=True)
class Axis:
    """The positions of the voxels of one axis on the lattice, at the first level.

    Positions are in knot spacings: t = first + step·k for voxel k, at most `clamp`. They double
    from one level to the next where the lattice is refined.
    """

    n_control_points: int
    shrink_factor: int
    first_sample: int
    """index of the first sample of the padded grid that lies in the image"""
    count: int
    """number of samples"""
    sample: tuple[float, float, float]
    """first, step, clamp of the samples"""
    image: tuple[float, float, float]
    """first, step, clamp of all voxels of the image"""


@dataclass(frozen=True)
class Plan:
    """The sizes and positions of a solve, for one shape of image."""

    options: N4Options
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    image_start: tuple[int, ...]
    """index of sample 0 of the image on each axis; negative in the padding"""
    mask_start: tuple[int, ...]
    weight_start: tuple[int, ...]

    @property
    def shrink_factors(self) -> tuple[int, ...]:
        return tuple(axis.shrink_factor for axis in self.axes)

    @property
    def n_control_points(self) -> tuple[int, ...]:
        return tuple(axis.n_control_points for axis in self.axes)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(axis.count for axis in self.axes)

    def sample(self, array: Any, start: tuple[int, ...]) -> Any:
        """Return the samples of a full-resolution array; 0 where they lie in the padding.

        Parameters
        ----------
        array : array of the plan's shape
        start : `image_start`, `mask_start` or `weight_start`

        Returns
        -------
        array (`sample_shape`), a view where no sample lies in the padding
        """
        inside, missing = [], []
        for axis, n, begin in zip(self.axes, self.shape, start, strict=True):
            factor, end = axis.shrink_factor, axis.first_sample + axis.count
            low, high = samples_inside(n, factor, begin, end)
            low = max(low, axis.first_sample)
            inside.append(slice(begin + factor * low, begin + factor * (high - 1) + 1, factor))
            missing.append((low - axis.first_sample, end - high))
        taken = array[tuple(inside)]
        if not any(map(any, missing)):
            return taken
        return (np if isinstance(taken, np.ndarray) else jnp).pad(taken, missing)


def plan(
    options: N4Options,
    shape: Sequence[int],
    zooms: Sequence[float] | None = None,
    *,
    image_start: Sequence[int] | None = None,
    mask_start: Sequence[int] | None = None,
    weight_start: Sequence[int] | None = None,
) -> Plan:
    """Turn options into the sizes and positions of a solve.

    Parameters
    ----------
    options : N4Options
    shape : voxels per axis, 2 or 3 axes
    zooms : voxel size per axis, mm; 1 where not given
    image_start : index of the first sample on each axis, as ITK chooses it for this image's header
        (negative: in the padding of a spline distance); `options.shrink_start` overrides it, and
        by default it is predicted for aligned axes
    mask_start, weight_start : the same for mask and weight, by default the image's. ANTs shrinks
        each file by its own header: a mask whose direction cosines differ from the image's in the
        last bits can be sampled one voxel beside the image, and is so here too.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If a size, a voxel size or a number of values does not fit the image.
    """
    shape = tuple(int(n) for n in shape)
    zooms = (1.0,) * len(shape) if zooms is None else tuple(float(z) for z in zooms)
    _check(options, shape, zooms)
    options = adapted(options, shape, zooms)  # without a mask all voxels count
    factors = shrink_factors(options, shape, zooms)
    pads = padding(options, shape, zooms)
    if options.shrink_start is not None:
        image_start = mask_start = weight_start = options.shrink_start
    elif image_start is None:
        padded = [n + sum(pad) for n, pad in zip(shape, pads, strict=True)]
        image_start = predict_shrink_start(padded, zooms, factors, [pad[0] for pad in pads])
    image_start, mask_start, weight_start = (
        tuple(int(v) for v in (image_start if start is None else start))
        for start in (image_start, mask_start, weight_start)
    )
    spans = _spans(options, shape, zooms)
    _require_lattice(options, spans)
    axes = tuple(
        _axis(shape[d], pads[d], factors[d], starts, spans[d], options.bspline_order, d)
        for d, starts in enumerate(zip(image_start, mask_start, weight_start, strict=True))
    )
    return Plan(options, shape, axes, image_start, mask_start, weight_start)


def _check(options: N4Options, shape: tuple[int, ...], zooms: tuple[float, ...]) -> None:
    if len(shape) not in (2, 3):
        raise ValueError(f"image has {len(shape)} axes {shape}; expected 2 or 3")
    if min(shape) < 1:
        raise ValueError(f"image has shape {shape}; expected at least one voxel on each axis")
    if len(zooms) != len(shape) or not all(math.isfinite(z) and z > 0 for z in zooms):
        raise ValueError(f"zooms is {zooms}; expected {len(shape)} positive numbers of mm")
    for name, allowed in (("n_control_points", (1, len(shape))), ("shrink_start", (len(shape),))):
        value = getattr(options, name)
        if value is not None and len(value) not in allowed:
            raise ValueError(f"{name} is {value}; expected {len(shape)} numbers, one per axis")


def _require_lattice(options: N4Options, spans: tuple[int, ...]) -> None:
    """Refuse a lattice that is too large for memory."""
    levels = len(options.n_iterations) if options.refine else 1
    last = [s * 2 ** (levels - 1) + options.bspline_order for s in spans]
    if max(last) > MOST_POINTS_ON_AXIS or math.prod(last) > MOST_POINTS:
        raise ValueError(
            f"the last of {levels} levels would have {' x '.join(map(str, last))} control points; "
            f"expected at most {MOST_POINTS_ON_AXIS} on an axis and {MOST_POINTS} in all (look at "
            "spline distance, voxel size and number of levels)"
        )


def _spans(
    options: N4Options, shape: tuple[int, ...], zooms: tuple[float, ...]
) -> tuple[int, ...]:
    """Return the number of knot spacings over each axis at the first level."""
    distance, order = options.bspline_fitting_distance, options.bspline_order
    if distance is not None:
        return tuple(
            spans_and_padding(distance, n, zoom)[0] for n, zoom in zip(shape, zooms, strict=True)
        )
    points = options.n_control_points or (max(4, order + 1),)
    points = points * len(shape) if len(points) == 1 else points
    return tuple(m - order for m in points)


def _axis(
    n: int,
    pad: tuple[int, int],
    factor: int,
    starts: tuple[int, ...],
    spans: int,
    order: int,
    d: int,
) -> Axis:
    padded = n + sum(pad)
    shrunk = max(1, padded // factor)
    ranges = [samples_inside(n, factor, start, shrunk) for start in starts]
    for start, (low, high) in zip(starts, ranges, strict=True):
        if low >= high:
            raise ValueError(
                f"none of every {factor} voxels from {start} on is among the {n} of axis {d}; "
                "expected a smaller shrink_factor or another shrink_start"
            )
    first = min(low for low, _ in ranges)
    return Axis(
        n_control_points=spans + order,
        shrink_factor=factor,
        first_sample=first,
        count=max(high for _, high in ranges) - first,
        sample=positions(spans, shrunk, first),
        image=positions(spans, padded, pad[0]),
    )


def positions(spans: int, n: int, k0: int = 0) -> tuple[float, float, float]:
    """Return first, step and clamp of an axis whose n voxels cover the spans, from voxel k0 on."""
    if n == 1:
        return spans / 2, 0.0, float(spans)
    step = spans / (n - 1)
    return k0 * step, step, spans - END * step
