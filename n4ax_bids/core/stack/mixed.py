"""Samples that mix tissue with what is beside it: means of blocks that an edge divides.

Such a mean lies between the two intensities. N4 takes the difference for a part of the field,
which does harm where the knots are about as close as the samples. On the host, plane by plane.
"""

from __future__ import annotations

import numpy as np

LEAST = 0.03
"""ln of intensity; from sample to sample, fields and the noise of means change by less"""
TIMES = 3.0
"""an edge exceeds the median step of its axis so many times"""
MOST = 1 << 18
"""steps of which the median is taken"""


def mixed(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return which samples lie on an edge.

    On one axis at least, such a sample is brighter than one of its neighbours and darker than the
    other. Both steps are larger than `LEAST`, than `TIMES` times the median step inside the mask,
    and than `TIMES` times the next step on one side: a field that is steep throughout is no edge.
    If most samples of the mask seem to lie on an edge, none is returned.

    Parameters
    ----------
    image : float32 array (planes, rows, columns), means of blocks
    mask : bool array like `image`

    Returns
    -------
    bool array like `image`
    """
    with np.errstate(all="ignore"):
        logs = np.log(np.maximum(image, np.finfo(np.float32).tiny))
    least = [_least(logs, mask, axis) for axis in range(3)]
    found = np.zeros(image.shape, bool)
    for k, (plane, its) in enumerate(zip(logs, found, strict=True)):
        if 0 < k < len(logs) - 1:
            its |= _is_between(_steps(logs, k), least[0])[0]
        # The plane's transpose makes each axis the first one.
        for part, marks, size in ((plane, its, least[1]), (plane.T, its.T, least[2])):
            if len(part) > 2:
                marks[1:-1] |= _is_between(_steps(part), size)
    if 2 * np.count_nonzero(found & mask) > np.count_nonzero(mask):
        found[:] = False
    return found


def _least(logs: np.ndarray, mask: np.ndarray, axis: int) -> float:
    """Return the smallest step of an axis that makes an edge."""
    logs, mask = (np.moveaxis(array, axis, 0) for array in (logs, mask))
    # Some lines along the axis are enough.
    every = max(1, round((logs.size / MOST) ** 0.5))
    logs, mask = (array[:, every // 2 :: every, every // 2 :: every] for array in (logs, mask))
    both = mask[1:] & mask[:-1]
    if not both.any():
        return np.inf
    steps = np.abs(logs[1:] - logs[:-1])[both]
    return max(LEAST, TIMES * float(np.median(steps)))


def _steps(logs: np.ndarray, at: int | None = None) -> np.ndarray:
    """Return steps along the first axis, or the four near `at`; infinite ones beyond the ends."""
    first, last = (0, len(logs)) if at is None else (max(0, at - 2), min(len(logs), at + 3))
    steps = np.full((last - first + 1, *logs.shape[1:]), np.inf, np.float32)
    np.subtract(logs[first + 1 : last], logs[first : last - 1], out=steps[1:-1])
    if at is None:
        return steps
    return steps[at - first - 1 : at - first + 3]


def _is_between(steps: np.ndarray, least: float) -> np.ndarray:
    """Return where the steps to a value and on from it go the same way and both make an edge."""
    further, before, after, beyond = steps[:-3], steps[1:-2], steps[2:-1], steps[3:]
    size = np.minimum(np.abs(before), np.abs(after))
    limit = np.maximum(least, TIMES * np.minimum(np.abs(further), np.abs(beyond)))
    found: np.ndarray = (size > limit) & ((before > 0) == (after > 0))
    return found
