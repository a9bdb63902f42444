"""Calls of N4 on arrays: check them, solve and divide, one image at a time or several."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, overload

import jax
import numpy as np

from n4ax_bids.arguments import is_bool, shown
from n4ax_bids.core.arrays import numbered, one_by_one
from n4ax_bids.core.call import Call, N4Warning, divided, prepare, without_logarithm
from n4ax_bids.core.n4.adaptive import adapted
from n4ax_bids.core.n4.automatic import check_automatic_mask
from n4ax_bids.core.n4.estimate import N4Result, estimate, estimate_batch
from n4ax_bids.core.n4.plan import Plan, plan
from n4ax_bids.core.n4.remarks import remarks
from n4ax_bids.options import N4Options, require_options

Array: TypeAlias = jax.Array | np.ndarray


@overload
def n4(
    image: Array,
    mask: Array | str | None = ...,
    weight: Array | None = ...,
    *,
    zooms: Sequence[float] | None = ...,
    options: N4Options | None = ...,
    return_bias: Literal[False] = ...,
) -> Array: ...
@overload
def n4(
    image: Array,
    mask: Array | str | None = ...,
    weight: Array | None = ...,
    *,
    zooms: Sequence[float] | None = ...,
    options: N4Options | None = ...,
    return_bias: Literal[True],
) -> tuple[Array, Array]: ...
def n4(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray | str | None = "otsu",
    weight: jax.Array | np.ndarray | None = None,
    *,
    zooms: Sequence[float] | None = None,
    options: N4Options | None = None,
    return_bias: bool = False,
) -> Array | tuple[Array, Array]:
    """Correct the bias field of an image.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), intensities; axes in NIfTI order. Masked voxels of a numpy
        masked array are left out of the estimate, and the results are masked there as well.
    mask : array like `image` (non-zero = inside), None for all voxels (as the ANTs program without
        a mask), or a word: "otsu" for the voxels above Otsu's threshold, "head" or "brain" for
        `head_mask` and `brain_mask`, "auto" for the brain where one is found, else the head (see
        `auto_mask`). The last three depend on sizes in mm.
    weight : array like `image`, confidence of each voxel; voxels with weight <= 0 are left out of
        the estimate
    zooms : voxel size of each axis in mm, 1 where not given; used for spline distances and for
        the masks "head", "brain" and "auto"
    options : N4Options, the ANTs program's defaults where not given
    return_bias : also return the field

    Returns
    -------
    corrected : float32 array like `image`, image / exp(log_bias) at every voxel, also outside the
        mask; a jax array if `image` is one, else numpy
    log_bias : float32 array like `image`, ln of the field; only with `return_bias`

    Raises
    ------
    TypeError
        If an argument is not an array (but a file name, an image of nibabel or SimpleITK, or a
        value traced by `jit`, `vmap` or `grad`), or `options` is not an N4Options.
    ValueError
        If shapes differ, the mask is empty, or the image is constant or not finite inside it.
        Values outside the mask that are not finite are kept as they are.

    Warns
    -----
    N4Warning
        If an automatic mask misses the object, the estimate uses fewer samples than control
        points, or ln b has a wider range than the logarithm of the image.

    References
    ----------
    N. J. Tustison et al., N4ITK: Improved N3 Bias Correction, IEEE Trans Med Imaging 29(6),
    2010, doi 10.1109/TMI.2010.2046908.
    """
    planned = _prepared(image, mask, weight, zooms, require_options(options))
    call = planned.call
    result = estimate(call.image, call.mask, call.weight, plan=planned.plan)
    corrected, log_bias = divided(call, result.log_field)
    _warn(planned, result)
    return (corrected, log_bias) if return_bias else corrected


@overload
def n4_batch(
    images: Sequence[Array],
    masks: Sequence[Array | str | None] | str | None = ...,
    weights: Sequence[Array | None] | None = ...,
    *,
    zooms: Sequence[Sequence[float] | None] | None = ...,
    options: N4Options | None = ...,
    return_bias: Literal[False] = ...,
    together: bool | None = ...,
) -> list[Array]: ...
@overload
def n4_batch(
    images: Sequence[Array],
    masks: Sequence[Array | str | None] | str | None = ...,
    weights: Sequence[Array | None] | None = ...,
    *,
    zooms: Sequence[Sequence[float] | None] | None = ...,
    options: N4Options | None = ...,
    return_bias: Literal[True],
    together: bool | None = ...,
) -> tuple[list[Array], list[Array]]: ...
def n4_batch(
    images: Sequence[jax.Array | np.ndarray],
    masks: Sequence[jax.Array | np.ndarray | str | None] | str | None = "otsu",
    weights: Sequence[jax.Array | np.ndarray | None] | None = None,
    *,
    zooms: Sequence[Sequence[float] | None] | None = None,
    options: N4Options | None = None,
    return_bias: bool = False,
    together: bool | None = None,
) -> list[Array] | tuple[list[Array], list[Array]]:
    """Correct several images; on a GPU, images that fit together share a solve.

    Parameters
    ----------
    images : arrays (I, J) or (I, J, K), of one shape or of many
    masks, weights, zooms : one for each image, as for `n4`; one word or None applies to all
    options : N4Options, used for all images
    return_bias : also return the fields
    together : solve images of equal padded size at once; None: only on a GPU

    Returns
    -------
    corrected : list of arrays
    log_bias : list of arrays; only with `return_bias`

    Raises
    ------
    TypeError
        As `n4`.
    ValueError
        As `n4`, and if the number of masks, weights or zooms differs from that of images.

    Warns
    -----
    N4Warning
        As `n4`, with the number of the image.
    """
    if not (together is None or is_bool(together)):
        raise TypeError(f"together is {shown(together)}; expected True, False or None")
    options = require_options(options)
    each_given = one_by_one(images, masks, weights, zooms)
    calls = []
    for number, given in enumerate(each_given):
        with numbered(number):
            calls.append(_prepared(*given, options))
    results = estimate_batch(
        [each.call.image for each in calls],
        [each.call.mask for each in calls],
        [each.call.weight for each in calls],
        plans=[each.plan for each in calls],
        together=together,
    )
    both = []  # corrected image and field of each
    for number, (each, result) in enumerate(zip(calls, results, strict=True)):
        with numbered(number):
            both.append(divided(each.call, result.log_field))
        _warn(each, result, f"images[{number}]: ")
    corrected = [one for one, _ in both]
    return (corrected, [log_bias for _, log_bias in both]) if return_bias else corrected


class _Planned(NamedTuple):
    """A checked image with the plan of its solve."""

    call: Call
    plan: Plan
    doubt: str | None
    """warning about an automatic mask"""


def _prepared(
    image: Array,
    mask: Array | str | None,
    weight: Array | None,
    zooms: Sequence[float] | None,
    options: N4Options,
) -> _Planned:
    """Check one image and plan its solve, before a mask is looked for."""
    plans: list[Plan] = []
    call = prepare(
        image, mask, weight, zooms, lambda shape, mm: plans.append(plan(options, shape, mm))
    )
    (made,) = plans
    if options.adapt:
        shape, mm = call.given.image.shape, call.given.zooms
        made = plan(adapted(options, shape, mm, call.mask, call.weight), shape, mm)
    doubt = None
    if call.automatic and call.mask is not None:
        doubt = check_automatic_mask(call.image, call.mask, made, *call.automatic)
    return _Planned(call, made, doubt)


def _warn(planned: _Planned, result: N4Result, prefix: str = "") -> None:
    """Warn the caller of `n4` or `n4_batch` about everything that is odd about a result."""
    odd = _without_logarithm(planned)
    for remark in (*remarks(result, planned.plan, planned.doubt), *filter(None, [odd])):
        warnings.warn(f"{prefix}{remark}", N4Warning, stacklevel=3)


def _without_logarithm(planned: _Planned) -> str | None:
    """Return a warning if samples inside the mask are 0 or less."""
    call = planned.call
    given = (call.image, call.mask, call.weight)
    on_device = any(isinstance(array, jax.Array) for array in given)
    counted = _counted_on_device if on_device else _counted
    odd, n_inside = jax.device_get(counted(*given, plan=planned.plan))
    masked = call.mask is not None or call.weight is not None
    return without_logarithm(int(odd), int(n_inside), masked=masked)


def _counted(image: Any, mask: Any, weight: Any, *, plan: Plan) -> tuple[Any, Any]:
    """Return how many samples inside the mask are 0 or less, and how many there are."""
    odd = plan.sample(image, plan.image_start) <= 0
    inside = None
    if mask is not None:
        inside = plan.sample(mask, plan.mask_start) != 0
    if weight is not None:
        positive = plan.sample(weight, plan.weight_start) > 0
        inside = positive if inside is None else inside & positive
    return (odd.sum(), odd.size) if inside is None else ((odd & inside).sum(), inside.sum())


_counted_on_device = jax.jit(_counted, static_argnames="plan")
