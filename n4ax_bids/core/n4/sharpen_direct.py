"""The sharpening map of `sharpen` without Fourier transforms, for a GPU.

There the transforms of some hundred values would be five calls of a library, which cannot be part
of a CUDA graph. All of the spectra are real and even, so they are sums of cosines, and the
convolutions are sums over the bins. The results differ from those of `sharpen.sharpening_map` in
the last digits of float64. These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.n4 import sharpen

MOST_PADDED = 2048
"""bins of a padded histogram; beyond, the transforms are faster"""


def sharpening_map(
    counts: jax.Array,
    v_min: jax.Array,
    slope: jax.Array,
    *,
    fwhm: jax.Array | float,
    noise: jax.Array | float,
) -> jax.Array:
    """Return the expected true log intensity for each bin's observed one.

    Parameters and result are those of `sharpen.sharpening_map`.
    """
    real, n_bins = slope.dtype, counts.shape[0]
    padded = sharpen.padded_size(n_bins)
    if padded > MOST_PADDED:
        return sharpen.sharpening_map(counts, v_min, slope, fwhm=fwhm, noise=noise)
    offset = (padded - n_bins) // 2
    gaussian = sharpen.gaussian(padded, slope, fwhm)
    hat = _cosines(gaussian[: padded // 2 + 1], padded)
    wiener = hat / (hat**2 + sharpen.rounded(noise, real))
    inverse = _cosines(wiener[: padded // 2 + 1], padded) / padded
    histogram = sharpen.rounded(counts, real)
    first, end = padded - offset - n_bins + 1, padded - offset + 1
    mirrored = jnp.pad(histogram[::-1], (first, padded - end))
    deblurred = jnp.maximum((_shifted(inverse) * mirrored[None]).sum(axis=1), 0)
    value = sharpen.centres(padded, offset, v_min, slope)
    # Both sums in one pass: of value times deblurred, and of deblurred alone.
    factor = jnp.where(jnp.arange(2)[:, None] == 0, value[None], 1)
    sums = (_shifted(gaussian)[None] * (factor * deblurred[None])[:, None, :]).sum(axis=2)
    numerator, denominator = sums
    known = denominator != 0
    expected = jnp.where(known, numerator / jnp.where(known, denominator, 1), 0)
    return expected[first:end][::-1].astype(real)


def _cosines(even: jax.Array, n: int) -> jax.Array:
    """Return the Fourier transform of a real, even series of length n, given by its first half."""
    half = n // 2 + 1
    twice = np.full(half, 2.0)
    twice[[0, -1]] = 1.0
    angle = 2 * np.pi / n * (np.outer(np.arange(n), np.arange(half)) % n)
    return (jnp.asarray(np.cos(angle) * twice) * even[None]).sum(axis=1)


def _shifted(even: jax.Array) -> jax.Array:
    """Return the matrix [i, j] of the values of an even, periodic series at i + j.

    Without a gather, which the compiler would not fuse with a sum. The series is even, so a row of
    it times another series, in reversed order, is a value of their convolution.
    """
    n = even.size
    return jnp.broadcast_to(even, (n + 1, n)).reshape(n, n + 1)[:, :n]
