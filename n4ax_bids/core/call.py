"""One call on arrays: prepare the arguments for the solve, and check its result."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.arguments import shown
from n4ax_bids.core.arrays import as_array, describe_odd, not_finite, odd_inside, plain
from n4ax_bids.core.estimator import Automatic, Given
from n4ax_bids.core.field import LogField, divide_checked
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.options import MASK_WORDS

NAMES = {"otsu": "Otsu's", "auto": "the automatic", "head": "the head", "brain": "the brain"}
"""Names of the automatic masks in messages."""

Check = Callable[[tuple[int, ...], tuple[float, ...] | None], Any]


class N4Warning(UserWarning):
    """The result of a solve may be of little use; the message says why."""


class Call(NamedTuple):
    """The arrays of one image, checked."""

    image: jax.Array | np.ndarray
    mask: jax.Array | np.ndarray | None
    weight: jax.Array | np.ndarray | None
    hidden: np.ndarray | None
    """where a masked array is masked; the result is masked there too"""
    zooms: tuple[float, ...] | None
    """mm; None if not given"""
    automatic: Automatic | None
    """description of a mask that was found in the image"""

    @property
    def given(self) -> Given:
        """The arguments of an estimator."""
        zooms = self.zooms or (1.0,) * np.ndim(self.image)
        return Given(self.image, self.mask, self.weight, zooms, self.automatic)


def prepare(
    image: Any, mask: Any, weight: Any, zooms: Sequence[float] | None, check: Check | None = None
) -> Call:
    """Check the arguments, and find the mask if a word names one; errors as `n4`.

    Parameters
    ----------
    image, mask, weight, zooms : as the caller passed them
    check : called with the shape and the zooms before a mask is searched for, to refuse options
        that do not fit the image
    """
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
    if check is not None:
        check(np.shape(image), sizes_mm)
    if word:
        mask = _automatic(word, image, hidden, sizes_mm)
        if not mask.any():
            raise ValueError(_constant(image, hidden))
    return Call(image, mask, weight, hidden, sizes_mm, Automatic(NAMES[word]) if word else None)


def _require_numbers(mask: Any, weight: Any) -> None:
    """Refuse a mask with values that are not finite, and a weight with such values inside it.

    The solve sees only the samples of the shrunk grid, but whether a mask is valid must not depend
    on which voxels are sampled.
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
    """Return voxel sizes as floats; their number is checked later, with the shape."""
    if zooms is None:
        return None
    try:
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
    """Find the mask that a word names; masked voxels count as the darkest value."""
    if word == "otsu":
        shown = image if hidden is None else np.ma.MaskedArray(image, hidden)
        return otsu_mask(shown, threads=n_cores())
    from n4ax_bids.core.mask.auto_mask import found_mask  # it imports scipy, which is slow

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
        If the result is not finite at a voxel inside the mask.
    """
    corrected, log_bias, finite = divide_checked(call.image, log_field)
    if not finite:
        _require_finite(call, corrected)
    if call.hidden is None:
        return corrected, log_bias
    hidden = call.hidden
    return np.ma.MaskedArray(corrected, hidden.copy()), np.ma.MaskedArray(log_bias, hidden.copy())


def _require_finite(call: Call, corrected: jax.Array | np.ndarray) -> None:
    """Refuse values inside the mask that are not finite; elsewhere they are kept.

    The solve itself sees only the samples of the shrunk grid.
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


def without_logarithm(n: int, n_voxels: int, *, masked: bool) -> str | None:
    """Return a warning if intensities inside the mask are 0 or less.

    Without a mask the air of many images is 0, which is no reason for a warning.

    Parameters
    ----------
    n : number of values inside the mask that are 0 or less
    n_voxels : number of values inside the mask
    masked : whether there is a mask or a weight
    """
    if n and n == n_voxels:
        return (
            "every voxel that is used is 0 or less and has no logarithm: the field is "
            "meaningless (use another mask, or shift the image to positive values)"
        )
    if n and masked:
        return (
            f"{n} of {n_voxels} voxels inside the mask are 0 or less: they enter the estimate "
            "without a logarithm, as in ITK"
        )
    return None


def n_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
