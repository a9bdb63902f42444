"""The tissue in a stack of sections: one Otsu threshold for each section, holes filled.

The smoothing is compiled here, the morphology in `plane_words`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.arguments import is_among, shown
from n4ax_bids.core.arrays import as_array, describe_odd, not_finite
from n4ax_bids.core.devices import is_on_gpu
from n4ax_bids.core.plane_words import LANES, closed, filled, packed, unpacked
from n4ax_bids.core.stack.boundaries import section_bounds
from n4ax_bids.core.threshold import best_split, counts_between, counts_on_device
from n4ax_bids.options.base import number, whole

N_BINS = 256
FEWEST = 100
"""positive voxels in a section; with fewer, no threshold is sought and all of it is tissue"""
TRUNCATE = 4.0
"""the Gaussian ends this many standard deviations from its centre, as in SciPy"""
MOST = 1 << 22
"""voxels that are smoothed at a time; the least is as many planes as a word has"""


def compute_tissue_mask(
    vol: jax.Array | np.ndarray,
    *,
    smoothing_sigma: float = 2.0,
    smoothing_sigma_z: float = 1.0,
    n_serial_slices: int | Sequence[int] | None = 1,
    closing_radius: int = 3,
    z_closing_sections: int = 2,
    edge: Literal["replicate", "background"] = "replicate",
) -> jax.Array | np.ndarray:
    """Return which voxels of a stack are tissue.

    Each section is smoothed on its own and split by Otsu's threshold of its positive values. Then
    holes are filled and gaps closed in each plane, and at last gaps are closed along Z. A section
    with fewer than 100 positive voxels is tissue throughout; one whose positive values are equal
    has no tissue.

    Parameters
    ----------
    vol : array (Z, Y, X), intensities
    smoothing_sigma, smoothing_sigma_z : standard deviation of the Gaussian in Y and X, and in Z,
        voxels; 0 = no smoothing
    n_serial_slices : number of sections, or the first plane of each; None if every plane is one
    closing_radius : radius of the disk that closes gaps in each plane, pixels; 0 = none
    z_closing_sections : half length of the element that closes gaps along Z, planes; 0 = none.
        Only with more than one section.
    edge : what lies beyond the first and the last plane when gaps along Z are closed: copies of
        them, or "background", which can remove tissue from as many planes as the half length

    Returns
    -------
    bool array like `vol`; a jax array if `vol` is one, else numpy

    Raises
    ------
    TypeError, ValueError
        If `vol` is no array of three axes or holds values that are not finite, or another
        argument is out of range.
    """
    array: Any = as_array(vol, "vol")
    if array is None or array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"vol has shape {getattr(array, 'shape', None)}; expected (planes, rows, columns)"
        )
    sigma = _at_least_0("smoothing_sigma", number("smoothing_sigma", smoothing_sigma))
    sigma_z = _at_least_0("smoothing_sigma_z", number("smoothing_sigma_z", smoothing_sigma_z))
    radius = int(_at_least_0("closing_radius", whole("closing_radius", closing_radius)))
    reach = int(_at_least_0("z_closing_sections", whole("z_closing_sections", z_closing_sections)))
    if not is_among(edge, ("replicate", "background")):
        raise ValueError(f"edge is {shown(edge)}; expected 'replicate' or 'background'")
    bounds = section_bounds(array.shape[0], n_serial_slices)
    on_device = isinstance(array, jax.Array)
    parts = [
        _of_section(array[start:stop], (sigma_z, sigma, sigma), radius, on_device, start)
        for start, stop in bounds
    ]
    xp = jnp if on_device else np
    mask = parts[0] if len(parts) == 1 else xp.concatenate(parts)
    if len(bounds) > 1 and reach:
        mask = _closed_along_z(mask, reach, edge == "replicate", xp)
    return mask


def _at_least_0(name: str, value: float) -> float:
    if not 0 <= value < 1e4:
        raise ValueError(f"{name} is {shown(value)}; expected a number from 0 to 10000")
    return value


def _of_section(
    section: Any, sigmas: tuple[float, ...], radius: int, on_device: bool, start: int
) -> Any:
    """Return the mask of one section, on the host unless `on_device`."""
    xp = jnp if on_device else np
    chunks, n, low, high = _smoothed(section, tuple(_gaussian(each) for each in sigmas), on_device)
    if not (np.isfinite(high) and np.isfinite(low)) and n:
        _require_finite(section, start)
    if n < FEWEST:
        return xp.ones(section.shape, bool)
    if low == high:
        return xp.zeros(section.shape, bool)
    threshold = _threshold(chunks, low, high)
    masks = [_filled_and_closed(chunk, threshold, radius) for chunk in chunks]
    return xp.concatenate([mask if on_device else np.asarray(mask) for mask in masks])


def _require_finite(section: Any, start: int) -> None:
    odd = not_finite(section)
    if odd.any():
        where = describe_odd(np.asarray(section), odd)
        raise ValueError(
            f"vol has {where} of the section that begins at plane {start}; expected "
            "finite values (set them to 0)"
        )


def _gaussian(sigma: float) -> tuple[float, ...]:
    """Return the half of a Gaussian's weights that begins at its centre, as in SciPy."""
    if sigma <= 0:
        return (1.0,)
    offset = np.arange(int(TRUNCATE * sigma + 0.5) + 1)
    weights = np.exp(-0.5 * (offset / sigma) ** 2)
    return tuple((weights / (2 * weights.sum() - weights[0])).tolist())


def _smoothed(
    section: Any, halves: tuple[tuple[float, ...], ...], on_device: bool
) -> tuple[list[Any], int, np.float32, np.float32]:
    """Smooth a section, a few planes at a time.

    Returns
    -------
    chunks : float32 arrays of consecutive planes
    n, low, high : number, minimum and maximum of the positive values; NaN if a value is NaN
    """
    n_planes, reach = section.shape[0], len(halves[0]) - 1
    height = max(LANES, MOST // max(1, section[0].size) // LANES * LANES)
    height = min(height, n_planes)
    chunks, found = [], []
    for start in range(0, n_planes, height):
        n = min(height, n_planes - start)
        # The last chunk is filled up, so that all of them share one program.
        place = _reflected(np.arange(start - reach, start + height + reach), n_planes)
        with np.errstate(over="ignore"):
            values = section[place].astype(np.float32)
        chunk, *numbers = _smoothed_chunk(values, halves, n)
        chunks.append(chunk[:n] if on_device else np.asarray(chunk)[:n])
        found.append([float(number) for number in numbers])
    n_positive, lows, highs = np.array(found).T
    low = np.float32(np.inf if np.isinf(lows).all() else lows.min())
    return chunks, int(n_positive.sum()), low, np.float32(highs.max())


def _reflected(place: np.ndarray, n: int) -> np.ndarray:
    """Return the index that a place beyond the ends of an axis reflects: d c b a | a b c d."""
    place = place % (2 * n)
    return np.where(place < n, place, 2 * n - 1 - place)


@partial(jax.jit, static_argnums=1)
def _smoothed_chunk(
    values: jax.Array, halves: tuple[tuple[float, ...], ...], n: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Smooth planes that have their neighbours on both sides; count the first n of them."""
    reach = len(halves[0]) - 1
    values = _weighted(values, halves[0], 0, values.shape[0] - 2 * reach)
    for axis in (1, 2):
        values = jax.lax.optimization_barrier(_blurred(values, halves[axis], axis))
    counted = jnp.arange(len(values))[:, None, None] < n
    positive = counted & (values > 0)
    odd = jnp.isnan(jnp.where(counted, values, 0)).any()
    low = jnp.where(positive, values, jnp.inf).min()
    high = jnp.where(positive, values, 0).max()
    high = jnp.where(odd, jnp.nan, high)
    # A section of NaN alone has no positive value, and has to be refused as well.
    return values, positive.sum() + odd, low, high


def _blurred(values: jax.Array, half: tuple[float, ...], axis: int) -> jax.Array:
    """Sum shifted copies of an axis, whose ends are reflected (d c b a | a b c d | d c b a)."""
    reach, n = len(half) - 1, values.shape[axis]
    if reach == 0:
        return values
    place = _reflected(np.arange(-reach, n + reach), n)
    ends = (jnp.take(values, place[:reach], axis), jnp.take(values, place[reach + n :], axis))
    # Made once: otherwise XLA decides between margin and values anew for each shifted copy.
    padded = jax.lax.optimization_barrier(jnp.concatenate([ends[0], values, ends[1]], axis))
    return _weighted(padded, half, axis, n)


def _weighted(padded: jax.Array, half: tuple[float, ...], axis: int, n: int) -> jax.Array:
    """Sum shifted copies of an axis that has a margin at both ends."""
    reach = len(half) - 1

    def moved(offset: int) -> jax.Array:
        return jax.lax.slice_in_dim(padded, reach + offset, reach + offset + n, axis=axis)

    total = half[0] * moved(0)
    for offset in range(1, reach + 1):
        total = total + half[offset] * (moved(-offset) + moved(offset))
    return total


def _threshold(chunks: list[Any], low: np.float32, high: np.float32) -> np.float32:
    """Return Otsu's threshold of the positive values: the centre of the bin left of the cut."""
    edges = np.linspace(low, high, N_BINS + 1).astype(np.float32)
    edges[-1] = np.nextafter(high, np.float32(np.inf))  # so that the maximum is counted
    counts = np.zeros(N_BINS, np.int64)
    for chunk in chunks:
        if is_on_gpu(chunk):
            counts += np.asarray(counts_on_device(jnp.maximum(chunk, low), edges))
            counts[0] -= int((chunk < low).sum())  # what is not positive
        else:
            values = np.asarray(chunk).ravel()
            counts += counts_between(values if values.min() >= low else values[values > 0], edges)
    left = best_split(counts, edges)
    return np.float32((edges[left].astype(np.float64) + edges[left + 1]) / 2)


def _filled_and_closed(smooth: Any, threshold: np.float32, radius: int) -> jax.Array:
    """Fill the holes of each plane above the threshold, then close gaps by a disk."""
    # Compiled one by one, so that sections of different length share the steps on words.
    words = packed(smooth, threshold)
    words = filled(words, is_on_gpu(words))
    if radius:
        words = closed(words, radius)
    return unpacked(words, smooth.shape[0])


def _closed_along_z(mask: Any, reach: int, replicate: bool, xp: Any) -> Any:
    """Close gaps of up to 2·reach planes."""
    n = mask.shape[0]
    if replicate:
        mask = xp.pad(mask, ((reach, reach), (0, 0), (0, 0)), mode="edge")
    closed = ~_spread_along_z(~_spread_along_z(mask, reach, False, xp), reach, True, xp)
    return closed[reach : reach + n] if replicate else closed


def _spread_along_z(mask: Any, reach: int, beyond: bool, xp: Any) -> Any:
    """Return where a plane within `reach` is True, or lies outside and `beyond` is True."""
    padded = xp.pad(mask, ((reach, reach), (0, 0), (0, 0)), constant_values=beyond)
    total = mask
    for offset in range(2 * reach + 1):
        total = total | padded[offset : offset + mask.shape[0]]
    return total
