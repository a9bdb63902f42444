"""Calls of the zero-shot method on arrays, one image at a time or several."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.arrays import numbered, one_by_one
from n4ax_bids.core.call import Call, N4Warning, divided, prepare
from n4ax_bids.core.estimator import Estimate
from n4ax_bids.core.zero_dce import fit, method, solve
from n4ax_bids.options.zero_shot import ZeroShotOptions, require_options

Array: TypeAlias = jax.Array | np.ndarray


def zero_shot(
    image: Array,
    mask: Array | str | None = "otsu",
    weight: Array | None = None,
    *,
    zooms: Sequence[float] | None = None,
    options: ZeroShotOptions | None = None,
    return_bias: bool = False,
) -> Any:
    """Correct the bias field of an image by a small network that is fitted to this image alone.

    The network predicts a tone curve that makes every part of the image about equally bright. The
    field is the smooth part of what the curve changes; see docs/zero-shot.md.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), intensities; values that are negative or not finite count
        as 0 in the estimate
    mask : array like `image` (not 0 = inside), None for every voxel, or a word: "otsu", "head",
        "brain" or "auto"
    weight : array like `image`, confidence of each voxel, at most 1
    zooms : size of a voxel on each axis in mm, 1 where not given
    options : ZeroShotOptions, the preset `brain` where not given
    return_bias : also return the field

    Returns
    -------
    corrected : float32 array like `image`: image / exp(log_bias), or with the option
        output="curve" the brightened image in the units of the image; a jax array if `image` is
        one, else numpy
    log_bias : float32 array like `image`, ln of the field; only with `return_bias`

    Raises
    ------
    TypeError
        If an argument is not an array, or `options` is not a ZeroShotOptions.
    ValueError
        If shapes differ, nothing is inside the mask, or the image is 0 or constant there.

    Warns
    -----
    N4Warning
        If the tone map is saturated, or an axis is too short for the option `downsample`.

    References
    ----------
    Yang, Timko, Fernandez, Zero-shot bias correction, arXiv 2501.12244, 2025.
    """
    options = require_options(options)
    call = _prepared(image, mask, weight, zooms, options)
    estimate = method.prepare(call.given, options)(None)
    corrected, log_bias = _result(call, estimate)
    _warn(estimate)
    return (corrected, log_bias) if return_bias else corrected


def zero_shot_batch(
    images: Sequence[Array],
    masks: Sequence[Array | str | None] | str | None = "otsu",
    weights: Sequence[Array | None] | None = None,
    *,
    zooms: Sequence[Sequence[float] | None] | None = None,
    options: ZeroShotOptions | None = None,
    return_bias: bool = False,
) -> Any:
    """Correct several images; those of equal padded size are fitted together.

    Parameters
    ----------
    images : arrays (I, J) or (I, J, K), of one shape or of many
    masks, weights, zooms : one for each image, as for `zero_shot`; one word or None applies to all
    options : ZeroShotOptions, used for all images
    return_bias : also return the fields

    Returns
    -------
    corrected : list of arrays
    log_bias : list of arrays; only with `return_bias`

    Raises
    ------
    TypeError, ValueError
        As `zero_shot`, and if the number of masks, weights or zooms differs from that of images.
    """
    options = require_options(options)
    each_given = one_by_one(images, masks, weights, zooms)
    calls, checked = [], []
    for number, given in enumerate(each_given):
        with numbered(number):
            calls.append(_prepared(*given, options))
            checked.append(solve.image_of(calls[-1].given, options))
    estimates = method.solve_all(checked, options, together)
    both = []
    for number, (call, estimate) in enumerate(zip(calls, estimates, strict=True)):
        with numbered(number):
            both.append(_result(call, estimate))
        _warn(estimate, f"images[{number}]: ")
    corrected = [one for one, _ in both]
    return (corrected, [log_bias for _, log_bias in both]) if return_bias else corrected


def _prepared(image: Any, mask: Any, weight: Any, zooms: Any, options: ZeroShotOptions) -> Call:
    """Check the arguments; options that do not fit are refused before a mask is searched for."""

    def check(shape: tuple[int, ...], mm: tuple[float, ...] | None) -> None:
        solve.require_fit(shape, mm or (1.0,) * len(shape), options)

    return prepare(image, mask, weight, zooms, check)


def together(
    arrays: list[fit.Arrays], forms: list[fit.Form], options: ZeroShotOptions
) -> list[fit.Fitted]:
    """Fit images of equal padded size at once."""
    numbers = solve.numbers_of(options)
    groups: dict[Any, list[int]] = {}
    for i, (each, form) in enumerate(zip(arrays, forms, strict=True)):
        groups.setdefault((each.coarse.shape, each.image.shape, form), []).append(i)
    found: dict[int, fit.Fitted] = {}
    for (shape, _, form), members in groups.items():
        layers = solve.start(options, len(shape))
        stacked = jax.tree.map(lambda *each: jnp.stack(each), *(arrays[i] for i in members))
        fitted = fit.fit_batch(layers, stacked, form, numbers)
        for place, i in enumerate(members):
            found[i] = jax.tree.map(lambda values, at=place: values[at], fitted)
    return [found[i] for i in range(len(arrays))]


def _result(call: Call, estimate: Estimate) -> tuple[Array, Array]:
    corrected, log_bias = divided(call, estimate.log_field)
    bright: Any = estimate.images.get(method.CURVE)
    if bright is None:
        return corrected, log_bias
    if isinstance(corrected, jax.Array):
        bright = jnp.asarray(bright)
    elif call.hidden is not None:
        bright = np.ma.MaskedArray(bright, call.hidden.copy())
    return bright, log_bias


def _warn(estimate: Estimate, prefix: str = "") -> None:
    for note in estimate.notes:
        warnings.warn(f"{prefix}{note}", N4Warning, stacklevel=3)
