"""The samples of image, mask and weight that enter a solve, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from n4ax_bids.core.arrays import NothingSampled, not_finite, numbered, odd_inside, plain
from n4ax_bids.core.n4 import rows as voxels
from n4ax_bids.core.n4 import rows_on_device
from n4ax_bids.core.n4.plan import Plan
from n4ax_bids.core.n4.rows_on_device import Grid
from n4ax_bids.core.n4.taken import Taken, TakenListed, TakenOnDevice


def take(
    image: Any,
    mask: Any,
    weight: Any,
    plan: Plan,
    on_device: bool | None = None,
    free: float = np.inf,
) -> Taken:
    """Check the arrays and take the samples that enter the solve; see `take_each`."""
    started = _start(image, mask, weight, plan, on_device, free)
    return _finished(started, None if started.grid is None else np.asarray(started.numbers))


def take_each(
    given: Sequence[tuple[Any, Any, Any]],
    plans: Sequence[Plan],
    on_device: bool | None = None,
    free: float = np.inf,
) -> list[Taken]:
    """Check the arrays of some images and take the samples that enter the solves.

    What lies on a device is sampled there, for all images before the host waits for the first.

    Parameters
    ----------
    given : image, mask and weight of each
    plans, on_device : as for `n4ax_bids.core.n4.estimate.estimate_batch`
    free : bytes of memory that are available

    Raises
    ------
    ValueError
        If an array does not have the plan's shape, no sample is inside the mask, or the samples
        inside it are constant or not finite.
    """
    started: list[_Started] = []
    for number, (arrays, plan) in enumerate(zip(given, plans, strict=True)):
        with numbered(number):
            started.append(_start(*arrays, plan, on_device, free))
    numbers = jax.device_get([one.numbers for one in started])
    taken: list[Taken] = []
    for number, both in enumerate(zip(started, numbers, strict=True)):
        with numbered(number):
            taken.append(_finished(*both))
    return taken


class _Started(NamedTuple):
    """An image whose samples are being taken on a device; on the host, nothing has begun."""

    passed: _Passed
    grid: Grid | None
    numbers: jax.Array | None


def _start(
    image: Any, mask: Any, weight: Any, plan: Plan, on_device: bool | None, free: float
) -> _Started:
    image, mask, weight, _ = plain(image, mask, weight)
    for name, array in {"image": image, "mask": mask, "weight": weight}.items():
        if array is not None and tuple(array.shape) != plan.shape:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; expected the image's {plan.shape}"
            )
    passed = _Passed(image, mask, weight, plan)
    if on_device is None:
        on_device = _goes_to_a_gpu(image) and _bytes_there(plan) <= free
    if not on_device:
        return _Started(passed, None, None)
    given = (image, mask, weight)
    if any(isinstance(array, jax.Array) for array in given):
        return _Started(passed, *rows_on_device.grid_of(*given, plan=plan))
    # Only the samples are copied to the device.
    given = (image, np.broadcast_to(True, plan.shape) if mask is None else mask, weight)
    starts = plan.image_start, plan.mask_start, plan.weight_start
    samples = [
        None if array is None else np.ascontiguousarray(plan.sample(array, start))
        for array, start in zip(given, starts, strict=True)
    ]
    return _Started(passed, *rows_on_device.grid_of(*samples, plan=None))


def _goes_to_a_gpu(image: Any) -> bool:
    """Return whether the solve runs on a GPU: where the image lies, or on the default device."""
    if isinstance(image, jax.Array):
        return platform(image) != "cpu"
    return default_device().platform != "cpu"


def default_device() -> jax.Device:
    """Return the device that arrays of the host are copied to."""
    config: Any = jax.config  # its settings are not annotated
    chosen: jax.Device = config.jax_default_device or jax.local_devices()[0]
    return chosen


def _bytes_there(plan: Plan) -> int:
    """Return about how many bytes the samples take on a device if every row is needed."""
    itemsize = np.dtype(plan.options.precision).itemsize
    return math.prod(plan.sample_shape) * (4 * itemsize + 8)


class _Passed(NamedTuple):
    """The arrays as they were passed, for the messages of errors."""

    image: jax.Array | np.ndarray
    mask: jax.Array | np.ndarray | None
    weight: jax.Array | np.ndarray | None
    plan: Plan

    def _inside(self) -> np.ndarray:
        given = np.broadcast_to(True, self.plan.shape) if self.mask is None else self.mask
        inside = np.asarray(given) != 0
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


def _in_three(array: Any, dtype: Any = np.float32) -> Any:
    """Return an array in raster order with three axes."""
    with np.errstate(over="ignore"):  # values too large for float32 are refused later
        array = np.asarray(array.T, dtype)
    return array if array.ndim == 3 else array[None]


def platform(array: jax.Array) -> str:
    """Return what kind of device an array lies on."""
    return next(iter(array.devices())).platform


ODD_MASK = "mask has values that are not finite; expected 0 outside, not 0 inside"


def _take_listed(one: _Started) -> Taken:
    image, mask, weight, plan = one.passed
    # ITK reads every pixel type into float32, whatever the solve's precision.
    values = _in_three(plan.sample(np.asarray(image), plan.image_start))
    if mask is not None:
        chosen = plan.sample(np.asarray(mask), plan.mask_start)
        # NaN is not 0, so it would count as inside.
        if chosen.dtype.kind == "f" and not np.isfinite(chosen).all():
            raise ValueError(ODD_MASK)
        inside = _in_three(chosen != 0, bool)
    else:
        everywhere = np.broadcast_to(True, plan.shape)
        inside = _in_three(plan.sample(everywhere, plan.mask_start), bool)
    if weight is not None:
        weight = _in_three(plan.sample(np.asarray(weight), plan.weight_start))
        inside = inside & ~(weight <= 0)  # NaN stays inside and is refused below
    if not inside.any():
        raise one.passed.nobody()
    found = voxels.find(values, inside, weight)
    low, high = found.intensities.min(), found.intensities.max()
    one.passed.require_contrast(low, high, 1.0 if found.weights is None else found.weights.max())
    return TakenListed(found, values.shape, np.dtype(plan.options.precision))


def _finished(one: _Started, numbers: np.ndarray | None) -> Taken:
    if one.grid is None or numbers is None:
        return _take_listed(one)
    found = rows_on_device.seen(numbers)
    if found.odd_mask:
        raise ValueError(ODD_MASK)
    if found.n_voxels == 0:
        raise one.passed.nobody()
    one.passed.require_contrast(found.low, found.high)
    return TakenOnDevice(one.grid, found, np.dtype(one.passed.plan.options.precision))
