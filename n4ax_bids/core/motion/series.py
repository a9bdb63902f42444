"""The motion of a whole series: which volumes can be registered, one or two passes, the mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from n4ax_bids.core.motion.register import CHUNK_BYTES, Motion, register
from n4ax_bids.core.motion.reslice import finite, reslice
from n4ax_bids.core.motion.samples import FEWEST, model_of
from n4ax_bids.core.motion.smoothing import Grid
from n4ax_bids.options.realign import RealignOptions

ROUGH = 1
"""steps with all samples in the first pass of two; the second pass starts where they end"""
MOST_IN_MEAN = 48
"""volumes, spread evenly over the series, that make the mean to which all are realigned in the
second pass; the noise of a mean of so many adds a hundredth to the error of a volume"""
VolumeOf = Callable[[int], np.ndarray]


class Realignment(NamedTuple):
    """The motion of every volume of a series."""

    motion: Motion
    """a row for each volume; without motion for those that are flagged"""
    reference: np.ndarray
    """(I, J, K), the image of the last pass, on whose grid the motion is counted"""
    flagged: Mapping[int, str]
    """volumes that were not registered, and why"""


def flaws(volume_of: VolumeOf, n_volumes: int) -> dict[int, str]:
    """Find the volumes that cannot be registered: constant ones, and those with odd values.

    As many voxels as are not finite in every volume are taken for a mask, and are no flaw.
    """
    found: dict[int, str] = {}
    n_odd = np.zeros(n_volumes, np.int64)
    for i in range(n_volumes):
        volume = volume_of(i)
        values = volume[np.isfinite(volume)]
        n_odd[i] = volume.size - values.size
        if not values.size:
            found[i] = "all of its voxels are NaN or infinite"
        elif values.min() == values.max():
            found[i] = f"all of its voxels are {values[0]:g}"
    if n_odd.any():
        whole = [i for i in range(n_volumes) if i not in found]
        masked = min((n_odd[i] for i in whole), default=0)
        for i in whole:
            if n_odd[i] > masked:
                found[i] = f"{n_odd[i] - masked} more voxels than in others are NaN or infinite"
    return dict(sorted(found.items()))


def first_reference(
    volume_of: VolumeOf, n_volumes: int, options: RealignOptions, flagged: Mapping[int, str]
) -> np.ndarray:
    """Return the reference of the first pass: a volume, or the mean of those that are whole.

    Raises
    ------
    ValueError
        If it is flagged, or there is no such volume.
    """
    good = [i for i in range(n_volumes) if i not in flagged]
    if options.reference == "mean":
        total = sum(finite(volume_of(i)).astype(np.float64) for i in good)
        return np.asarray(total / len(good), np.float32)
    chosen = n_volumes // 2 if options.reference == "middle" else int(options.reference)
    if chosen >= n_volumes:
        raise ValueError(f"reference is {chosen}; expected a volume below {n_volumes}")
    if chosen in flagged:
        raise ValueError(
            f"volume {chosen} is the reference, and {flagged[chosen]}; expected another "
            f"reference, such as {good[0]}"
        )
    return finite(volume_of(chosen))


def estimate(
    volume_of: VolumeOf,
    n_volumes: int,
    grid: Grid,
    options: RealignOptions,
    *,
    reference: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    known_flaws: Mapping[int, str] = {},
) -> Realignment:
    """Estimate the motion of a series.

    Parameters
    ----------
    volume_of : returns a volume (I, J, K) by its number
    n_volumes : int
    grid : of the volumes
    options : RealignOptions
    reference : array (I, J, K) on the same grid, in place of a volume of the series
    weight : array like it, in proportion to 1/sd
    known_flaws : volumes that are not registered, and why, such as those that a file lacks

    Raises
    ------
    ValueError
        If the reference is flagged, or constant, or no volume can be registered.
    """
    flagged = {**flaws(volume_of, n_volumes), **known_flaws}
    good = [i for i in range(n_volumes) if i not in flagged]
    if not good:
        raise ValueError(f"none of the {n_volumes} volumes can be registered: {flagged[0]}")

    def usable(i: int) -> np.ndarray:
        return finite(volume_of(i))

    if reference is None:
        reference = first_reference(volume_of, n_volumes, options, flagged)
    first, twice = model_of(reference, grid, options, weight), options.register_to_mean
    twice = twice and len(good) > 1
    rows = spread(len(good), MOST_IN_MEAN) if twice else np.arange(len(good))
    some = [good[row] for row in rows]
    found = register(usable, some, first, grid, options, n_fine=ROUGH if twice else None)
    if twice:
        reference = mean_of(usable, some, found, grid, options)
        second = model_of(reference, grid, options, weight, size=first.g.size)
        start = np.zeros((len(good), 6))
        start[rows] = found.q
        again = register(usable, good, second, grid, options, start=start)
        before = again.residual_before.copy()
        before[rows] = np.maximum(found.residual_before, before[rows])
        found = again._replace(residual_before=before)
    lost = [i for i, fine in zip(good, found.registered, strict=True) if not fine]
    if len(lost) == len(good):
        raise ValueError(
            f"none of the {n_volumes} volumes can be registered: fewer than {FEWEST} samples are "
            "within them; expected a larger volume, or a smaller separation or fwhm"
        )
    flagged |= {i: "fewer than 32 samples were left within it" for i in lost}
    return Realignment(_spread(found, good, n_volumes), reference, dict(sorted(flagged.items())))


def spread(n: int, most: int) -> np.ndarray:
    """Return all of n rows, or `most` of them at equal distances, with the first and the last."""
    found: np.ndarray = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
    return found


def mean_of(
    volume_of: VolumeOf,
    which: Sequence[int],
    found: Motion,
    grid: Grid,
    options: RealignOptions,
) -> np.ndarray:
    """Return the mean of realigned volumes, each voxel over the volumes that have it.

    Parameters
    ----------
    volume_of : returns a volume (I, J, K) by its number
    which : numbers of the volumes
    found : their motion; its rows belong to `which`, or to all volumes of the series
    grid : of the volumes
    options : RealignOptions

    Returns
    -------
    array (I, J, K), float32
    """
    total, n = np.zeros(grid.shape), np.zeros(grid.shape)
    rows = which if len(found.q) > len(which) else range(len(which))
    pairs = zip(rows, which, strict=True)
    usable = [(row, number) for row, number in pairs if found.registered[row]]
    degree, boundary = options.degree, options.boundary
    numbers, q = [number for _, number in usable], found.q[[row for row, _ in usable]]
    for _, values, valid in reslice(volume_of, numbers, q, grid, degree=degree, boundary=boundary):
        total += values
        n += valid
    return np.asarray(total / np.maximum(n, 1), np.float32)


def _spread(found: Motion, good: list[int], n_volumes: int) -> Motion:
    """Give every volume a row."""
    spread = []
    for name, part in found._asdict().items():
        whole = np.zeros((n_volumes, *part.shape[1:]), part.dtype)
        if name in ("scale", "residual_before", "residual_after"):
            whole[:] = 1 if name == "scale" else np.nan
        whole[good] = part
        spread.append(whole)
    return Motion(*spread)


def no_field(given: Any, options: RealignOptions) -> NoReturn:
    """Refuse to estimate a bias field: options of realignment describe none.

    Raises
    ------
    ValueError
        Always.
    """
    raise ValueError(
        "options are RealignOptions, which describe motion and no bias field; expected those of "
        "N4 or of the zero-shot method (n4ax_bids.realign takes these, and a series)"
    )


def memory(options: RealignOptions, shape: Sequence[int], zooms: Sequence[float]) -> int:
    """Return the bytes of a realignment, without those of the series itself."""
    return 400 * math.prod(shape[:3]) + CHUNK_BYTES
