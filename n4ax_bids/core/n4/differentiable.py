"""N4 as a plain differentiable program: a fixed number of iterations, a histogram with a gradient.

`jit`, `vmap`, `grad` and `jvp` can transform it. `n4` cannot be transformed, because it decides on
the host what to compile. Both compute the same method; only roundings differ, and here nothing
ends a level early. It is neither as fast nor as exact as `n4`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.field import LogField, basis_matrices, evaluate
from n4ax_bids.core.n4.plan import Plan, plan
from n4ax_bids.core.n4.sharpen import padded_size
from n4ax_bids.options import N4Options

DEFAULT = N4Options(n_iterations=(10, 10, 10, 10))
"""fewer iterations than ANTs' 50, because a gradient goes through all of them"""


class Corrected(NamedTuple):
    """The result of a correction."""

    corrected: jax.Array
    """image / exp(log_bias)"""
    log_bias: jax.Array
    """ln b, like the image"""


def differentiable_n4(
    image: jax.Array,
    mask: jax.Array | None = None,
    *,
    zooms: Sequence[float] | None = None,
    options: N4Options = DEFAULT,
) -> Corrected:
    """Correct an image by a function that has a gradient with respect to the image.

    The gradient exists almost everywhere: the histogram is linear between the centres of its bins,
    and deconvolution cuts off negative values. Memory for a gradient is that of a few copies of
    the samples and of one lattice for each iteration, because iterations are computed again on the
    way back.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), float32 or float64; voxels of 0 or less take no part
    mask : array like `image`, non-zero inside; None for all voxels
    zooms : voxel size of each axis, mm; 1 where not given
    options : N4Options; all of `n_iterations` are run

    Returns
    -------
    Corrected, arrays like `image`

    Raises
    ------
    ValueError
        If the image has no floating-point values, or `options` has a threshold.
    """
    image = jnp.asarray(image)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image has the type {image.dtype}; expected float32 or float64")
    if options.convergence_threshold > 0:
        raise ValueError(
            f"convergence_threshold is {options.convergence_threshold}; expected 0, because a "
            "gradient needs a fixed number of iterations"
        )
    made = plan(options, image.shape, zooms)
    values = made.sample(image, made.image_start)
    inside = values > 0
    if mask is not None:
        inside &= made.sample(jnp.asarray(mask), made.mask_start) != 0
    log_image = jnp.log(jnp.where(inside, values, 1))
    lattice = _solve(log_image, inside, made)
    log_bias = evaluate(_placed(lattice, made, "image"), [(0, n) for n in image.shape])
    return Corrected(image / jnp.exp(log_bias), log_bias)


def _solve(log_image: jax.Array, inside: jax.Array, made: Plan) -> jax.Array:
    """Run all levels; return the control points of the last one."""
    options, dtype = made.options, log_image.dtype
    lattice = jnp.zeros(made.n_control_points, dtype)
    for level, n_iterations in enumerate(options.n_iterations):
        if level and options.refine:
            matrices = [
                bspline.refinement_matrix(m, options.bspline_order).T for m in lattice.shape
            ]
            lattice = bspline.contract(lattice, [jnp.asarray(m, dtype) for m in matrices])
        step = _iteration(log_image, inside, made, lattice.shape)
        lattice, _ = jax.lax.scan(step, lattice, length=n_iterations)
    return lattice


def _iteration(
    log_image: jax.Array, inside: jax.Array, made: Plan, shape: tuple[int, ...]
) -> Callable[[jax.Array, None], tuple[jax.Array, None]]:
    """Return a function of control points of this shape that does one iteration, for `scan`."""
    dtype, options = log_image.dtype, made.options
    placed = _placed(jnp.zeros(shape, dtype), made, "sample")
    values = basis_matrices(placed, [(0, n) for n in made.sample_shape])
    fits = [[jnp.asarray(m, dtype) for m in bspline.fit_matrices(each)] for each in values]
    numerators, denominators = zip(*fits, strict=True)
    expanded = [jnp.asarray(m, dtype) for m in values]
    weight_sum = bspline.contract(inside.astype(dtype), denominators)

    @jax.checkpoint
    def once(lattice: jax.Array, _: None) -> tuple[jax.Array, None]:
        now = log_image - bspline.expand(lattice, expanded)
        residual = jnp.where(inside, now - sharpen(now, inside, options.histogram_sharpening), 0)
        update = bspline.quotient(bspline.contract(residual, numerators), weight_sum)
        return lattice + options.over_relaxation * update, None

    return once


def sharpen(
    log_image: jax.Array, inside: jax.Array, numbers: tuple[float, float, int]
) -> jax.Array:
    """Map log intensities to the expected log intensity of the undistorted image.

    The same steps as in `n4ax_bids.core.n4.sharpen`, in one precision and with a gradient.

    Parameters
    ----------
    log_image : array, ln of intensity
    inside : bool array like `log_image`, which values are counted
    numbers : full width at half maximum of the field's histogram, ln of intensity; noise of the
        Wiener filter; number of bins

    Returns
    -------
    array like `log_image`
    """
    fwhm, noise, n_bins = numbers
    low = jnp.min(log_image, where=inside, initial=jnp.inf)
    high = jnp.max(log_image, where=inside, initial=-jnp.inf)
    flat = ~(high > low)  # a constant image, or nothing inside
    low, slope = jnp.where(flat, 0, low), jnp.where(flat, 1, (high - low) / (n_bins - 1))
    place = jnp.clip((log_image - low) / slope, 0, n_bins - 1)
    lower = jnp.minimum(jax.lax.stop_gradient(place).astype(jnp.int32), n_bins - 2)
    offset = place - lower
    above = jnp.where(inside, offset, 0)
    counts = jnp.zeros(n_bins, log_image.dtype).at[lower].add(jnp.where(inside, 1 - offset, 0))
    expected = _expected(counts.at[lower + 1].add(above), low, slope, fwhm, noise)
    sharpened = expected[lower] + (expected[lower + 1] - expected[lower]) * offset
    return jnp.where(flat, log_image, sharpened)


def _expected(
    counts: jax.Array, low: jax.Array, slope: jax.Array, fwhm: float, noise: float
) -> jax.Array:
    """Return the expected true log intensity of each bin (Sled et al. 1998)."""
    n_bins, padded = counts.size, padded_size(counts.size)
    offset = (padded - n_bins) // 2
    width = fwhm / slope
    distance = np.minimum(np.arange(padded), padded - np.arange(padded))
    gaussian = jnp.exp(-4 * math.log(2) * (distance / width) ** 2)
    gaussian_hat = jnp.fft.rfft(gaussian * 2 * math.sqrt(math.log(2) / math.pi) / width).real
    wiener = gaussian_hat / (gaussian_hat**2 + noise)
    blurred = jnp.zeros(padded, counts.dtype).at[offset : offset + n_bins].set(counts)
    deblurred = jnp.maximum(jnp.fft.irfft(jnp.fft.rfft(blurred) * wiener, padded), 0)
    centres = low + (np.arange(padded) - offset) * slope
    both = jnp.stack([centres * deblurred, deblurred])
    numerator, denominator = jnp.fft.irfft(jnp.fft.rfft(both) * gaussian_hat[None], padded)
    known = denominator > 0
    expected = jnp.where(known, numerator / jnp.where(known, denominator, 1), 0)
    return expected[offset : offset + n_bins]


def _placed(lattice: jax.Array, made: Plan, grid: str) -> LogField:
    """Return control points with their places on the grid of the samples or of the image."""
    order = made.options.bspline_order
    scale = (lattice.shape[0] - order) / (made.n_control_points[0] - order)
    axes = [getattr(axis, grid) for axis in made.axes]
    places = (tuple(scale * v for v in column) for column in zip(*axes, strict=True))
    return LogField(lattice, order, *places)
