"""Otsu's threshold, in the same bins as in ITK's `OtsuThresholdImageFilter`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.arguments import require_count
from n4ax_bids.core.arrays import as_array, describe_odd, not_finite, without_mask
from n4ax_bids.core.devices import is_on_gpu

MARGIN = 100
"""ITK puts the histogram's end 1/100 of a bin above the maximum, so that this is counted."""

COPIES, TOGETHER = 256, 32
"""copies of the histogram on a GPU, so that its threads rarely wait for one another, and how many
neighbouring values share a copy"""

# Values binned at a time. Each step of numpy gives up Python's lock and takes it again, which
# other threads delay: so not too few of them.
_CHUNK = 1 << 17
_COUNTED = 8 * _CHUNK  # bins counted at a time: each count adds to a table of 65 thousand pairs


def otsu_threshold(image: jax.Array | np.ndarray, n_bins: int = 200, *, threads: int = 1) -> float:
    """Return the upper edge of the bin that splits the histogram best.

    That bin maximises the between-class variance w0 (m0 - m)² + w1 (m1 - m)² (Otsu 1979); of
    equal ones, the first is used. Bin edges are float32, as in ITK. Besides the image, a few
    hundred kB of memory are used.

    ITK treats variances that differ by less than 2.2e-17 as equal (`FloatAlmostEqual`), so that
    it returns one of the first bins for intensities below about 1e-6. Here the scale of an image
    makes no difference.

    Parameters
    ----------
    image : array of any shape; masked values of a numpy masked array are ignored
    n_bins : int, bins between the smallest and the largest value
    threads : int, threads of the host that count

    Returns
    -------
    float; for a constant image, its value

    Raises
    ------
    TypeError
        If `image` is not an array.
    ValueError
        If the image is empty or holds values that are not finite.
    """
    if image is None:
        raise TypeError("image is None; expected an array")
    require_count("n_bins", n_bins)
    require_count("threads", threads)
    image, hidden = without_mask(as_array(image, "image"))
    whole, image = image, image if hidden is None else image[~hidden]
    there = is_on_gpu(image)
    with np.errstate(over="ignore"):
        values = image.astype(np.float32) if there else np.asarray(image, np.float32)
    if not there:
        values = values.ravel(order="K")
    if values.size == 0:
        raise ValueError("image is empty; expected at least one voxel")
    ends: Any = jax.device_get(_ends(values)) if there else (values.min(), values.max())
    low, high = ends
    if not (np.isfinite(low) and np.isfinite(high)):
        odd = not_finite(whole) if hidden is None else not_finite(whole) & ~hidden
        odd = describe_odd(np.asarray(whole), odd)
        raise ValueError(f"image has {odd}; expected finite values in float32 (set it to 0 there)")
    if low == high:
        return float(low)
    bins = np.float32(n_bins)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        top = high + (high - low) / bins / np.float32(MARGIN)
        edges = low + np.arange(n_bins + 1, dtype=np.float32) * ((top - low) / bins)
    edges[-1] = top
    if not np.isfinite(edges).all() or edges[1] - low < np.finfo(np.float32).tiny:
        raise ValueError(f"image goes from {low} to {high}: too far or too near for float32 bins")
    counts: Any  # `sum` starts with the number 0
    if there:
        counts = np.asarray(counts_on_device(values, edges))
    elif threads == 1:
        counts = counts_between(np.asarray(values), edges)
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = np.array_split(values, threads)
            counts = sum(pool.map(partial(counts_between, edges=edges), parts))
    return float(edges[best_split(counts, edges) + 1])


def otsu_mask(
    image: jax.Array | np.ndarray, n_bins: int = 200, *, threads: int = 1
) -> jax.Array | np.ndarray:
    """Return which voxels are above Otsu's threshold.

    Parameters
    ----------
    image : array, any shape
    n_bins, threads : int

    Returns
    -------
    bool array like `image`, on its device; False throughout a constant image, and where a masked
    array is masked

    Raises
    ------
    TypeError, ValueError
        As `otsu_threshold`.
    """
    threshold = np.float32(otsu_threshold(image, n_bins, threads=threads))
    if isinstance(image, jax.Array):
        return image.astype(np.float32) > threshold
    image, hidden = without_mask(as_array(image, "image"))
    mask = np.asarray(image, np.float32) > threshold
    return mask if hidden is None else mask & ~hidden


def counts_between(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Count the values in [edge, next edge) exactly, although bins are found by multiplication."""
    n_bins = edges.size - 1
    scale = np.float32(n_bins) / (edges[-1] - edges[0])
    # The error of a position in bins: product and edges are rounded, and edges may be far from 0.
    doubt = (4 * n_bins + 2 * np.abs(edges).max() * scale) * np.finfo(np.float32).eps
    shift = np.minimum(np.float32(doubt), np.float32(0.5))
    position, moved = np.empty((2, _CHUNK), np.float32)
    small = np.min_scalar_type(n_bins)
    bins, other = np.empty(_COUNTED, small), np.empty(_CHUNK, small)
    counts = _Counts(n_bins, bins)
    for begin in range(0, values.size, _COUNTED):
        end = min(begin + _COUNTED, values.size)
        for start in range(begin, end, _CHUNK):
            chunk = values[start : min(start + _CHUNK, end)]
            now = slice(chunk.size)
            found = bins[start - begin :][now]
            np.subtract(chunk, edges[0], out=position[now])
            np.multiply(position[now], scale, out=position[now])
            for add, out in ((np.subtract, found), (np.add, other[now])):
                add(position[now], shift, out=moved[now])
                np.copyto(out, moved[now], casting="unsafe")
            odd = found != other[now]
            if doubt > shift or odd.any():
                unsure = np.flatnonzero(odd | (doubt > shift))
                found[unsure] = np.searchsorted(edges[1:-1], chunk[unsure], side="right")
        counts.add(end - begin)
    return counts.result()


class _Counts:
    """Counts of each number in a buffer that is filled repeatedly.

    Numbers of one byte are counted in pairs, which takes half as many steps.
    """

    def __init__(self, n_bins: int, numbers: np.ndarray) -> None:
        self._n_bins, self._numbers = n_bins, numbers
        self._single = np.zeros(max(n_bins, 256), np.int64)
        self._pairs = np.zeros((256, 256), np.int64)
        self._index = np.empty(numbers.size // 2, np.intp)

    def add(self, size: int) -> None:
        """Count the first numbers of the buffer."""
        n_pairs = size // 2 if self._numbers.itemsize == 1 else 0
        if n_pairs:
            index = self._index[:n_pairs]
            index[:] = self._numbers[: 2 * n_pairs].view(np.uint16)
            self._pairs += np.bincount(index, minlength=self._pairs.size).reshape(256, 256)
        rest = self._numbers[2 * n_pairs : size]
        self._single += np.bincount(rest, minlength=self._single.size)

    def result(self) -> np.ndarray:
        """Return the count of each number."""
        counts = self._single.copy()
        counts[:256] += self._pairs.sum(axis=0) + self._pairs.sum(axis=1)
        return counts[: self._n_bins]


@jax.jit
def _ends(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    return values.min(), values.max()


@jax.jit
def counts_on_device(values: jax.Array, edges: jax.Array | np.ndarray) -> jax.Array:
    """Return the counts of `counts_between`: bins found by multiplication, then corrected."""
    values, last = values.ravel(), edges.size - 2
    nearest = (values - edges[0]) * (last + 1) / (edges[-1] - edges[0])
    bins = jnp.clip(nearest.astype(jnp.int32), 0, last)
    bins = jnp.where(values < edges[bins], bins - 1, bins)
    bins = jnp.where((values >= edges[bins + 1]) & (bins < last), bins + 1, bins)
    copies = jnp.arange(values.size, dtype=jnp.int32) // TOGETHER % COPIES
    counts = jnp.zeros((COPIES, last + 1), jnp.int32).at[copies, bins].add(1)
    return counts.sum(axis=0)


def best_split(counts: np.ndarray, edges: np.ndarray) -> int:
    """Return the last bin of the lower class."""
    middle = (edges[:-1].astype(np.float64) + edges[1:]) / 2
    below, moment = np.cumsum(counts), np.cumsum(counts * middle)
    above, rest = below[-1] - below, moment[-1] - moment
    both = (below > 0) & (above > 0)
    variance = np.full(counts.size, -np.inf)
    variance[both] = moment[both] ** 2 / below[both] + rest[both] ** 2 / above[both]
    return int(np.argmax(variance))
