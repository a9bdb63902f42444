"""An image divided by its field on the host, with the field and its numbers, in few passes.

A pass over a whole image waits for memory. What follows from the field at a voxel is therefore
computed for a few planes at a time, while they are in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from n4ax_bids.core.field import LogField, log_slabs, scale_of
from n4ax_bids.core.raster import values_inside

SLAB = 1 << 17
"""voxels at a time: image, field, result and a copy of them stay in the processor's cache"""


SAFE = 80.0
"""largest |ln b| whose exponential is far from the ends of float32"""


class Numbers(NamedTuple):
    """The numbers of a field inside a mask."""

    n_inside: int
    non_positive: int
    """voxels inside with an intensity <= 0"""
    lowest: float
    highest: float
    variation: float
    """coefficient of variation"""


class Division(NamedTuple):
    """An image divided by its field."""

    log_field: LogField
    """shifted so that the field has the level that was asked for"""
    corrected: np.ndarray
    """float32, like the image"""
    bias: np.ndarray
    """float32, the field b"""
    usable: bool
    """whether b is a number above 0 at every voxel, and every voxel that is finite in the image is
    so in `corrected`"""
    numbers: Numbers


def division(
    image: np.ndarray,
    log_field: LogField,
    inside: np.ndarray | None = None,
    field_scale: str = "as-is",
) -> Division:
    """Divide an image by its field.

    The values are those of `field.divide`, `field.at_level` and the exponential of ln b, to the
    last bit.

    Parameters
    ----------
    image : float32 array (I, J[, K]), as recorded; Fortran order is fastest
    log_field : LogField on the image's grid
    inside : bool array like `image`, where the numbers are taken; None for every voxel
    field_scale : "as-is", or "mean" or "median" for a field whose mean or median inside is 1
    """
    work = _Work.of(image.T, None if inside is None else inside.T)
    level = None
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        for slab, values in log_slabs(image.shape, log_field):
            work.bias[slab] = values
            if field_scale == "as-is":
                work.finish(slab, level)
        if field_scale != "as-is":
            values = values_inside(work.bias.T, inside)
            level = np.float32(scale_of(values, field_scale))
            log_field = log_field._replace(lattice=log_field.lattice - level)
            work.finish(slice(0, len(work.bias)), level)
            work.count_logs(values, level)
        numbers = work.numbers()
    usable = work.stays_finite and _is_positive(log_field, work.bias)
    return Division(log_field, work.corrected.T, work.bias.T, usable, numbers)


def limits(shape: Sequence[int], log_field: LogField) -> tuple[float, float]:
    """Return the lowest and the highest ln b at the voxels of an image; NaN if any is."""
    ends = [(values.min(), values.max()) for _, values in log_slabs(shape, log_field)]
    low, high = zip(*ends, strict=True)
    return float(np.min(low)), float(np.max(high))


def _is_positive(log_field: LogField, bias: np.ndarray) -> bool:
    """Return whether b is finite and above 0 at every voxel."""
    # The splines sum to 1, so ln b lies within the range of its control points.
    if np.abs(np.asarray(log_field.lattice)).max() < SAFE:
        return True
    return bool(bias.min() > 0 and bias.max() < np.inf)


@dataclass
class _Work:
    """The arrays of a division, planes of the image's last axis first, and running sums."""

    image: np.ndarray
    inside: np.ndarray | None
    corrected: np.ndarray
    bias: np.ndarray
    """first ln b, at the end b"""
    stays_finite: bool = True
    n_inside: int = 0
    non_positive: int = 0
    lowest: float = np.inf
    highest: float = -np.inf
    centre: float = 0.0
    """near the mean, so that the sum of squares loses no digits"""
    total: float = 0.0
    squares: float = 0.0
    """sums of b - centre, and of its square"""

    @classmethod
    def of(cls, image: np.ndarray, inside: np.ndarray | None) -> _Work:
        corrected, bias = np.empty(image.shape, np.float32), np.empty(image.shape, np.float32)
        return cls(image, inside, corrected, bias)

    def finish(self, planes: slice, level: np.float32 | None) -> None:
        """Turn ln b into b and divide by it; with a level, first subtract it from ln b."""
        step = max(1, SLAB // max(1, self.image[0].size))
        for start in range(planes.start, min(planes.stop, len(self.image)), step):
            now = slice(start, min(start + step, planes.stop))
            image, bias, corrected = self.image[now], self.bias[now], self.corrected[now]
            np.exp(bias, out=corrected)
            if level is None:
                bias[:] = corrected
            np.divide(image, corrected, out=corrected)
            if level is not None:
                corrected *= np.exp(level)
                bias -= level
                np.exp(bias, out=bias)
            # The cheapest test; the sum can overflow although every value is finite.
            flat = corrected.reshape(-1)
            if not np.isfinite(np.dot(flat, flat)):
                finite = np.isfinite(corrected) | ~np.isfinite(image)
                self.stays_finite = self.stays_finite and bool(finite.all())
            inside = None if self.inside is None else self.inside[now]
            dark = image <= 0
            if inside is not None:
                dark &= inside
            self.non_positive += int(np.count_nonzero(dark))
            if level is None:
                self._count(bias.reshape(-1) if inside is None else bias[inside])

    def count_logs(self, values: np.ndarray, level: np.float32) -> None:
        """Add values of ln b, from which a level is subtracted first; they are overwritten."""
        for start in range(0, values.size, SLAB):
            some = values[start : start + SLAB]
            some -= level
            self._count(np.exp(some, out=some))

    def _count(self, values: np.ndarray) -> None:
        """Add values of b inside the mask to the sums."""
        if not values.size:
            return
        exact = values.astype(np.float64)
        if not self.n_inside:
            self.centre = float(exact.mean())
        exact -= self.centre
        self.n_inside += values.size
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))
        self.total += float(exact.sum())
        self.squares += float(np.dot(exact, exact))

    def numbers(self) -> Numbers:
        """Return the numbers of the field, after the last plane."""
        shift = self.total / self.n_inside
        variance = max(0.0, self.squares / self.n_inside - shift**2)
        return Numbers(
            self.n_inside,
            self.non_positive,
            self.lowest,
            self.highest,
            variance**0.5 / (self.centre + shift),
        )
