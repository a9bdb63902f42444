"""The samples of image, mask and weight that enter a solve, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np

from n4ax_bids.core.arrays import NothingSampled, not_finite, numbered, odd_inside, plain
from n4ax_bids.core.devices import default_device, is_on_gpu
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
    return take_each([(image, mask, weight)], [plan], on_device, free, None)[0]


def take_each(
    given: Sequence[tuple[Any, Any, Any]],
    plans: Sequence[Plan],
    on_device: bool | None = None,
    free: float = np.inf,
    first: int | None = 0,
) -> list[Taken]:
    """Check the arrays of some images and take the samples that enter the solves.

    What lies on a device is sampled there, for all images before the host waits for the first.

    Parameters
    ----------
    given : image, mask and weight of each
    plans, on_device : as for `n4ax_bids.core.n4.estimate.estimate_batch`
    free : bytes of memory that are available
    first : number of the first image, for errors; None for a single image without a number

    Raises
    ------
    ValueError
        If an array does not have the plan's shape, no sample is inside the mask, or the samples
        inside it are constant or not finite.
    """
    passed: list[_Passed] = []
    groups: dict[tuple[Any, ...], list[int]] = {}
    there: dict[int, _There] = {}
    for number, (arrays, plan) in enumerate(zip(given, plans, strict=True)):
        with _numbered(first, number):
            passed.append(_checked(*arrays, plan))
            if key := _group_on_device(passed[-1], on_device, free):
                groups.setdefault(key, []).append(number)
    for group, members in enumerate(groups.values()):
        grid, numbers = _started([passed[i] for i in members])
        there |= {i: _There(grid, at, group, numbers) for at, i in enumerate(members)}
    found = jax.device_get({one.group: one.numbers for one in there.values()})
    taken: list[Taken] = []
    for number, each in enumerate(passed):
        with _numbered(first, number):
            if number not in there:
                taken.append(_take_listed(each))
            else:
                mine = there[number]
                taken.append(_finished(each, mine, found[mine.group][mine.number]))
    return taken


def _numbered(first: int | None, number: int) -> AbstractContextManager[None]:
    return nullcontext() if first is None else numbered(first + number)


class Sampled(NamedTuple):
    """An image whose samples were taken on the host, to be sent to a device with others."""

    passed: _Passed
    samples: tuple[np.ndarray | None, ...]
    """of image, mask and weight"""

    @property
    def kinds(self) -> tuple[Any, ...]:
        """Shape of the samples, and type of each; equal for images that are taken together."""
        types = (None if each is None else each.dtype for each in self.samples)
        return (self.passed.plan.sample_shape, *types)


def sampled(image: Any, mask: Any, weight: Any, plan: Plan) -> Sampled | None:
    """Check arrays of the host and take the samples; None if an array lies on a device."""
    passed = _checked(image, mask, weight, plan)
    return Sampled(passed, tuple(passed.samples())) if passed.on_host else None


def take_sampled(every: Sequence[Sampled]) -> list[TakenOnDevice | ValueError]:
    """Send the samples of images of equal `kinds` to the device.

    Returns
    -------
    list : TakenOnDevice of each image, or the error of `take_each` for one that does not fit
    """
    grid, numbers = rows_on_device.grid_of(*_stacked([one.samples for one in every]), plan=None)
    found: list[TakenOnDevice | ValueError] = []
    for number, (one, its) in enumerate(zip(every, jax.device_get(numbers), strict=True)):
        try:
            found.append(_finished(one.passed, _There(grid, number, 0, numbers), its))
        except ValueError as error:
            found.append(error.with_traceback(None))  # which holds this list and all arrays
    return found


class _There(NamedTuple):
    """Where the samples of an image are being taken on a device."""

    grid: Grid
    number: int
    """of the image in the grid"""
    group: int
    """number of the grid"""
    numbers: jax.Array
    """from `rows_on_device.grid_of`"""


def _checked(image: Any, mask: Any, weight: Any, plan: Plan) -> _Passed:
    image, mask, weight, _ = plain(image, mask, weight)
    for name, array in {"image": image, "mask": mask, "weight": weight}.items():
        if array is not None and tuple(array.shape) != plan.shape:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; expected the image's {plan.shape}"
            )
    return _Passed(image, mask, weight, plan)


def _group_on_device(
    passed: _Passed, on_device: bool | None, free: float
) -> tuple[Any, ...] | None:
    """Return what images share whose samples are taken together; None to take them on the host."""
    *given, plan = passed
    if on_device is None:
        on_device = _goes_to_a_gpu(passed.image) and _bytes_there(plan) <= free
    if not on_device:
        return None
    kinds = (None if array is None else array.dtype for array in given)
    if passed.on_host:
        return (plan.sample_shape, *kinds)
    places = (
        frozenset(array.devices()) if isinstance(array, jax.Array) else None for array in given
    )
    return (plan, *kinds, *places)


def _started(images: Sequence[_Passed]) -> tuple[Grid, jax.Array]:
    """Take the samples of images of one group on the device; on the host, nothing waits for it."""
    if not images[0].on_host:
        given = zip(*((one.image, one.mask, one.weight) for one in images), strict=True)
        kinds = (None if each[0] is None else each for each in given)
        return rows_on_device.grid_of(*kinds, plan=images[0].plan)
    # Only the samples are copied to the device.
    return rows_on_device.grid_of(*_stacked([one.samples() for one in images]), plan=None)


def _stacked(samples: Sequence[Sequence[Any]]) -> list[np.ndarray | None]:
    """Return image, mask and weight of several images as one array each."""
    each_kind = zip(*samples, strict=True)
    return [None if each[0] is None else np.stack(each) for each in each_kind]


def _goes_to_a_gpu(image: Any) -> bool:
    """Return whether the solve runs on a GPU: where the image lies, or on the default device."""
    if isinstance(image, jax.Array):
        return is_on_gpu(image)
    return default_device().platform != "cpu"


def n_at_once(plans: Sequence[Plan], free: float) -> int:
    """Return how many of the first images may lie on a device at the same time, at least one.

    Half of the memory is left to their solves.
    """
    total = np.cumsum([_bytes_there(plan) for plan in plans])
    return max(1, int(np.searchsorted(total, free / 2, side="right")))


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

    @property
    def on_host(self) -> bool:
        """Whether no array lies on a device."""
        return not any(isinstance(array, jax.Array) for array in self[:3])

    def samples(self) -> list[np.ndarray | None]:
        """Return the samples of image, mask and weight; call it only for arrays of the host."""
        plan = self.plan
        mask = np.broadcast_to(True, plan.shape) if self.mask is None else self.mask
        given = (self.image, plan.image_start), (mask, plan.mask_start)
        every = (*given, (self.weight, plan.weight_start))
        return [None if each is None else plan.sample(each, start) for each, start in every]

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


ODD_MASK = "mask has values that are not finite; expected 0 outside, not 0 inside"


def _take_listed(passed: _Passed) -> Taken:
    image, mask, weight, plan = passed
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
        raise passed.nobody()
    found = voxels.find(values, inside, weight)
    low, high = found.intensities.min(), found.intensities.max()
    passed.require_contrast(low, high, 1.0 if found.weights is None else found.weights.max())
    return TakenListed(found, values.shape, np.dtype(plan.options.precision))


def _finished(passed: _Passed, there: _There, numbers: np.ndarray) -> TakenOnDevice:
    found = rows_on_device.seen(numbers)
    if found.odd_mask:
        raise ValueError(ODD_MASK)
    if found.n_voxels == 0:
        raise passed.nobody()
    passed.require_contrast(found.low, found.high)
    precision = np.dtype(passed.plan.options.precision)
    return TakenOnDevice(there.grid, there.number, there.group, found, precision)
