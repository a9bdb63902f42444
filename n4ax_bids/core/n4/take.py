"""The samples of image, mask and weight that enter a solve, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from n4ax_bids.core.arrays import NothingSampled, not_finite, odd_inside, plain
from n4ax_bids.core.n4 import rows as voxels
from n4ax_bids.core.n4.plan import Plan
from n4ax_bids.core.n4.rows import Layout
from n4ax_bids.core.n4.storage import Dense, Storage

MOST_SLABS = 64


class Taken(Protocol):
    """The samples that enter a solve, of one of the kinds below."""

    @property
    def n_voxels(self) -> int:
        """Number of samples inside the mask."""

    @property
    def size(self) -> tuple[Any, ...]:
        """What is equal for images that can share a solve."""

    @property
    def length(self) -> int:
        """Length of the list of voxels."""

    @property
    def most_slabs(self) -> int:
        """Largest number of slabs; 0 if the samples cannot be divided."""

    def n_bytes(self, slabs: int) -> int:
        """Return how many bytes the solve takes in a number of slabs."""

    def lay_out(self, slabs: int, first: int) -> tuple[Storage, Layout]:
        """Lay out the samples in a number of slabs; see `first` of `rows.lay_out`."""


@dataclass(frozen=True)
class TakenListed:
    """Samples that were listed on the host."""

    found: voxels.Found
    shape: tuple[int, ...]
    """(Z, Y, X) of the grid of samples"""
    dtype: np.dtype
    """of the solve"""
    most_slabs: int = MOST_SLABS

    @property
    def n_voxels(self) -> int:
        return self.found.n_listed

    @property
    def size(self) -> tuple[Any, ...]:
        sizes = voxels.sizes_of(self.found, self.shape)
        return (*sizes, str(self.dtype), self.found.weights is None)

    @property
    def length(self) -> int:
        return int(self.size[0])

    def n_bytes(self, slabs: int) -> int:
        return voxels.n_bytes(self.found, self.dtype.itemsize, slabs)

    def lay_out(self, slabs: int, first: int) -> tuple[Storage, Layout]:
        made, layout = voxels.lay_out(self.found, self.shape, self.dtype, slabs=slabs, first=first)
        return jax.device_put(made), layout


@dataclass(frozen=True)
class TakenDense:
    """All samples of an image on a device; they stay there."""

    values: jax.Array
    inside: jax.Array
    weight: jax.Array | None
    dtype: np.dtype
    """of the solve"""
    n_voxels: int
    made: Dense
    """laid out with the usual `first`"""
    most_slabs: int = 0

    @property
    def layout(self) -> Layout:
        return voxels.dense_layout(self.values.shape)

    @property
    def size(self) -> tuple[Any, ...]:
        return (*self.layout.sizes, str(self.dtype), "dense")

    @property
    def length(self) -> int:
        return self.made.log_image.size

    def n_bytes(self, slabs: int) -> int:
        return _dense_bytes(self.values.shape, self.dtype)

    def lay_out(self, slabs: int, first: int) -> tuple[Storage, Layout]:
        if first == voxels.FIRST:
            return self.made, self.layout
        return _dense(self.values, self.inside, self.weight, self.dtype, first)[0], self.layout


def _dense(
    values: jax.Array,
    inside: jax.Array,
    weight: jax.Array | None,
    dtype: np.dtype,
    first: int,
) -> tuple[Dense, voxels.Seen]:
    return voxels.lay_out_dense(values, inside, weight, dtype=str(dtype), first=first)


def take(
    image: Any, mask: Any, weight: Any, plan: Plan, dense: bool | None = None, free: float = np.inf
) -> Taken:
    """Check the arrays and take the samples that enter the solve.

    Parameters
    ----------
    image, mask, weight, plan, dense : as for `n4ax_bids.core.n4.estimate.estimate`
    free : bytes of memory that are available

    Raises
    ------
    ValueError
        If an array does not have the plan's shape, no sample is inside the mask, or the samples
        inside it are constant or not finite.
    """
    image, mask, weight, _ = plain(image, mask, weight)
    given = {"image": image, "mask": mask, "weight": weight}
    for name, array in given.items():
        if array is not None and tuple(array.shape) != plan.shape:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; expected the image's {plan.shape}"
            )
    if dense is None:
        shape = (1, *plan.sample_shape[::-1])[-3:]
        fits = _dense_bytes(shape, np.dtype(plan.options.precision)) <= free
        dense = fits and isinstance(image, jax.Array) and platform(image) != "cpu"
    xp = jax.numpy if dense else np
    # ITK reads every pixel type into float32, whatever the solve's precision.
    values = _in_three(plan.sample(xp.asarray(image), plan.image_start), xp)
    if mask is None:
        mask = xp.broadcast_to(xp.asarray(True), plan.shape)
    passed = _Passed(image, mask, weight, plan)
    chosen = plan.sample(xp.asarray(mask), plan.mask_start)
    # NaN is not 0, so it would count as inside.
    if chosen.dtype.kind == "f" and not xp.isfinite(chosen).all():
        raise ValueError("mask has values that are not finite; expected 0 outside, not 0 inside")
    inside = _in_three(chosen != 0, xp, bool)
    if weight is not None:
        weight = _in_three(plan.sample(xp.asarray(weight), plan.weight_start), xp)
        inside = inside & ~(weight <= 0)  # NaN stays inside and is refused below
    take = _take_dense if dense else _take_listed
    return take(values, inside, weight, np.dtype(plan.options.precision), passed)


class _Passed(NamedTuple):
    """The arrays as they were passed, for the messages of errors."""

    image: jax.Array | np.ndarray
    mask: jax.Array | np.ndarray
    weight: jax.Array | np.ndarray | None
    plan: Plan

    def _inside(self) -> np.ndarray:
        inside = np.asarray(self.mask) != 0
        return inside if self.weight is None else inside & ~(np.asarray(self.weight) <= 0)

    def nobody(self) -> ValueError:
        """Return the error that says why no sample is inside the mask."""
        n, size = int(np.count_nonzero(self._inside())), math.prod(self.plan.shape)
        if not n:
            return ValueError(f"none of {size} voxels is inside: mask or weight is empty")
        shrink = " x ".join(map(str, self.plan.shrink_factors))
        where = "mask" if self.weight is None else "mask and weight"
        return NothingSampled(
            f"no voxel of the {where} is sampled at shrink {shrink} (it has {n})"
        )

    def require_contrast(self, low: float, high: float, weight: float = 1.0) -> None:
        """Refuse values that are not finite, and an image without contrast."""
        if not (np.isfinite(low) and np.isfinite(high) and np.isfinite(weight)):
            for name in ("image", "weight"):
                array = getattr(self, name)
                odd: Any = False if array is None else not_finite(array) & self._inside()
                if np.any(odd):
                    raise odd_inside(name, np.asarray(array), odd)
            raise ValueError("image or weight has values inside the mask that are not finite")
        if low == high:
            negative = low < 0 and not (np.asarray(self.image) > 0).any()
            also = " and values above 0, of which the image has none" if negative else ""
            raise ValueError(f"image is constant ({low}) inside the mask; expected contrast{also}")


def _in_three(array: Any, xp: Any, dtype: Any = np.float32) -> Any:
    """Return an array in raster order with three axes."""
    with np.errstate(over="ignore"):  # values too large for float32 are refused later
        array = xp.asarray(array.T, dtype)
    return array if array.ndim == 3 else array[None]


def platform(array: jax.Array) -> str:
    """Return what kind of device an array lies on."""
    return next(iter(array.devices())).platform


def _take_listed(
    values: np.ndarray,
    inside: np.ndarray,
    weight: np.ndarray | None,
    dtype: np.dtype,
    passed: _Passed,
) -> Taken:
    if not inside.any():
        raise passed.nobody()
    found = voxels.find(values, inside, weight)
    low, high = found.intensities.min(), found.intensities.max()
    passed.require_contrast(low, high, 1.0 if found.weights is None else found.weights.max())
    return TakenListed(found, values.shape, dtype)


def _take_dense(
    values: jax.Array,
    inside: jax.Array,
    weight: jax.Array | None,
    dtype: np.dtype,
    passed: _Passed,
) -> Taken:
    made, seen = _dense(values, inside, weight, dtype, voxels.FIRST)
    n_voxels, low, high = (one.item() for one in seen)
    if n_voxels == 0:
        raise passed.nobody()
    passed.require_contrast(low, high)
    return TakenDense(values, inside, weight, dtype, n_voxels, made)


def _dense_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    n_voxels: int = math.prod([*voxels.dense_layout(shape).sizes])
    return n_voxels * (6 * dtype.itemsize + 16)
