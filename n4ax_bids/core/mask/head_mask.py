"""The head, even under a strong field: Otsu's threshold and N4 in turn on a coarse copy.

Otsu's threshold of an image with a strong field finds the part near the coil. A field that is
estimated there and extrapolated brightens the rest, so that the next threshold finds more of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from n4ax_bids.core.field import LogField, sample
from n4ax_bids.core.mask.coarse import Coarse, above, coarse
from n4ax_bids.core.n4 import rows as voxels
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.n4.solve import solve
from n4ax_bids.core.threshold import otsu_threshold
from n4ax_bids.options import N4Options

BLOCK = 2.0
"""mm, size of a block of the coarse copy"""
SPACING = 3
"""blocks from one sample of the field to the next"""
MOST_SAMPLES = 64
"""samples on an axis; with this limit and `LISTED`, all images share one compiled program"""
LISTED = 7 << 12
"""length of the padded list of samples: 6 litres of head"""
MOST_ROWS = 1343
FEWEST_SAMPLES = 8
"""samples on an axis that an estimate needs"""
ROUNDS = N4Options(
    shrink_factor=1,
    n_iterations=(10, 10, 10, 10),
    over_relaxation=1.9,
    histogram_sharpening=(0.3, 0.01, 200),
)
"""The histogram's width is twice the usual one: the field is strong and the iterations are few."""
MOST_ROUNDS = 6
SETTLED = 0.015
"""share of the mask that may still change in the last round"""


class Head(NamedTuple):
    """A coarse copy of an image, the head in it and its field."""

    copy: Coarse
    corrected: np.ndarray
    """float32, the copy's values divided by the field"""
    log_field: np.ndarray
    """float32, ln b on the copy's blocks"""
    mask: np.ndarray
    """bool, on the copy's blocks"""
    otsu: np.ndarray
    """bool, the blocks above Otsu's threshold of the uncorrected copy"""
    threshold: float
    """threshold of the corrected values"""
    rounds: int
    """number of estimates of the field; 0 if the image is too thin or flat for one"""
    settled: bool


def head_mask(image: np.ndarray, zooms: Sequence[float] | None = None) -> np.ndarray:
    """Return which voxels belong to the head, even under a strong field.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), finite intensities
    zooms : voxel size per axis, mm; 1 where not given

    Returns
    -------
    bool array like `image`: voxels whose intensity without the field is above Otsu's threshold

    Raises
    ------
    ValueError
        If values are not finite or zooms do not fit.
    """
    image, zooms = checked(image, zooms)
    return on_image(image, find_head(image, zooms))


def checked(image: Any, zooms: Any) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return image and zooms as the functions of this module need them."""
    image = np.asarray(image)
    zooms = plan(ROUNDS, image.shape, zooms) and tuple(
        (1.0,) * image.ndim if zooms is None else (float(z) for z in zooms)
    )
    if image.dtype.kind not in "biuf":
        image = image.astype(np.float32)
    low, high = image.min(), image.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"image has values from {low} to {high}; expected finite ones")
    return image, zooms


def block_size(shape: Sequence[int], zooms: Sequence[float]) -> float:
    """Return the size of a block in mm: that of a human head, less for a small animal's."""
    extent = max(n * zoom for n, zoom in zip(shape, zooms, strict=True))
    return BLOCK if extent >= 100 else min(BLOCK, extent / 128)


def find_head(image: np.ndarray, zooms: Sequence[float]) -> Head:
    """Find the head on a coarse copy of an image; arguments as of `head_mask`, checked."""
    block = block_size(image.shape, zooms)
    copy = coarse(image, zooms, block)
    steps = sample_steps(copy, block)
    sampled = copy.values[_every(steps)]
    thin = image.ndim < 3 or min(sampled.shape) < FEWEST_SAMPLES
    mask = np.zeros(sampled.shape, bool) if thin else _first_mask(sampled)
    if not (mask.any() and np.ptp(sampled[mask]) > 0):
        level = otsu_threshold(copy.values)
        otsu, none = copy.values > level, np.zeros(copy.values.shape, np.float32)
        return Head(copy, copy.values, none, otsu, otsu, level, 0, True)
    rounds, settled = 0, False
    while rounds < MOST_ROUNDS and not settled and mask.any() and np.ptp(sampled[mask]) > 0:
        rounds += 1
        field, limits, log_field = _estimate(sampled, mask, ROUNDS)
        corrected = sampled / np.exp(log_field)
        level = otsu_threshold(np.minimum(corrected, np.quantile(corrected[mask], 0.98)))
        before, mask = mask, corrected > max(level, 0)
        changed = np.count_nonzero(mask != before)
        settled = bool(changed <= SETTLED * np.count_nonzero(mask | before))
    log_field = _values(field, copy.values.shape, limits, steps)
    corrected = copy.values / np.exp(log_field)
    otsu = copy.values > otsu_threshold(sampled)
    return Head(copy, corrected, log_field, corrected > level, otsu, level, rounds, bool(settled))


def on_image(image: np.ndarray, head: Head) -> np.ndarray:
    """Return the head on the voxels of the image that it was found in."""
    return above(image, head.threshold * np.exp(head.log_field), head.copy.factors)


def field_within(copy: Coarse, mask: np.ndarray, block: float, options: N4Options) -> np.ndarray:
    """Estimate ln b within a mask of the copy; return it on all of its blocks, float32."""
    steps = sample_steps(copy, block)
    inside = mask[_every(steps)]
    field, limits, _ = _estimate(copy.values[_every(steps)], inside, options)
    return _values(field, copy.values.shape, limits, steps)


def sample_steps(copy: Coarse, block: float) -> tuple[int, ...]:
    """Return the distance in blocks between samples of the field on each axis.

    A thin axis keeps the number of samples that an estimate needs.
    """
    return tuple(
        max(1, min(round(SPACING * block / zoom), n // FEWEST_SAMPLES), -(-n // MOST_SAMPLES))
        for n, zoom in zip(copy.values.shape, copy.zooms, strict=True)
    )


def _every(steps: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(step // 2, None, step) for step in steps)


def _first_mask(values: np.ndarray) -> np.ndarray:
    """Threshold the logarithm, which a field shifts but does not stretch, by Otsu's method.

    Values below a thousandth of the bright ones are raised to it, so that zeros form no class.
    """
    bright = np.quantile(values, 0.98)
    bright = bright if bright > 0 else values.max()
    if not bright > 0:
        return np.zeros(values.shape, bool)
    logs = np.log(np.maximum(values, bright / 1000))
    return logs > otsu_threshold(logs)


def _estimate(
    values: np.ndarray, mask: np.ndarray, options: N4Options
) -> tuple[LogField, tuple[float, float], np.ndarray]:
    """Estimate ln b; return the field (axes in raster order), its range in the mask, its values.

    Every mask is padded to one size, so that all share a compiled program. Every second row of a
    larger mask is left out until it fits.
    """
    solved = plan(options, values.shape)
    grid, inside = np.ascontiguousarray(values.T), np.array(mask.T)
    while _too_large(inside):
        inside = _thinned(inside)
    with jax.enable_x64(True):
        found = voxels.find(grid, inside, None)
        rows, layout = voxels.lay_out(found, grid.shape, np.dtype(np.float32), least=LISTED)
        field = solve(jax.device_put(rows), layout, solved).field
    log_field = sample(field, [np.arange(n) for n in grid.shape])
    here = log_field[inside]
    limits = float(here.min()), float(here.max())
    return field, limits, np.clip(log_field, *limits).T


def _too_large(inside: np.ndarray) -> bool:
    n_rows = np.count_nonzero(inside.any(axis=-1))
    return bool(np.count_nonzero(inside) > LISTED or n_rows > MOST_ROWS)


def _thinned(inside: np.ndarray) -> np.ndarray:
    """Leave out every second of the rows that contain voxels."""
    kept = inside.copy()
    taken = np.argwhere(inside.any(axis=-1))[1::2]
    kept[taken[:, 0], taken[:, 1]] = False
    return kept


def _values(
    field: LogField,
    shape: tuple[int, ...],
    limits: tuple[float, float],
    steps: tuple[int, ...],
) -> np.ndarray:
    """Evaluate a field; clip it to its range in the mask, since it is not determined elsewhere."""
    places = [
        (np.arange(n) - step // 2) / step for n, step in zip(shape[::-1], steps[::-1], strict=True)
    ]
    return np.clip(sample(field, places).T, *limits)
