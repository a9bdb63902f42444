"""Histogram sharpening: log intensities mapped to what they would be without the field.

The histogram of the log image is that of the true tissues, blurred by the field's own histogram,
which is modelled as a Gaussian (Sled, Zijdenbos and Evans 1998). Deconvolution, and then the
expected true value of each observed one, give the map. The steps and roundings are those of ITK
(docs/method.md §4): float32 values, a float64 Fourier transform of a few hundred bins.
These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BIN_SATURATION = float(2**24)
"""ITK counts in float32: a bin stops growing here."""

TOGETHER = 32
"""values that use one copy of the histogram on a GPU: as many as its threads step together, which
are neighbours and often fall into one part of the memory"""


def find_position(
    log_image: jax.Array, v_min: jax.Array, slope: jax.Array, n_bins: int
) -> jax.Array:
    """Return each value's position in the histogram, in bins from the centre of the first.

    The quotient (v - min)/slope must be the correctly rounded float32 number, or the largest value
    is dropped from the histogram too often (docs/method.md §4.2). XLA turns a division by a scalar
    into a product with its reciprocal; in float64 that still rounds to the correct float32.

    Parameters
    ----------
    log_image : array, any shape
    v_min, slope : scalars, centre of the first bin and bin width
    n_bins : int

    Returns
    -------
    array like `log_image`; -1 for a value outside the centres of the first and the last bin
    """
    position = quotient(log_image, v_min, slope)
    return jnp.where((position >= 0) & (position <= n_bins - 1), position, -1)


def quotient(log_image: jax.Array, v_min: jax.Array, slope: jax.Array) -> jax.Array:
    """Return (v - min)/slope, rounded once; it may lie outside the histogram."""
    difference = (log_image - v_min).astype(jnp.float64)
    return (difference * (1.0 / slope.astype(jnp.float64))).astype(log_image.dtype)


class Bins(NamedTuple):
    """Positions of values in the histogram."""

    lower: jax.Array
    """uint32, the bin with the closest centre below; the last bin for a value outside"""
    offset: jax.Array
    """distance from that centre, in bins; -1 for a value outside"""


def find_bins(position: jax.Array, n_bins: int) -> Bins:
    """Find the bin of each value; `position` is from `find_position`."""
    inside = position >= 0
    lower = jnp.where(inside, position, n_bins - 1).astype(jnp.uint32)
    return Bins(lower, jnp.where(inside, position - lower.astype(position.dtype), -1))


def tally(
    bins: Bins,
    mask: jax.Array | None,
    n_bins: int,
    n_values: int,
    *,
    repeats: jax.Array | int | None = None,
    copies: int = 1,
) -> jax.Array:
    """Count values and add up their offsets, as integers packed in one word for each bin.

    The result is exact, so that it does not depend on the order in which the device adds.

    Parameters
    ----------
    bins : Bins of n values
    mask : bool array (n,), which values are counted; None: all
    n_bins : int
    n_values : int, upper limit of the number of values in all tallies that are added
    repeats : number of values at the end that repeat the value before them and are not counted;
        None: a value that is not counted is not added at all, where otherwise 0 is added for it
    copies : int, copies of the histogram that blocks of `TOGETHER` values use in turn, so that a
        GPU's threads rarely wait for one another; the sum is the same

    Returns
    -------
    array (n_bins,), int64; the tallies of several parts of an image can be added
    """
    bits, one = _packing(n_values)
    # The conversion to 32 bits and then to 64 is faster than the direct one.
    fixed = jnp.round(bins.offset * (1 << bits)).astype(jnp.int32).astype(jnp.int64)
    counts = bins.offset >= 0 if mask is None else mask & (bins.offset >= 0)
    word = jnp.where(counts, fixed + one, 0)
    place = bins.lower
    if copies > 1:
        block = jnp.arange(place.size, dtype=jnp.uint32) // TOGETHER
        place = place + n_bins * (block % copies)
    empty = jnp.zeros(copies * n_bins, jnp.int64)
    if repeats is None:
        place = jnp.where(counts, place, copies * n_bins)
        return _added(empty, place, word).reshape(copies, n_bins).sum(axis=0)
    added = empty.at[place].add(word, mode="promise_in_bounds")
    total = added.reshape(copies, n_bins).sum(axis=0)
    return total.at[bins.lower[-1]].add(-word[-1] * repeats)


@jax.custom_batching.custom_vmap
def _added(sums: jax.Array, place: jax.Array, word: jax.Array) -> jax.Array:
    """Add each word at its place; those beyond the end are dropped.

    In a batch, the sums are put one behind the other: for a scatter of two axes, the compiler
    would store words and places first.
    """
    return sums.at[place].add(word, mode="drop")


@_added.def_vmap
def _added_each(
    n: int, batched: Sequence[bool], sums: jax.Array, place: jax.Array, word: jax.Array
) -> tuple[jax.Array, bool]:
    sums, place, word = (
        each if has_images else jnp.broadcast_to(each, (n, *each.shape))
        for each, has_images in zip((sums, place, word), batched, strict=True)
    )
    size = sums.shape[1]
    before = size * jnp.arange(n, dtype=place.dtype)[:, None]
    place = jnp.where(place < size, place + before, n * size)
    return _added(sums.ravel(), place.ravel(), word.ravel()).reshape(n, size), True


def histogram(tally: jax.Array, n_values: int) -> jax.Array:
    """Share each value between its two nearest bins (triangular Parzen window).

    Parameters
    ----------
    tally : array (n_bins,), from `tally`
    n_values : int, as given there

    Returns
    -------
    array (n_bins,), float64, not above `BIN_SATURATION`
    """
    bits, one = _packing(n_values)
    count = (tally // one).astype(jnp.float64)
    moved = (tally & (one - 1)).astype(jnp.float64) / (1 << bits)
    return jnp.minimum(count - moved + jnp.pad(moved[:-1], (1, 0)), BIN_SATURATION)


def _packing(n_values: int) -> tuple[int, int]:
    """Return the bits of an offset, and the word that counts one value."""
    count_bits = max(1, n_values.bit_length())
    bits = min(24, 63 - 2 * count_bits)
    return bits, 1 << (bits + count_bits)


def sharpening_map(
    counts: jax.Array,
    v_min: jax.Array,
    slope: jax.Array,
    *,
    fwhm: jax.Array | float,
    noise: jax.Array | float,
) -> jax.Array:
    """Return the expected true log intensity for each bin's observed one.

    With V the zero-padded histogram, F the Gaussian and ^ its discrete Fourier transform:
    U = max(0, IDFT(V^ F^/(F^² + Z))), E = (F * xU)/(F * U).

    Parameters
    ----------
    counts : array (n_bins,), the histogram
    v_min, slope : scalars, centre of the first bin and bin width, ln of intensity
    fwhm : scalar, full width at half maximum of the field's histogram, ln of intensity
    noise : scalar, Z of the Wiener filter

    Returns
    -------
    array (n_bins,), in the dtype of `slope`
    """
    real = slope.dtype
    n_bins = counts.shape[0]
    padded = padded_size(n_bins)
    offset = (padded - n_bins) // 2
    histogram = jnp.zeros(padded).at[offset : offset + n_bins].set(rounded(counts, real))

    gaussian_hat = jnp.fft.rfft(gaussian(padded, slope, fwhm)).real
    wiener = gaussian_hat / (gaussian_hat**2 + rounded(noise, real))
    deblurred = jnp.maximum(jnp.fft.irfft(jnp.fft.rfft(histogram) * wiener, padded), 0)

    value = centres(padded, offset, v_min, slope)
    both = jnp.stack([value * deblurred, deblurred])
    numerator, denominator = jnp.fft.irfft(jnp.fft.rfft(both) * gaussian_hat[None], padded)
    known = denominator != 0
    expected = jnp.where(known, numerator / jnp.where(known, denominator, 1), 0)
    return expected[offset : offset + n_bins].astype(real)


def padded_size(n_bins: int) -> int:
    """Return the size that ITK pads a histogram to, a power of two.

    ITK divides the float32 logarithm of the number of bins by ln 2 and rounds up. The float32
    logarithm of most powers of two lies above the true one, so the padded histogram has four
    times as many bins there, where the exact logarithm would give twice as many. Python's
    logarithm is rounded here because numpy's float32 logarithm can be one unit off in the last
    place.
    """
    logarithm = float(np.float32(math.log(n_bins)))
    return 2 ** (math.ceil(logarithm / math.log(2)) + 1)


def centres(padded: int, offset: int, v_min: jax.Array, slope: jax.Array) -> jax.Array:
    """Return the centres of the bins of a padded histogram, rounded as in ITK, in float64."""
    real = slope.dtype
    steps = rounded((jnp.arange(padded) - offset) * slope.astype(jnp.float64), real)
    return rounded(v_min.astype(jnp.float64) + steps, real)


def rounded(value: jax.Array | float, dtype: np.dtype) -> jax.Array:
    """Return a float64 value that was rounded to `dtype`.

    A conversion to float32 and back is no rounding on a GPU: the compiler removes it.
    """
    kept = jnp.finfo(dtype)
    return jax.lax.reduce_precision(jnp.asarray(value, jnp.float64), kept.nexp, kept.nmant)


def gaussian(n: int, slope: jax.Array, fwhm: jax.Array | float) -> jax.Array:
    """Return a periodic Gaussian of unit area around index 0, sampled in bins of width `slope`."""
    real = slope.dtype
    width = rounded(rounded(fwhm, real) / slope.astype(jnp.float64), real)
    scale = rounded(2 * math.sqrt(math.log(2) / math.pi) / width, real)
    rate = rounded(4 * math.log(2) / width**2, real)
    distance = np.minimum(np.arange(n), n - np.arange(n)).astype(np.float64)
    return rounded(scale * jnp.exp(-(distance**2) * rate), real)


def rise(expected: jax.Array) -> jax.Array:
    """Return the increase of the expected value from each bin to the next; 0 for the last."""
    return jnp.append(expected[1:] - expected[:-1], jnp.zeros(1, expected.dtype))


def sharpened(bins: Bins, expected: jax.Array, rise: jax.Array) -> jax.Array:
    """Return the expected true log intensity of every voxel, linear between bins.

    Values outside the bins get that of the last bin (ITK's index is unsigned and wraps around).

    Parameters
    ----------
    bins : Bins
    expected : array (n_bins,), from `sharpening_map`
    rise : array (n_bins,), from `rise`

    Returns
    -------
    array like `bins.offset`
    """
    bottom, rise = (
        table.at[bins.lower].get(mode="promise_in_bounds") for table in (expected, rise)
    )
    return bottom + rise * bins.offset  # where the offset is -1, the rise is 0
