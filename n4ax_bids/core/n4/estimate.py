"""N4 bias field correction (Tustison et al. 2010), with the numbers of ITK's implementation.

The model is v = ln(intensity) = u + b, where u is sharp and b is a smooth spline. Each iteration
sharpens v - b, fits a lattice to what the sharpening removed and adds it to b; each level halves
the knot spacing. docs/method.md has the details and the roundings.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from n4ax_bids.core.arrays import numbered
from n4ax_bids.core.call import n_cores
from n4ax_bids.core.devices import default_device
from n4ax_bids.core.estimator import Report
from n4ax_bids.core.field import LogField
from n4ax_bids.core.memory_maps import make_room
from n4ax_bids.core.n4.plan import Plan
from n4ax_bids.core.n4.rows import FIRST
from n4ax_bids.core.n4.solve import (
    Solved,
    can_end_by_itk,
    size_of_lattice,
    solve,
    solve_batch,
)
from n4ax_bids.core.n4.take import n_at_once, take, take_each
from n4ax_bids.core.n4.taken import Taken, lay_out_alike

Array: TypeAlias = jax.Array | np.ndarray


class N4Result(NamedTuple):
    """The field and how the solve went."""

    log_field: LogField
    """on the grid of the full-resolution image"""
    n_iterations: tuple[int, ...]
    """iterations done at each level"""
    convergence: tuple[float, ...]
    """last value of the stopping statistic at each level; NaN where no iteration was asked for"""
    converged: tuple[bool, ...]
    """whether a level ended because that value did not exceed the threshold"""
    n_voxels: int
    """samples that the estimate used, after shrinking"""
    log_image_range: tuple[float, float]
    """lowest and highest logarithm of their intensities"""
    log_field_range: tuple[float, float]
    """lowest and highest ln b at these samples"""


def estimate(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray | None = None,
    weight: jax.Array | np.ndarray | None = None,
    *,
    plan: Plan,
    report: Report | None = None,
    on_device: bool | None = None,
    memory: int | None = None,
) -> N4Result:
    """Estimate the log field of an image.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), full resolution
    mask : array like `image`, non-zero = inside; None for all voxels
    weight : array like `image`, or None for equal weights
    plan : Plan for the image's shape
    report : called after each iteration with the level and the iteration, both from 1, and the
        stopping statistic. It does not change the result, but the solve takes longer, because
        each iteration returns to the host.
    on_device : find the voxels of the mask on the device and process whole rows of the grid,
        instead of listing the voxels on the host; None: on a GPU, if that fits into `memory`
    memory : bytes that the voxels may take; if they need more, they are processed in slabs. None:
        what the device reports as free. If it then refuses to give so much, because other programs
        use it too, the voxels are processed in more slabs

    Returns
    -------
    N4Result

    Raises
    ------
    ValueError
        As `n4`.
    MemoryError
        If even the smallest slabs need more than `memory`.
    """
    make_room()
    with jax.enable_x64(True):
        free, solved = _free(memory), None
        while solved is None:
            taken = take(image, mask, weight, plan, on_device, free)
            try:
                solved = solve_taken(taken, plan, report, free)
            except jax.errors.JaxRuntimeError as error:
                _require_short_of_memory(error)
                free = taken.n_bytes(_n_slabs(taken, free)) / 2
    return result_of(solved, taken.n_voxels, plan)


def estimate_batch(
    images: Sequence[jax.Array | np.ndarray],
    masks: Sequence[jax.Array | np.ndarray | None],
    weights: Sequence[jax.Array | np.ndarray | None],
    *,
    plans: Sequence[Plan],
    on_device: bool | None = None,
    memory: int | None = None,
    together: bool | None = None,
) -> list[N4Result]:
    """Estimate the log fields of several images; images of equal padded size share a solve.

    The parameters are those of `estimate`, with one image, mask, weight and plan for each. A batch
    holds as many images as fit into `memory`; if the device refuses it, its images are solved one
    by one. Images whose levels may end by ITK's statistic are always solved one by one. On a CPU
    all images are, unless `together` is True: one on each core at a time, which is faster than a
    batch (docs/benchmarks/scaling.md).
    """
    if not (default_device().platform != "cpu" if together is None else together):
        return _side_by_side(images, masks, weights, plans, on_device, memory)
    given = list(zip(images, masks, weights, strict=True))
    results: list[N4Result] = []
    with jax.enable_x64(True):
        free = _free(memory)
        while len(results) < len(given):
            make_room()
            n = len(results)
            part = slice(n, n + n_at_once(plans[n:], free))
            taken = take_each(given[part], plans[part], on_device, free, n)
            try:
                results += _together(taken, plans[part], free)
                continue
            except jax.errors.JaxRuntimeError as error:
                _require_short_of_memory(error)
            # Not in the block above: there, the error still holds the samples of the batch.
            del taken
            for number, (one, its) in enumerate(zip(given[part], plans[part], strict=True), n):
                with numbered(number):
                    results.append(estimate(*one, plan=its, on_device=on_device, memory=memory))
    return results


def _together(taken: Sequence[Taken], plans: Sequence[Plan], free: float) -> list[N4Result]:
    """Solve images in batches, whose samples lie on the device at the same time."""
    results: dict[int, N4Result] = {}
    for batch in _batches(taken, plans, free):
        if len(batch) == 1:
            solved = [solve_taken(taken[batch[0]], plans[batch[0]], None, free)]
        else:
            rows, layouts = lay_out_alike([taken[i] for i in batch])
            solved = solve_batch(rows, layouts, [plans[i] for i in batch])
        for i, one in zip(batch, solved, strict=True):
            if one.unseen:
                one = solve_taken(taken[i], plans[i], None, free)
            results[i] = result_of(one, taken[i].n_voxels, plans[i])
    return [results[i] for i in range(len(taken))]


def _side_by_side(
    images: Sequence[Array],
    masks: Sequence[Array | None],
    weights: Sequence[Array | None],
    plans: Sequence[Plan],
    on_device: bool | None,
    memory: int | None,
) -> list[N4Result]:
    device = default_device()
    n = max(1, min(len(images), n_cores())) if device.platform == "cpu" else 1
    share = None if memory is None else memory // n

    def solve_one(
        number: int, image: Array, mask: Array | None, weight: Array | None, plan: Plan
    ) -> N4Result:
        with jax.default_device(device), numbered(number):  # the setting holds for one thread
            return estimate(image, mask, weight, plan=plan, on_device=on_device, memory=share)

    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(solve_one, range(len(images)), images, masks, weights, plans))


def _free(memory: int | None) -> float:
    """Return how many bytes the solve may take."""
    if memory is not None:
        return memory
    device = default_device()
    known = device.memory_stats() if device.platform != "cpu" else None
    return known["bytes_limit"] - known["bytes_in_use"] if known else np.inf


def _require_short_of_memory(error: jax.errors.JaxRuntimeError) -> None:
    """Raise an error of the device again unless it has no memory left."""
    if not str(error).startswith("RESOURCE_EXHAUSTED"):
        raise error


def _n_slabs(taken: Taken, free: float) -> int:
    """Return in how many slabs the samples fit into the memory; 0: all at once."""
    slabs = 0
    while taken.n_bytes(slabs) > free:
        slabs = max(2, 2 * slabs)
        if slabs > taken.most_slabs:
            needed = taken.n_bytes(taken.most_slabs)
            raise MemoryError(
                f"the solve takes {needed} bytes for {taken.n_voxels} voxels; "
                f"expected at most {free:.0f}"
            )
    return slabs


def solve_taken(taken: Taken, plan: Plan, report: Report | None, free: float) -> Solved:
    """Solve one image, in slabs if memory is short."""
    slabs = _n_slabs(taken, free)
    voxels, layout = taken.lay_out(slabs, FIRST)
    solved = solve(voxels, layout, plan, report)
    if solved.unseen:  # a synthetic image whose values rise from voxel to voxel
        voxels, layout = taken.lay_out(slabs, taken.length)
        solved = solve(voxels, layout, plan, report)
    if solved.unseen:
        raise MemoryError(
            f"the image rises throughout the first of {slabs} slabs, and more than {free:.0f} "
            "bytes would be needed to look beyond; expected contrast there"
        )
    return solved


def _batches(taken: Sequence[Taken], plans: Sequence[Plan], free: float) -> list[list[int]]:
    """Group the numbers of the images that can share a solve."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, (one, its) in enumerate(zip(taken, plans, strict=True)):
        alone = can_end_by_itk(its.options)
        key = (i,) if alone else (one.size, size_of_lattice(its), its.options)
        alike.setdefault(key, []).append(i)
    batches = []
    for numbers in alike.values():
        most = max(1, int(min(len(numbers), free // taken[numbers[0]].n_bytes(0))))
        batches += [numbers[i : i + most] for i in range(0, len(numbers), most)]
    return batches


def result_of(solved: Solved, n_voxels: int, plan: Plan) -> N4Result:
    """Return the result of a solve.

    Raises
    ------
    ValueError
        If it is not finite.
    """
    if not np.isfinite(solved.field.lattice).all():
        raise ValueError("the solve has no finite answer; are intensities or options extreme?")
    threshold = plan.options.convergence_threshold
    return N4Result(
        _on_image(solved.field, plan),
        tuple(end.n_iterations for end in solved.ends),
        tuple(end.value for end in solved.ends),
        tuple(end.n_iterations > 0 and end.value <= threshold for end in solved.ends),
        n_voxels,
        (float(solved.ranges[0]), float(solved.ranges[1])),
        (float(solved.ranges[2]), float(solved.ranges[3])),
    )


def _on_image(field: LogField, plan: Plan) -> LogField:
    """Return the field on the grid of the image, axes in NIfTI order."""
    scale = (field.lattice.shape[-1] - field.order) / (plan.n_control_points[0] - field.order)
    axes = [axis.image for axis in plan.axes]
    place = (tuple(v * scale for v in column) for column in zip(*axes, strict=True))
    return LogField(field.lattice.T, field.order, *place)
