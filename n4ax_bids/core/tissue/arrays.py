"""The blocks of an image as arrays on the device, padded so that images share programs."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.tissue.blocks import Blocks
from n4ax_bids.core.tissue.equations import Arrays
from n4ax_bids.core.tissue.mixture import N_NOISES
from n4ax_bids.core.tissue.spline import Spline
from n4ax_bids.core.tissue.start import APART, COARSE

PAD = 16
"""blocks on each axis are padded to a multiple of this"""
REGION = 25.0
"""mm, size of the regions of the misfit"""


def arrays_of(blocks: Blocks, h: np.ndarray, spline: Spline, knots: float) -> Arrays:
    """Return the arrays of a solve.

    Parameters
    ----------
    blocks : of the image
    h : array like `blocks.x`, weights
    spline : of the field
    knots : distance of its knots, mm; areas with shares of their own are half as wide
    """
    box = spline.box
    sizes = [high - low for low, high in zip(spline.lower, spline.upper, strict=True)]
    padded = [-(-size // PAD) * PAD for size in sizes]

    def grown(values: np.ndarray) -> np.ndarray:
        more = [(0, to - size) for size, to in zip(sizes, padded, strict=True)]
        return np.pad(values[box], more)

    def tall(matrix: np.ndarray, to: int) -> jax.Array:
        return jnp.asarray(np.pad(matrix, ((0, to - len(matrix)), (0, 0))), jnp.float32)

    steps = _steps(blocks.mm, knots)
    counted = blocks.nu[h > 0]
    edges = np.quantile(counted, np.linspace(0, 1, N_NOISES + 1)[1:-1])
    bins = np.searchsorted(edges, counted)
    n = np.bincount(bins, minlength=N_NOISES)
    nu = np.bincount(bins, counted, N_NOISES) / np.maximum(n, 1)
    return Arrays(
        x=jnp.asarray(grown(blocks.x), jnp.float32),
        h=jnp.asarray(grown(h), jnp.float32),
        ok=jnp.asarray(grown(blocks.ok)),
        noise_bin=jnp.asarray(np.searchsorted(edges, grown(blocks.nu)), jnp.int32),
        nu=jnp.asarray(nu, jnp.float32),
        listed=jnp.asarray(_listed(grown(h)), jnp.int32),
        bases=tuple(tall(each, to) for each, to in zip(spline.bases, padded, strict=True)),
        penalty=jnp.asarray(spline.penalty, jnp.float64),
        area=jnp.asarray(_areas(padded, steps), jnp.int32),
        smoothing=tuple(
            jnp.asarray(_smoothing(-(-to // step)), jnp.float32)
            for to, step in zip(padded, steps, strict=True)
        ),
        cells=tuple(
            tall(_regions(size, mm), to)
            for size, mm, to in zip(sizes, blocks.mm, padded, strict=True)
        ),
    )


def _listed(h: np.ndarray) -> np.ndarray:
    """Return the flat indices of blocks with a weight, padded so that images share programs."""
    found = np.flatnonzero(h)
    step = max(1024, 1 << max(0, h.size.bit_length() - 4))
    return np.pad(found, (0, -len(found) % step), constant_values=h.size)


def _regions(n: int, mm: float) -> np.ndarray:
    """Return which region each block of an axis lies in: (n, regions), 0 and 1."""
    n_regions = max(1, round(n * mm / REGION))
    return np.eye(n_regions)[np.arange(n) * n_regions // n]


def _steps(mm: Sequence[float], knots: float) -> list[int]:
    """Return how many blocks an area has on each axis."""
    return [max(1, round(knots / 2 / each)) for each in mm]


def _areas(sizes: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """Return the number of the area that each block lies in."""
    own = np.indices(sizes, np.int32, sparse=True)
    each = [at // step for at, step in zip(own, steps, strict=True)]
    counts = [-(-n // step) for n, step in zip(sizes, steps, strict=True)]
    return np.ravel_multi_index(np.broadcast_arrays(*each), counts)


def _smoothing(n: int) -> np.ndarray:
    """Return the matrix that averages each area with its two neighbours: (n, n)."""
    return (np.eye(n) + (np.eye(n, k=1) + np.eye(n, k=-1)) / 2) / 2


def strides_of(mm: Sequence[float]) -> tuple[tuple[int, int], ...]:
    """Return the steps of the start on each axis, in blocks and in such steps."""
    steps = [max(1, round(COARSE / each)) for each in mm]
    return tuple((s, max(1, round(APART / (each * s)))) for s, each in zip(steps, mm, strict=True))
