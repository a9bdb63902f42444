"""Whether an automatic mask is usable for a solve: one check for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.devices import is_on_gpu
from n4ax_bids.core.n4.plan import Plan
from n4ax_bids.core.n4.remarks import few_samples, n_points
from n4ax_bids.core.threshold import otsu_threshold

FEW = 8
"""samples for each control point; on a larger grid, a mask that leaves fewer samples than control
points is to blame, on a smaller one the grid may be"""

SMALLEST_SHARE = 0.005
"""share of the samples; a brain in a field of view of 44 cm still fills 0.9 %"""

BRIGHTEST = 4.0
"""largest ratio of the mask's intensity to that of a larger object outside it; real images have at
most 3.2"""

SEPARATED = 0.8
"""share of the variance between an object and darker voxels; noise split in two has 0.64 to 0.75,
a head in air 0.83 to 0.93"""

LEAST_SEPARATED, VALLEY = 0.6, 0.3
"""A lower share is enough if there is a valley between the two: the density of samples half way
between their medians, divided by the lower density at a median, is below the second number. Noise
split in two has no valley; an object whose intensities vary by a field and several tissues has."""

_MOST_SAMPLES = 1 << 15  # outside the mask; more do not improve the check


def check_automatic_mask(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray,
    plan: Plan,
    name: str = "Otsu's",
    cause: str = ": a few very bright voxels may have decided it",
) -> str | None:
    """Check an automatic mask's share of the image and its number of samples.

    A few very bright voxels can determine an automatic threshold. The mask then contains only
    them and misses the object, and the field is meaningless. To detect a missed object, Otsu's
    threshold splits the samples outside the mask once more.

    Parameters
    ----------
    image : array of the plan's shape
    mask : bool array like it
    plan : Plan of the solve; only its samples are checked
    name : name of the mask, for the message
    cause : possible reason for an odd mask, for the message

    Returns
    -------
    A warning of one sentence, or None

    Raises
    ------
    ValueError
        If the mask is empty or constant, or leaves fewer samples than the first level has control
        points although the grid has many more.
    """
    seen = _seen(image, mask, plan)
    n, size, points = seen.n, math.prod(plan.sample_shape), n_points(plan)
    found = f"{name} mask holds {n} of {size} samples"
    if n < points and size >= FEW * points:
        raise ValueError(
            f"{found}, fewer than the {points} control points of the first level{cause}; "
            "expected another mask or a smaller shrink factor"
        )
    if n and size >= FEW * points and not seen.low < seen.high:
        remedy = "another mask" if seen.highest > 0 else "values above 0, and the image has none"
        raise ValueError(f"{found}, all of one intensity ({seen.low:g}); expected {remedy}")
    if n < points:
        return few_samples(n, plan)
    left_out = _left_out(seen, size)
    if left_out:
        return (
            f"{found} and leaves out an object of {left_out[0]} that is {left_out[1]:.1f} times "
            f"darker{cause}; look at the result, or use another mask"
        )
    if n < SMALLEST_SHARE * size:
        return f"{found} ({100 * n / size:.2g} %); look at the result, or use another mask"
    return None


class _Seen(NamedTuple):
    """What the check must know of the samples of an image and of its mask, on the host."""

    n: int
    """samples inside the mask"""
    low: float
    high: float
    """lowest and highest of them; infinite if there are none"""
    highest: float
    """of all samples"""
    thinned: np.ndarray
    """float32, every few samples on each axis"""
    thinned_inside: np.ndarray
    """which of these are inside the mask"""
    median: Callable[[], float]
    """returns the median inside the mask; not always needed, and slow"""


def _seen(image: Any, mask: Any, plan: Plan) -> _Seen:
    if is_on_gpu(image):
        *there, values, inside = _survey(image, mask, plan=plan)
        n, low, high, highest, part, chosen = jax.device_get(there)
        return _Seen(n, low, high, highest, part, chosen, lambda: float(_median(values, inside)))
    # Copied once, because each later pass over a view would touch the whole image.
    values, inside = (
        np.array(plan.sample(np.asarray(array), plan.image_start).T, dtype, order="C")
        for array, dtype in ((image, np.float32), (mask, bool))
    )
    bright = values[inside]
    thinned = _thinned(values.shape)
    return _Seen(
        bright.size,
        bright.min(initial=np.inf),
        bright.max(initial=-np.inf),
        values.max(),
        values[thinned],
        inside[thinned],
        lambda: float(np.median(bright)),
    )


def _thinned(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return which samples are looked at outside the mask."""
    step = max(1, math.ceil((math.prod(shape) / _MOST_SAMPLES) ** (1 / len(shape))))
    return (slice(None, None, step),) * len(shape)


@partial(jax.jit, static_argnames="plan")
def _survey(image: jax.Array, mask: jax.Array, *, plan: Plan) -> tuple[jax.Array, ...]:
    """Return the first numbers and arrays of `_Seen`, and the samples, on their device."""
    values = plan.sample(image, plan.image_start).T.astype(jnp.float32)
    inside = plan.sample(mask, plan.image_start).T != 0
    infinity, thinned = jnp.float32(np.inf), _thinned(values.shape)
    return (
        jnp.count_nonzero(inside),
        jnp.where(inside, values, infinity).min(),
        jnp.where(inside, values, -infinity).max(),
        values.max(),
        values[thinned],
        inside[thinned],
        values,
        inside,
    )


@jax.jit
def _median(values: jax.Array, inside: jax.Array) -> jax.Array:
    """Return the median of the values inside a mask, as numpy's.

    Sorting millions of values takes longer than to find two of them digit by digit: of each, the
    digits of the largest binary number are kept below which there are few enough values.
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    top = jnp.uint32(1 << 31)
    ordered = jnp.where(bits >= top, ~bits, bits | top)  # in the order of the values
    n = jnp.count_nonzero(inside)
    smaller = jnp.stack([(n - 1) // 2, n // 2])  # values before the two in the middle

    def next_digit(i: jax.Array, found: jax.Array) -> jax.Array:
        tried = found | (top >> i.astype(jnp.uint32))
        counts = [jnp.count_nonzero(inside & (ordered < one)) for one in tried]
        return jnp.where(jnp.stack(counts) <= smaller, tried, found)

    found = jax.lax.fori_loop(0, 32, next_digit, jnp.zeros(2, jnp.uint32))
    bits = jnp.where(found >= top, found ^ top, ~found)
    return jax.lax.bitcast_convert_type(bits, jnp.float32).mean()


def _left_out(seen: _Seen, size: int) -> tuple[int, float] | None:
    """Find an object outside the mask that is larger and much darker than the mask.

    The samples outside are split twice, because the first split may find only the dim part of the
    masked object. Return the number of samples and how many times darker they are.
    """
    part = seen.thinned
    rest, n_found = part[~seen.thinned_inside & np.isfinite(part)], 0.0
    for _ in range(2):
        upper, rest, separated = _split(rest)
        if not (upper.size and seen.n):
            return None
        n_found += upper.size * size / part.size
        if n_found > seen.n:
            darker = float(np.median(upper))
            brightness = seen.median() / darker if darker > 0 else 1.0
            if brightness <= BRIGHTEST:  # it is the mask's own tissue
                return None
            if separated:
                return round(n_found), brightness
    return None


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Split values by Otsu's threshold; return upper, lower, and whether these are two objects."""
    nothing = values[:0]
    if not values.size:
        return nothing, values, False
    try:
        above = values > otsu_threshold(values)
    except ValueError:  # no two classes in float32
        return nothing, values, False
    upper, lower = values[above], values[~above]
    if not (upper.size and lower.size):
        return nothing, values, False
    wide = values.astype(np.float64)
    share, gap = above.mean(), wide[above].mean() - wide[~above].mean()
    separation = share * (1 - share) * gap**2 / wide.var()
    apart = separation >= SEPARATED
    return upper, lower, bool(apart or (separation >= LEAST_SEPARATED and _valley(upper, lower)))


def _valley(upper: np.ndarray, lower: np.ndarray) -> bool:
    """Return whether few values lie half way between the medians of two parts."""
    low, high = float(np.median(lower)), float(np.median(upper))
    reach = (high - low) / 6

    def density(centre: float) -> int:
        return sum(
            int(np.count_nonzero(np.abs(part - centre) <= reach)) for part in (upper, lower)
        )

    return density((low + high) / 2) < VALLEY * min(density(low), density(high))
