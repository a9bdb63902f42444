"""An image as blocks of voxels: logarithms of their means, noise and homogeneity; on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import gammaincinv

QUANTILE = 0.1
"""of the variances within blocks, at which the noise is read: few blocks with edges are so low"""
BRIGHT = 0.3
"""blocks above this share of the median are used for the noise"""
FEWEST_FOR_NOISE = 4
"""voxels of a block whose variance shows the noise; else second differences do"""


class Blocks(NamedTuple):
    """The blocks of an image; the arrays have one value for each block."""

    x: np.ndarray
    """ln of the noise-free intensity, 0 where not `ok`"""
    nu: np.ndarray
    """variance of `x` that noise causes"""
    ok: np.ndarray
    """bool, whether the block is used"""
    factors: tuple[int, ...]
    """voxels of a block on each axis"""
    mm: tuple[float, ...]
    """size of a block on each axis"""
    noise: float
    """standard deviation of the noise of a voxel"""


def blocks_of(
    values: np.ndarray, weight: np.ndarray, zooms: Sequence[float], size: float
) -> Blocks:
    """Average blocks of voxels.

    Parameters
    ----------
    values : array (I, J[, K]), >= 0; 0 where there is no signal
    weight : array like `values`, >= 0; voxels above 0 are used
    zooms : mm
    size : mm

    Returns
    -------
    Blocks; where no block has a signal, none is `ok`
    """
    factors = tuple(max(1, round(size / mm)) for mm in zooms)
    inside = (weight > 0) & (values > 0)
    box = _box(inside, factors)
    seen = np.where(inside[box], values[box], 0).astype(np.float64)
    n, mean, square = (
        _spread(_sums(each, factors), values.shape, box, factors)
        for each in (inside[box].astype(np.float32), seen, seen**2)
    )
    mean, square = mean / np.maximum(n, 1), square / np.maximum(n, 1)
    whole = math.prod(factors)
    used = n >= max(1, whole / 2)
    if whole >= FEWEST_FOR_NOISE:
        noise = _noise_within(mean, square, used & (n == whole), whole)
        # The mean square of Rician values exceeds that of the signal by twice the variance.
        signal = np.sqrt(np.maximum(square - 2 * noise**2, 0))
    else:
        noise = _noise_between(values, inside, int(np.argmin(zooms)))
        signal = np.sqrt(np.maximum(mean**2 - noise**2, 0))
    mm = tuple(z * f for z, f in zip(zooms, factors, strict=True))
    if not used.any():
        return Blocks(signal, signal, used, factors, mm, noise)
    floor = max(np.quantile(signal[used], 0.005), 1e-3 * signal[used].mean(), noise, 1e-30)
    ok = used & (signal >= floor)
    signal = np.where(ok, signal, 1)
    nu = np.where(ok, (noise / signal) ** 2 / whole, 0)
    return Blocks(np.log(signal), nu, ok, factors, mm, float(noise))


def _box(inside: np.ndarray, factors: Sequence[int]) -> tuple[slice, ...]:
    """Return the voxels of the smallest box of whole blocks around those inside."""
    box = []
    for axis, factor in enumerate(factors):
        others = tuple(each for each in range(inside.ndim) if each != axis)
        found = np.flatnonzero(inside.any(axis=others))
        first, last = (found[0], found[-1]) if found.size else (0, 0)
        box.append(slice(int(first) // factor * factor, (int(last) // factor + 1) * factor))
    return tuple(box)


def _sums(values: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Sum the voxels of each block; the last block of an axis may be cut short."""
    for axis, factor in enumerate(factors):
        moved = np.moveaxis(values, axis, 0)
        sums = moved[::factor].copy()
        for k in range(1, factor):
            part = moved[k::factor]
            sums[: len(part)] += part
        values = np.moveaxis(sums, 0, axis)
    return values


def _spread(
    sums: np.ndarray, shape: Sequence[int], box: Sequence[slice], factors: Sequence[int]
) -> np.ndarray:
    """Return sums of the blocks of a box as those of the whole image, 0 elsewhere."""
    whole = np.zeros([-(-size // factor) for size, factor in zip(shape, factors, strict=True)])
    first = [each.start // factor for each, factor in zip(box, factors, strict=True)]
    whole[tuple(slice(f, f + n) for f, n in zip(first, sums.shape, strict=True))] = sums
    return whole


def _noise_within(mean: np.ndarray, square: np.ndarray, full: np.ndarray, n: int) -> float:
    """Return the noise from a low quantile of the variances within full blocks."""
    full = full & (mean > BRIGHT * np.median(mean[full])) if full.any() else full
    if not full.any():
        return 0.0
    variance = (square - mean**2)[full] * n / (n - 1)
    return math.sqrt(max(np.quantile(variance, QUANTILE), 0) / _chi_square(n - 1))


def _noise_between(values: np.ndarray, inside: np.ndarray, axis: int) -> float:
    """Return the noise from a low quantile of squared second differences along an axis."""
    values, inside = np.moveaxis(values, axis, 0), np.moveaxis(inside, axis, 0)
    both = inside[:-2] & inside[1:-1] & inside[2:]
    second = (values[:-2] - 2 * values[1:-1] + values[2:])[both].astype(np.float64)
    if not second.size:
        return 0.0
    return math.sqrt(np.quantile(second**2, QUANTILE) / _chi_square(1) / 6)


def _chi_square(freedom: int) -> float:
    """Return the quantile of a mean square of so many degrees of freedom, of variance 1."""
    return float(2 * gammaincinv(freedom / 2, QUANTILE)) / freedom


def homogeneity(blocks: Blocks, power: float) -> np.ndarray:
    """Return how homogeneous the surroundings of each block are, 0 to 1.

    g is the mean squared difference to the neighbours inside beyond what noise causes, and
    h = 1 / (1 + g / median g) ^ power. Blocks with fewer than two thirds of the neighbours that
    they could have get 0, because they lie at the border.

    Returns
    -------
    array like `blocks.x`, float64
    """
    g, n = np.zeros(blocks.x.shape), np.zeros(blocks.x.shape, np.int64)
    for axis, length in enumerate(blocks.x.shape):
        if length < 2:
            continue
        low, high = _pair(axis, blocks.x.ndim)
        both = blocks.ok[low] & blocks.ok[high]
        found = (blocks.x[low] - blocks.x[high]) ** 2 - blocks.nu[low] - blocks.nu[high]
        found = np.where(both, found, 0)
        for side in (low, high):
            g[side] += found
            n[side] += both
    possible = sum(2 for length in blocks.x.shape if length > 2)
    enough = blocks.ok & (n >= max(1, 2 * possible / 3))
    if not enough.any():
        return np.zeros(g.shape)
    g = np.maximum(g / np.maximum(n, 1), 0)
    middle = max(float(np.median(g[enough])), 1e-12)
    return np.where(enough, (1 + g / middle) ** -power, 0)


def _pair(axis: int, n_axes: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the slices of all blocks but the last, and but the first, of an axis."""
    low, high = [slice(None)] * n_axes, [slice(None)] * n_axes
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return tuple(low), tuple(high)
