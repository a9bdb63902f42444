"""One call on arrays: what was passed, prepared for the solve, and what comes back, checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.arguments import shown
from n4ax_bids.core.arrays import as_array, describe_odd, not_finite, odd_inside, plain
from n4ax_bids.core.field import LogField, divide_checked
from n4ax_bids.core.n4 import remarks
from n4ax_bids.core.n4.automatic import check_automatic_mask
from n4ax_bids.core.n4.plan import Plan, plan
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.options import MASK_WORDS, N4Options, require_options

NAMES = {"otsu": "Otsu's", "auto": "the automatic", "head": "the head", "brain": "the brain"}
"""How a message names them."""


class Call(NamedTuple):
    """The arrays of one image, and how it is to be solved."""

    image: jax.Array | np.ndarray
    mask: jax.Array | np.ndarray | None
    weight: jax.Array | np.ndarray | None
    hidden: np.ndarray | None
    """where a masked array is masked; the result is masked there as well"""
    plan: Plan
    doubt: str | None
    """what is odd about an automatic mask"""


def prepare(
    image: Any, mask: Any, weight: Any, zooms: Sequence[float] | None, options: N4Options | None
) -> Call:
    """Check what was passed, and make the mask where a word asks for one; errors as `n4.n4`."""
    options = require_options(options)
    image = as_array(image, "image")
    if image is None:
        raise TypeError("image is None; expected an array")
    weight = as_array(weight, "weight")
    word = mask if isinstance(mask, str) else None
    if word not in (None, *MASK_WORDS):
        words = ", ".join(map(repr, MASK_WORDS))
        raise ValueError(
            f"mask is {mask!r}; expected an array, {words} or None (n4ax_bids.correct takes files)"
        )
    image, mask, weight, hidden = plain(image, None if word else as_array(mask, "mask"), weight)
    _require_numbers(mask, weight)
    sizes_mm = _voxel_sizes(zooms)
    solved, doubt = plan(options, np.shape(image), sizes_mm), None
    if word:
        mask = _automatic(word, image, hidden, sizes_mm)
        if not mask.any():
            raise ValueError(_constant(image, hidden))
        doubt = check_automatic_mask(image, mask, solved, NAMES.get(word, word))
    return Call(image, mask, weight, hidden, solved, doubt)


def _require_numbers(mask: Any, weight: Any) -> None:
    """Refuse a mask with values that are not finite, and a weight with such values inside it.

    The solve sees the samples of the shrunk grid alone, but a mask must mean the same whichever
    voxels are sampled.
    """
    if _has_odd(mask):
        where = describe_odd(np.asarray(mask), not_finite(mask))
        raise ValueError(
            f"mask has values that are not finite: {where}; expected a number at each"
        )
    if _has_odd(weight):
        odd = not_finite(weight)
        if mask is not None and np.shape(mask) == np.shape(weight):
            odd &= np.asarray(mask) != 0
        if odd.any():
            raise odd_inside("weight", np.asarray(weight), odd)


def _has_odd(array: Any) -> bool:
    if array is None or array.dtype.kind not in "fV":  # V: types that JAX adds to numpy
        return False
    xp = jnp if isinstance(array, jax.Array) else np
    return not bool(xp.isfinite(array).all())


def _voxel_sizes(zooms: Any) -> tuple[float, ...] | None:
    """Return voxel sizes as floats; how many there have to be is checked with the shape."""
    if zooms is None:
        return None
    try:
        if isinstance(zooms, str | bytes | dict):
            raise ValueError
        sizes = np.asarray(zooms)
        if sizes.ndim != 1 or sizes.dtype.kind not in "iuf":
            raise ValueError
    except (TypeError, ValueError):
        expected = "one voxel size in mm for each axis, such as (1.0, 1.0, 1.0)"
        raise ValueError(f"zooms is {shown(zooms)}; expected {expected}") from None
    return tuple(float(size) for size in sizes)


def _automatic(
    word: str, image: Any, hidden: np.ndarray | None, zooms: Sequence[float] | None
) -> jax.Array | np.ndarray:
    """Make the mask that a word asks for; voxels that are masked are as dark as the darkest."""
    if word == "otsu":
        shown = image if hidden is None else np.ma.MaskedArray(image, hidden)
        return otsu_mask(shown, threads=n_cores())
    from n4ax_bids.core.mask.auto_mask import found_mask  # scipy's share takes a while to import

    if hidden is not None:
        image = np.where(hidden, image[~hidden].min(initial=0), image)
    return found_mask(word, image, zooms)


def _constant(image: jax.Array | np.ndarray, hidden: np.ndarray | None) -> str:
    values = image.ravel() if hidden is None else image[~hidden]
    return f"image is constant, every value is {values[0]:g}; expected contrast"


def divided(
    call: Call, log_field: LogField
) -> tuple[jax.Array | np.ndarray, jax.Array | np.ndarray]:
    """Divide the image by the field.

    Raises
    ------
    ValueError
        If the result is not finite at a voxel that takes part.
    """
    corrected, log_bias, finite = divide_checked(call.image, log_field)
    if not finite:
        _require_finite(call, corrected)
    if call.hidden is None:
        return corrected, log_bias
    hidden = call.hidden
    return np.ma.MaskedArray(corrected, hidden.copy()), np.ma.MaskedArray(log_bias, hidden.copy())


def _require_finite(call: Call, corrected: jax.Array | np.ndarray) -> None:
    """Refuse values that are not finite where they take part; elsewhere they stay what they are.

    The solve itself sees the samples of the shrunk grid alone.
    """
    xp = jnp if isinstance(corrected, jax.Array) else np
    odd = ~xp.isfinite(corrected)
    if call.mask is not None:
        odd &= call.mask != 0
    if call.weight is not None:
        odd &= call.weight > 0
    if not odd.any():
        return
    image, odd = np.asarray(call.image), np.asarray(odd)
    given = odd & not_finite(image)
    if given.any():
        raise odd_inside("image", image, given)
    raise ValueError(
        f"no usable field: inside the mask the corrected image has "
        f"{describe_odd(np.asarray(corrected), odd)}; are intensities or options extreme?"
    )


def without_logarithm(call: Call) -> str | None:
    """Return a warning where samples that take part are 0 or less."""
    plan, values = call.plan, call.plan.sample(call.image, call.plan.image_start)
    odd, n_inside = values <= 0, values.size
    inside = None
    if call.mask is not None:
        inside = plan.sample(call.mask, plan.mask_start) != 0
    if call.weight is not None:
        positive = plan.sample(call.weight, plan.weight_start) > 0
        inside = positive if inside is None else inside & positive
    if inside is not None:
        odd, n_inside = odd & inside, int(inside.sum())
    return remarks.without_logarithm(int(odd.sum()), n_inside, masked=inside is not None)


def n_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
