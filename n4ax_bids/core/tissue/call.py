"""Calls of the tissue method on arrays, one image at a time or several."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from n4ax_bids.core.arrays import numbered, one_by_one
from n4ax_bids.core.call import Call, N4Warning, divided, prepare
from n4ax_bids.core.estimator import Estimate
from n4ax_bids.core.tissue import estimate as estimates
from n4ax_bids.core.tissue import method
from n4ax_bids.options.tissue import TissueOptions, require_options

Array: TypeAlias = jax.Array | np.ndarray


def tissue(
    image: Array,
    mask: Array | str | None = "otsu",
    weight: Array | None = None,
    *,
    zooms: Sequence[float] | None = None,
    options: TissueOptions | None = None,
    return_bias: bool = False,
) -> Any:
    """Correct the bias field of an image by tissue classes that are seen through a smooth field.

    The logarithm of the intensity is modelled as Gaussian classes plus a smooth spline; classes
    and spline are estimated in turn. Where the model does not fit, the field is that of a coarse
    N4, and a warning says so. The method is experimental; see docs/beyond-n4.md.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), intensities; values that are negative or not finite do not
        count
    mask : array like `image` (not 0 = inside), None for the voxels above Otsu's threshold, or a
        word: "otsu", "head", "brain" or "auto"
    weight : array like `image`; voxels with weight <= 0 are left out of the estimate
    zooms : size of a voxel on each axis in mm, 1 where not given
    options : TissueOptions, the preset `default` where not given
    return_bias : also return the field

    Returns
    -------
    corrected : float32 array like `image`: image / exp(log_bias); a jax array if `image` is one,
        else numpy
    log_bias : float32 array like `image`, ln of the field; only with `return_bias`

    Raises
    ------
    TypeError
        If an argument is not an array, or `options` is not a TissueOptions.
    ValueError
        If shapes differ, nothing is inside the mask, or the image is 0 there.

    Warns
    -----
    N4Warning
        If the model does not fit the image.

    References
    ----------
    Wells et al., IEEE Trans Med Imaging 15(4), 1996; Van Leemput et al., IEEE Trans Med Imaging
    18(10), 1999; Ashburner and Friston, NeuroImage 26(3), 2005.
    """
    options = require_options(options)
    call = _prepared(image, mask, weight, zooms, options)
    corrected, log_bias = _solved(call, options)
    return (corrected, log_bias) if return_bias else corrected


def tissue_batch(
    images: Sequence[Array],
    masks: Sequence[Array | str | None] | str | None = "otsu",
    weights: Sequence[Array | None] | None = None,
    *,
    zooms: Sequence[Sequence[float] | None] | None = None,
    options: TissueOptions | None = None,
    return_bias: bool = False,
) -> Any:
    """Correct several images, one after the other; images of similar size share programs.

    Parameters
    ----------
    images : arrays (I, J) or (I, J, K), of one shape or of many
    masks, weights, zooms : one for each image, as for `tissue`; one word or None applies to all
    options : TissueOptions, used for all images
    return_bias : also return the fields

    Returns
    -------
    corrected : list of arrays
    log_bias : list of arrays; only with `return_bias`

    Raises
    ------
    TypeError, ValueError
        As `tissue`, and if the number of masks, weights or zooms differs from that of images.
    """
    options = require_options(options)
    each_given = one_by_one(images, masks, weights, zooms)
    calls = []
    for number, given in enumerate(each_given):
        with numbered(number):
            calls.append(_prepared(*given, options))
    both = []
    for number, call in enumerate(calls):
        with numbered(number):
            both.append(_solved(call, options, f"images[{number}]: "))
    corrected = [one for one, _ in both]
    return (corrected, [log_bias for _, log_bias in both]) if return_bias else corrected


def _prepared(image: Any, mask: Any, weight: Any, zooms: Any, options: TissueOptions) -> Call:
    """Check the arguments; options that do not fit are refused before a mask is searched for."""

    def check(shape: tuple[int, ...], mm: tuple[float, ...] | None) -> None:
        estimates.require_fit(shape, mm or (1.0,) * len(shape), options)

    return prepare(image, mask, weight, zooms, check)


def _solved(call: Call, options: TissueOptions, prefix: str = "") -> tuple[Array, Array]:
    """Estimate the field and divide by it; warn about what is odd about the result."""
    estimate: Estimate = method.prepare(call.given, options)(None)
    found = divided(call, estimate.log_field)
    for note in estimate.notes:
        warnings.warn(f"{prefix}{note}", N4Warning, stacklevel=4)
    return found
