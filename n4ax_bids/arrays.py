"""Correct one image that is an array, by any method."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids import methods
from n4ax_bids.arguments import is_among, shown
from n4ax_bids.core.call import Call, N4Warning, divided, prepare, without_logarithm
from n4ax_bids.core.field import at_level
from n4ax_bids.options import FIELD_SCALES

Array: TypeAlias = jax.Array | np.ndarray


def correct_array(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray | str | None = "otsu",
    weight: jax.Array | np.ndarray | None = None,
    *,
    zooms: Sequence[float] | None = None,
    options: Any = None,
    return_bias: bool = False,
    field_scale: str = "as-is",
) -> Array | tuple[Array, Array]:
    """Correct the bias field of an image; the options decide which method is used.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), intensities
    mask : array like `image` (not 0 = inside), None for all voxels, or a word: "otsu", "head",
        "brain" or "auto"
    weight : array like `image`, confidence of each voxel; voxels with weight <= 0 are left out of
        the estimate
    zooms : size of a voxel on each axis in mm, 1 where not given
    options : options of a method; N4's with the ANTs program's defaults where not given
    return_bias : also return the field
    field_scale : "mean" or "median" divides the field by its mean or median inside the mask, so
        that the corrected image keeps the level of the input; "as-is" leaves it, as ANTs does

    Returns
    -------
    corrected : float32 array like `image`, image / exp(log_bias) at every voxel
    log_bias : float32 array like `image`, ln of the field; only with `return_bias`

    Raises
    ------
    TypeError, ValueError
        As `n4ax_bids.n4`, and if the options belong to no method.

    Warns
    -----
    N4Warning
        For each of the method's notes on its result.
    """
    if not is_among(field_scale, FIELD_SCALES):
        raise ValueError(
            f"field_scale is {shown(field_scale)}; expected one of {', '.join(FIELD_SCALES)}"
        )
    method = methods.of_options(options)
    methods.require_arrays(method)
    options = method.options() if options is None else options
    call = prepare(image, mask, weight, zooms)
    estimate = methods.load(method.prepare)(call.given, options)(None)
    corrected, log_bias = divided(call, estimate.log_field)
    if field_scale != "as-is":
        _, corrected, log_bias = at_level(
            estimate.log_field, corrected, log_bias, _inside(call), field_scale
        )
    dark = _without_logarithm(call)
    for note in (*estimate.notes, *([dark] if dark else [])):
        warnings.warn(note, N4Warning, stacklevel=2)
    return (corrected, log_bias) if return_bias else corrected


def _inside(call: Call) -> Array:
    """Return the voxels that the estimate may use, where the image lies."""
    xp = jnp if isinstance(call.image, jax.Array) else np
    inside: Array = xp.ones(call.image.shape, bool) if call.mask is None else call.mask != 0
    return inside if call.weight is None else inside & (call.weight > 0)


def _without_logarithm(call: Call) -> str | None:
    """Return a warning if voxels inside the mask are 0 or less; counted where the image lies."""
    xp = jnp if isinstance(call.image, jax.Array) else np
    inside, masked = _inside(call), call.mask is not None or call.weight is not None
    n, n_inside = xp.count_nonzero((call.image <= 0) & inside), xp.count_nonzero(inside)
    return without_logarithm(int(n), int(n_inside), masked=masked)
