"""Whether a mask that a program made can carry a solve: one check for every automatic mask."""

from __future__ import annotations

import math

import jax
import numpy as np

from n4ax_bids.core.plan import Plan
from n4ax_bids.core.remarks import few_samples, n_points
from n4ax_bids.core.threshold import otsu_threshold

FEW = 8
"""A grid with this many samples for each control point is large enough to blame a mask that leaves
fewer samples than control points; on a smaller one any mask may."""

SMALLEST_SHARE = 0.005
"""of the samples; a brain in a field of view of 44 cm still fills 0.9 %"""

MOST_LEFT_OUT = 4.0
"""samples of an object outside the mask for each one inside it; real images have up to 2.5"""

BRIGHTEST = 4.0
"""times the intensity of an object that is larger than the mask; real images have up to 3.0"""

_MOST_SAMPLES = 1 << 18  # as many tell what is left out as well as all of them


def check_automatic_mask(
    image: jax.Array | np.ndarray, mask: jax.Array | np.ndarray, plan: Plan, name: str = "Otsu's"
) -> str | None:
    """Check an automatic mask's share of the image and its number of samples.

    A few very bright voxels can decide an automatic threshold. The mask then holds them and
    leaves the object out, and the field fits nothing. Whether an object is left out is found
    by splitting the samples outside the mask once more, by Otsu's threshold.

    Parameters
    ----------
    image : array of the plan's shape
    mask : bool array like it
    plan : Plan of the solve, whose samples count
    name : of the method, for the message

    Returns
    -------
    A warning of one sentence, or None

    Raises
    ------
    ValueError
        If the mask is empty or constant, or leaves fewer samples than the first level has control
        points although the grid has many more.
    """
    values, inside = _samples(image, mask, plan)
    n, size, points = int(np.count_nonzero(inside)), inside.size, n_points(plan)
    found = f"{name} mask holds {n} of {size} samples"
    if n < points and size >= FEW * points:
        raise ValueError(
            f"{found}, fewer than the {points} control points of the first level: a few very "
            "bright voxels may have decided it; expected another mask or a smaller shrink factor"
        )
    if n and size >= FEW * points and not values[inside].min() < values[inside].max():
        raise ValueError(
            f"{found}, all of one intensity ({values[inside].flat[0]:g}); expected another mask"
        )
    if n < points:
        return few_samples(n, plan)
    left_out, brightness = _left_out(values, inside)
    if left_out > MOST_LEFT_OUT * n or (left_out > n and brightness > BRIGHTEST):
        return (
            f"{found} and leaves out an object of {left_out} that is {brightness:.1f} times "
            "darker: a few very bright voxels may have decided it; look at the result, or use "
            "another mask"
        )
    if n < SMALLEST_SHARE * size:
        return f"{found} ({100 * n / size:.2g} %); look at the result, or use another mask"
    return None


def _samples(image, mask, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples of an image, float32, and of its mask, on the host."""
    on_host = not isinstance(image, jax.Array) or next(iter(image.devices())).platform == "cpu"
    values, inside = (np.asarray(array) if on_host else array for array in (image, mask))
    values = np.asarray(plan.sample(values, plan.image_start), np.float32)
    return values, np.asarray(plan.sample(inside, plan.image_start), bool)


def _left_out(values: np.ndarray, inside: np.ndarray) -> tuple[int, float]:
    """Return how many samples outside the mask are an object, and how much darker it is."""
    step = max(1, math.ceil((values.size / _MOST_SAMPLES) ** (1 / values.ndim)))
    thinned = (slice(None, None, step),) * values.ndim
    part, chosen = values[thinned], inside[thinned]
    rest, bright = part[~chosen], part[chosen]
    rest = rest[np.isfinite(rest)]
    if not (rest.size and bright.size):
        return 0, 1.0
    try:
        object_there = rest[rest > otsu_threshold(rest)]
    except ValueError:  # no two classes in float32
        return 0, 1.0
    if not object_there.size:
        return 0, 1.0
    darker = float(np.median(object_there))
    brightness = float(np.median(bright)) / darker if darker > 0 else 1.0
    return round(object_there.size * values.size / part.size), brightness
