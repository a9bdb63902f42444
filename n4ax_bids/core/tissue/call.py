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


def tissue_joint(
    images: Sequence[Array],
    masks: Sequence[Array | str | None] | Array | str | None = "otsu",
    weights: Sequence[Array | None] | None = None,
    *,
    zooms: Sequence[float] | None = None,
    options: TissueOptions | None = None,
    return_bias: bool = False,
) -> Any:
    """Correct several images of one grid by one field, which is estimated from all of them.

    Contrasts of one session that one coil received, as T1w and T2w, share the receive field. Each
    image has classes of its own; their equations for the field are added. Images that the model
    does not fit have no part in the estimate, and a warning names them.

    Parameters
    ----------
    images : arrays (I, J) or (I, J, K) of one shape, of which each voxel is at the same place
    masks : one for each image, or one array or word for all, as for `tissue`
    weights : one for each image, or None
    zooms : size of a voxel on each axis in mm, 1 where not given
    options : TissueOptions, used for all images
    return_bias : also return the field

    Returns
    -------
    corrected : list of float32 arrays
    log_bias : float32 array like one image, ln of the field; only with `return_bias`

    Raises
    ------
    TypeError, ValueError
        As `tissue_batch`, and if shapes differ.

    Warns
    -----
    N4Warning
        If the model does not fit an image.
    """
    options = require_options(options)
    one = isinstance(masks, (np.ndarray, jax.Array)) and masks.ndim == np.ndim(images[0])
    each_mask: Any = [masks] * len(images) if one else masks
    each_given = one_by_one(images, each_mask, weights, [zooms] * len(images))
    calls = []
    for number, given in enumerate(each_given):
        with numbered(number):
            calls.append(_prepared(*given, options))
    shapes = [np.shape(call.image) for call in calls]
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"images[{number}] has shape {shape}; expected that of images[0], {shapes[0]}, "
                "because they share a field"
            )
    estimates_of_each = method.solve_jointly([call.given for call in calls], options)
    found = []
    for number, (call, estimate) in enumerate(zip(calls, estimates_of_each, strict=True)):
        found.append(divided(call, estimate.log_field))
        _warn(estimate, f"images[{number}]: ")
    corrected = [image for image, _ in found]
    return (corrected, found[0][1]) if return_bias else corrected


def _prepared(image: Any, mask: Any, weight: Any, zooms: Any, options: TissueOptions) -> Call:
    """Check the arguments; options that do not fit are refused before a mask is searched for."""

    def check(shape: tuple[int, ...], mm: tuple[float, ...] | None) -> None:
        estimates.require_fit(shape, mm or (1.0,) * len(shape), options)

    return prepare(image, mask, weight, zooms, check)


def _solved(call: Call, options: TissueOptions, prefix: str = "") -> tuple[Array, Array]:
    """Estimate the field and divide by it; warn about what is odd about the result."""
    estimate: Estimate = method.prepare(call.given, options)(None)
    found = divided(call, estimate.log_field)
    _warn(estimate, prefix)
    return found


def _warn(estimate: Estimate, prefix: str) -> None:
    """Pass on what is odd about a result."""
    for note in estimate.notes:
        warnings.warn(f"{prefix}{note}", N4Warning, stacklevel=5)
