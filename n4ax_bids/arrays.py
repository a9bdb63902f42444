"""Correct one image that is an array, by any method."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids import methods
from n4ax_bids.core.call import Call, N4Warning, divided, prepare, without_logarithm

Array: TypeAlias = jax.Array | np.ndarray


def correct_array(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray | str | None = "otsu",
    weight: jax.Array | np.ndarray | None = None,
    *,
    zooms: Sequence[float] | None = None,
    options: Any = None,
    return_bias: bool = False,
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
    method = methods.of_options(options)
    methods.require_arrays(method)
    options = method.options() if options is None else options
    call = prepare(image, mask, weight, zooms)
    estimate = methods.load(method.prepare)(call.given, options)(None)
    corrected, log_bias = divided(call, estimate.log_field)
    dark = _without_logarithm(call)
    for note in (*estimate.notes, *([dark] if dark else [])):
        warnings.warn(note, N4Warning, stacklevel=2)
    return (corrected, log_bias) if return_bias else corrected


def _without_logarithm(call: Call) -> str | None:
    """Return a warning if voxels inside the mask are 0 or less; counted where the image lies."""
    xp = jnp if isinstance(call.image, jax.Array) else np
    inside = xp.ones(call.image.shape, bool) if call.mask is None else call.mask != 0
    if call.weight is not None:
        inside = inside & (call.weight > 0)
    masked = call.mask is not None or call.weight is not None
    n, n_inside = xp.count_nonzero((call.image <= 0) & inside), xp.count_nonzero(inside)
    return without_logarithm(int(n), int(n_inside), masked=masked)
