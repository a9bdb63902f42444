"""From what a person asks for to the numbers a solve needs: host arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from n4ax_bids.options import N4Options

MOST_POINTS_ON_AXIS = 2**13
MOST_POINTS = 2**25
"""of the last level: 128 MB"""
KEPT = 32
"""samples that `shrink_mm` leaves on an axis, because mm tell nothing of the object's size"""
END = 1e-3
"""ITK takes the last voxel of an axis as lying this fraction of a voxel before the last knot."""


@dataclass(frozen=True)
class Axis:
    """How the voxels of one axis find their place on the lattice, at the first level.

    Positions are in knot spacings: t = first + step·k for voxel k, at most `clamp`. They double
    from one level to the next where the lattice is refined.
    """

    n_control_points: int
    shrink_factor: int
    first_sample: int
    """of the samples of the padded grid, the first one that lies in the image"""
    count: int
    """number of samples"""
    sample: tuple[float, float, float]
    """first, step, clamp of the samples"""
    image: tuple[float, float, float]
    """first, step, clamp of all voxels of the image"""


@dataclass(frozen=True)
class Plan:
    """A solve for one shape of image: options turned into sizes and positions."""

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
            low, high = _samples_inside(n, factor, begin, end)
            low = max(low, axis.first_sample)
            inside.append(slice(begin + factor * low, begin + factor * (high - 1) + 1, factor))
            missing.append((low - axis.first_sample, end - high))
        taken = array[tuple(inside)]
        return np.pad(taken, missing) if any(map(any, missing)) else taken


def _samples_inside(n: int, factor: int, start: int, n_samples: int) -> tuple[int, int]:
    """First and last + 1 of the samples start + factor·k that lie among the n voxels."""
    return max(0, -(start // factor)), min(n_samples, (n - 1 - start) // factor + 1)


def padding(
    options: N4Options, shape: Sequence[int], zooms: Sequence[float]
) -> tuple[tuple[int, int], ...]:
    """Return how many voxels ANTs adds before and after each axis.

    With a spline distance the extent is enlarged to a whole number of spans; ANTs works in
    float32 here (docs/method.md §10.1), so do we.

    Parameters
    ----------
    options : N4Options
    shape : voxels per axis
    zooms : voxel size per axis, mm

    Returns
    -------
    tuple of (lower, upper), voxels per axis; zeros without a spline distance
    """
    if options.bspline_fitting_distance is None:
        return ((0, 0),) * len(shape)
    return tuple(
        _spans_and_padding(options.bspline_fitting_distance, n, zoom)[1:]
        for n, zoom in zip(shape, zooms, strict=True)
    )


def _spans_and_padding(distance: float, n: int, zoom: float) -> tuple[int, int, int]:
    knot_spacing = np.float32(distance)
    extent = np.float32(np.float32(n - 1) * zoom)
    with np.errstate(over="ignore", divide="ignore"):
        spans = max(np.float32(1), np.ceil(extent / knot_spacing))
    if not spans <= MOST_POINTS_ON_AXIS:
        raise ValueError(
            f"spline distance {distance} mm asks for {spans:.3g} spans on {n} voxels of "
            f"{zoom:.3g} mm; expected at most {MOST_POINTS_ON_AXIS}"
        )
    spans = int(spans)
    missing = np.float32(np.float32(spans) * knot_spacing - extent)
    extra = int(float(missing) / zoom + 0.5)
    return spans, extra // 2, extra - extra // 2


def shrink_factors(
    options: N4Options, shape: Sequence[int], zooms: Sequence[float]
) -> tuple[int, ...]:
    """Return the shrink factor of each axis: the one asked for, less where an axis is too thin.

    A distance between samples is of heads. Of a mouse in voxels of 0.15 mm, 4 mm would leave a
    handful of samples, so it shrinks no further than to `KEPT` samples on an axis, or than
    `shrink_factor` does.
    A spline needs two samples on an axis of more than one voxel (ITK divides by zero there).
    """
    wanted = [options.shrink_factor] * len(shape)
    if options.shrink_mm is not None:
        wanted = [
            _closest_multiple(options.shrink_mm, zoom, max(options.shrink_factor, n // KEPT))
            for n, zoom in zip(shape, zooms, strict=True)
        ]
    padded = [n + sum(pad) for n, pad in zip(shape, padding(options, shape, zooms), strict=True)]
    return tuple(min(factor, max(1, n // 2)) for factor, n in zip(wanted, padded, strict=True))


def _closest_multiple(distance: float, zoom: float, most: int) -> int:
    """Return the whole number, 1 to `most`, that brings a voxel size closest to a distance."""
    return max(1, round(min(distance / zoom, most))) if zoom > 0 else 1


def predict_shrink_start(
    shape: Sequence[int],
    zooms: Sequence[float],
    factors: Sequence[int],
    lower: Sequence[int],
) -> tuple[int, ...]:
    """Return the first voxel that ITK's shrinking takes in an image whose axes are aligned.

    ITK recovers the sample from physical coordinates, so that a half-integer phase is decided by
    rounding; this follows it in float64 for the identity direction and origin 0 (n4-reference
    §10.1). For other headers ask ITK itself (`n4ax_bids.io.geometry`).

    Parameters
    ----------
    shape, zooms, factors : voxels, mm, shrink factor per axis
    lower : voxels of padding before voxel 0, per axis

    Returns
    -------
    tuple of int, index in the image (negative: in the padding)
    """
    return tuple(map(_first_sample, shape, zooms, factors, lower))


def _first_sample(padded: int, zoom: float, factor: int, lower: int) -> int:
    n = max(1, padded // factor)
    begin, begin_shrunk = -lower, math.ceil(-lower / factor)
    centre = zoom * (begin + (padded - 1) / 2)
    origin = centre - (zoom * factor) * (begin_shrunk + (n - 1) / 2)
    index = math.floor((1 / zoom) * (origin + (zoom * factor) * begin_shrunk) + 0.5)
    return begin_shrunk * factor + max(0, index - begin_shrunk * factor)


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
    image_start : index of the first sample on each axis, as ITK takes it for this image's header
        (negative: in the padding of a spline distance); `options.shrink_start` goes before it, a
        prediction for aligned axes takes its place
    mask_start, weight_start : the same for mask and weight, the image's where not given. ANTs
        shrinks each file by its own header: a mask whose direction cosines differ in their last
        bits can be sampled one voxel beside the image, and so is it here.

    Raises
    ------
    ValueError
        If a size, a voxel size or a number of values does not fit the image.
    """
    shape = tuple(int(n) for n in shape)
    zooms = (1.0,) * len(shape) if zooms is None else tuple(float(z) for z in zooms)
    _check(options, shape, zooms)
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
    """Refuse a lattice that no memory holds."""
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
    """Number of knot spacings over each axis at the first level."""
    distance, order = options.bspline_fitting_distance, options.bspline_order
    if distance is not None:
        return tuple(
            _spans_and_padding(distance, n, zoom)[0] for n, zoom in zip(shape, zooms, strict=True)
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
    ranges = [_samples_inside(n, factor, start, shrunk) for start in starts]
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
        sample=_positions(spans, shrunk, first),
        image=_positions(spans, padded, pad[0]),
    )


def _positions(spans: int, n: int, k0: int) -> tuple[float, float, float]:
    """First, step and clamp of an axis whose n voxels cover the spans, counted from voxel k0."""
    if n == 1:
        return spans / 2, 0.0, float(spans)
    step = spans / (n - 1)
    return k0 * step, step, spans - END * step
