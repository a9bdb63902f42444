"""Correct a stack of sections that is one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from n4ax_bids.arguments import shown
from n4ax_bids.core.arrays import as_array, not_finite, odd_inside
from n4ax_bids.core.stack.correction import StackCorrection, correct_planes, enlarged
from n4ax_bids.core.stack.estimate import Say, Stack, estimate_stack, stack_of, thin_tissue_mask
from n4ax_bids.core.stack.samples import thinned, thinning
from n4ax_bids.options.stack import StackOptions


class StackResult(NamedTuple):
    """A corrected stack."""

    corrected: np.ndarray
    """float32 (planes, rows, columns)"""
    bias: np.ndarray
    """float32, the field: 1 = none"""
    mask: np.ndarray
    """bool, where the estimate looked, enlarged from its samples unless it was given"""
    correction: StackCorrection


def correct_stack(
    vol: np.ndarray,
    mask: Any = "tissue",
    *,
    voxel_size_mm: Sequence[float] = (1.0, 1.0, 1.0),
    options: StackOptions | None = None,
    say: Say | None = None,
    together: bool | None = None,
) -> StackResult:
    """Correct the bias field of a stack of sections.

    Parameters
    ----------
    vol : array (planes, rows, columns), intensities
    mask : bool array like `vol`, "tissue" to find it, or None for every voxel
    voxel_size_mm : size of a voxel on these axes, mm
    options : StackOptions
    say : called with the name of each step that begins
    together : solve sections of equal size at once; None: only on a GPU

    Returns
    -------
    StackResult

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or values inside the mask are not finite.
    """
    options = require_stack_options(options)
    image = np.asarray(as_array(vol, "vol"))
    zooms = voxel_sizes(voxel_size_mm)
    require_stack_shape("vol", image.shape)
    given = mask_of(mask, image.shape)
    stack = thinned_stack(image, given, zooms, options)
    done = estimate_stack(stack, options, say, together)
    full = given
    if full is None:
        full = enlarged(done.thin_mask, done.shape, done.how)
    corrected, bias = correct_planes(image, done, 0)
    odd = not_finite(corrected) & full if not np.isfinite(corrected.sum()) else None
    if odd is not None and odd.any():
        raise odd_inside("vol", image, odd)
    if options.zero_outside:
        corrected[~full] = 0
    return StackResult(corrected, bias, full, done)


def thinned_stack(
    image: np.ndarray,
    mask: np.ndarray | None,
    zooms: tuple[float, ...],
    options: StackOptions,
) -> Stack:
    """Thin an array in memory; without a mask, find the tissue."""
    how = thinning(options, image.shape, zooms)
    thin = thinned(image, how, means=how.means)
    if mask is not None:
        inside = thinned(mask, how, means=how.means) >= 0.5
    else:
        means = thin if how.means else thinned(image, how, means=True)
        inside = thin_tissue_mask(means, how, options)
    return stack_of(thin, inside, image.shape, zooms, how)


def require_stack_options(options: Any) -> StackOptions:
    """Return options; the defaults for None.

    Raises
    ------
    TypeError
        If they are anything else.
    """
    if options is None:
        return StackOptions()
    if not isinstance(options, StackOptions):
        raise TypeError(f"options is {shown(options)}; expected StackOptions(...)")
    return options


def require_stack_shape(name: str, shape: Sequence[int]) -> None:
    """Refuse what is no stack of planes."""
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"{name} has shape {tuple(shape)}; expected (planes, rows, columns)")


def voxel_sizes(value: Any) -> tuple[float, float, float]:
    """Return three voxel sizes in mm, checked."""
    try:
        sizes = tuple(float(size) for size in value)
    except (TypeError, ValueError):
        sizes = ()
    if len(sizes) != 3 or not all(np.isfinite(sizes)) or min(sizes) <= 0:
        raise ValueError(
            f"voxel_size_mm is {shown(value)}; expected three positive numbers of mm, for planes, "
            "rows and columns"
        )
    return sizes[0], sizes[1], sizes[2]


def mask_of(mask: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a mask as a bool array; None for tissue that is to be found."""
    if isinstance(mask, str):
        if mask != "tissue":
            raise ValueError(f"mask is {mask!r}; expected an array, 'tissue' or None")
        return None
    if mask is None:
        return np.ones(shape, bool)
    array = np.asarray(as_array(mask, "mask"))
    if array.shape != shape:
        raise ValueError(f"mask has shape {array.shape}; expected the stack's {shape}")
    inside: np.ndarray = array != 0
    if not inside.any():
        raise ValueError("mask is empty; expected voxels that are not 0")
    return inside
