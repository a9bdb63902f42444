"""Warnings about the result of a solve that may be of little use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from n4ax_bids.core.n4.plan import Plan

if TYPE_CHECKING:
    from n4ax_bids.core.n4.estimate import N4Result


def remarks(result: N4Result, plan: Plan, doubt: str | None = None) -> tuple[str, ...]:
    """Return the warnings about a result.

    Parameters
    ----------
    result : N4Result
    plan : Plan of the solve
    doubt : warning of `check_automatic_mask` about the mask
    """
    few = doubt or few_samples(result.n_voxels, plan)
    beyond = beyond_range(result.log_image_range, result.log_field_range)
    return tuple(remark for remark in (few, beyond) if remark)


def few_samples(n_samples: int, plan: Plan) -> str | None:
    """Return a warning if a solve has fewer samples than its first level has control points."""
    points = n_points(plan)
    if n_samples >= points:
        return None
    size = math.prod(plan.sample_shape)
    remedy = "use a smaller shrink factor or a larger mask"
    if max(plan.shrink_factors) == 1:
        remedy = "use a larger mask" if size > points else "the image is too small for N4"
    return (
        f"{n_samples} of {size} samples take part, fewer than the {points} control points of the "
        f"first level; look at the result ({remedy})"
    )


def n_points(plan: Plan) -> int:
    """Return the number of control points of the first level.

    An axis of one voxel counts as one: the field is constant along it.
    """
    pairs = zip(plan.n_control_points, plan.shape, strict=True)
    return math.prod(1 if n == 1 else points for points, n in pairs)


MOST_DRIFT = 5.0
"""times the range of the logarithms; the mean of ln b is not fixed, and drifts by up to 2.4 times
the range on real images"""


def beyond_range(
    log_image_range: tuple[float, float], log_field_range: tuple[float, float]
) -> str | None:
    """Return a warning if ln b has a wider range than the image's logarithms, or drifted far.

    A bias field cannot vary more than the image does.

    Parameters
    ----------
    log_image_range, log_field_range : lowest and highest value of ln(intensity) and of ln b at the
        samples inside the mask
    """
    (lowest, highest), (low, high) = log_image_range, log_field_range
    span = highest - lowest
    if high - low <= span and max(abs(low), abs(high)) <= MOST_DRIFT * span:
        return None
    return (
        f"ln of the field goes from {low:.3g} to {high:.3g} inside the mask, beyond what the "
        f"image's own logarithms span there ({lowest:.3g} to {highest:.3g}): it is no bias field; "
        "look at mask and histogram_sharpening"
    )
