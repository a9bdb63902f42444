"""N4 bias field correction (Tustison et al. 2010), with the numbers of ITK's implementation.

v = ln(intensity) = u + b: u is sharp, b a smooth spline. Each iteration sharpens what is left,
fits a lattice to what the sharpening took away and adds it to the field; each level halves the
knot spacing. Facts and roundings: docs/method.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias, overload

import jax
import numpy as np

from n4ax_bids.arguments import is_bool, shown
from n4ax_bids.core.arrays import as_list, one_for_each
from n4ax_bids.core.call import (
    Call,
    N4Warning,
    divided,
    n_cores,
    prepare,
    without_logarithm,
)
from n4ax_bids.core.estimator import Report
from n4ax_bids.core.field import LogField
from n4ax_bids.core.n4.automatic import check_automatic_mask
from n4ax_bids.core.n4.plan import Plan, plan
from n4ax_bids.core.n4.remarks import remarks
from n4ax_bids.core.n4.rows import FIRST
from n4ax_bids.core.n4.solve import (
    Solved,
    can_end_by_itk,
    size_of_lattice,
    solve,
    solve_batch,
)
from n4ax_bids.core.n4.take import Taken, take
from n4ax_bids.options import N4Options, require_options

Array: TypeAlias = jax.Array | np.ndarray


class N4Result(NamedTuple):
    """The field and how the solve went."""

    log_field: LogField
    """on the grid of the full image"""
    n_iterations: tuple[int, ...]
    """iterations done at each level"""
    convergence: tuple[float, ...]
    """last value of the stopping statistic at each level; NaN where no iteration was asked for"""
    converged: tuple[bool, ...]
    """whether a level ended because that value was not above the threshold"""
    n_voxels: int
    """voxels that took part, after shrinking"""
    log_image_range: tuple[float, float]
    """lowest and highest logarithm of the intensities that took part"""
    log_field_range: tuple[float, float]
    """lowest and highest ln b at the voxels that took part"""


@overload
def n4(
    image: Array,
    mask: Array | str | None = ...,
    weight: Array | None = ...,
    *,
    zooms: Sequence[float] | None = ...,
    options: N4Options | None = ...,
    return_bias: Literal[False] = ...,
) -> Array: ...
@overload
def n4(
    image: Array,
    mask: Array | str | None = ...,
    weight: Array | None = ...,
    *,
    zooms: Sequence[float] | None = ...,
    options: N4Options | None = ...,
    return_bias: Literal[True],
) -> tuple[Array, Array]: ...
def n4(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray | str | None = "otsu",
    weight: jax.Array | np.ndarray | None = None,
    *,
    zooms: Sequence[float] | None = None,
    options: N4Options | None = None,
    return_bias: bool = False,
) -> Array | tuple[Array, Array]:
    """Correct the bias field of an image.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), intensities; axes in NIfTI order. Where a numpy masked array
        is masked, a voxel takes no part and the results are masked as well.
    mask : array like `image` (non-zero = inside), None for all voxels (as the ANTs program without
        a mask), or a word: "otsu" for the voxels above Otsu's threshold, "head" or "brain" for
        `head_mask` and `brain_mask`, "auto" for the brain where one is found, else the head (see
        `auto_mask`). Sizes in mm matter to these.
    weight : array like `image`, confidence of each voxel; voxels with weight <= 0 take no part
    zooms : voxel size of each axis in mm, 1 where not given; for spline distances and
        for masks that are found by size
    options : N4Options, the ANTs program's defaults where not given
    return_bias : also return the field

    Returns
    -------
    corrected : float32 array like `image`, image / exp(log_bias) at every voxel, also outside the
        mask; a jax array if `image` is one, else numpy
    log_bias : float32 array like `image`, ln of the field; only with `return_bias`

    Raises
    ------
    TypeError
        If an array is none (a file's name, an image of nibabel or SimpleITK, a value traced by
        `jit`, `vmap` or `grad`), or `options` are no N4Options.
    ValueError
        If shapes differ, the mask is empty, or the image is constant or not finite in it. Values
        outside the mask that are not finite stay what they are.

    Warns
    -----
    N4Warning
        If an automatic mask leaves the object out, fewer samples than control points take part, or
        ln b goes beyond the image's own range.

    References
    ----------
    N. J. Tustison et al., N4ITK: Improved N3 Bias Correction, IEEE Trans Med Imaging 29(6),
    2010, doi 10.1109/TMI.2010.2046908.
    """
    planned = _prepared(image, mask, weight, zooms, require_options(options))
    call = planned.call
    result = estimate(call.image, call.mask, call.weight, plan=planned.plan)
    corrected, log_bias = divided(call, result.log_field)
    for remark in _remarks(planned, result):
        warnings.warn(remark, N4Warning, stacklevel=2)
    return (corrected, log_bias) if return_bias else corrected


@overload
def n4_batch(
    images: Sequence[Array],
    masks: Sequence[Array | str | None] | str | None = ...,
    weights: Sequence[Array | None] | None = ...,
    *,
    zooms: Sequence[Sequence[float] | None] | None = ...,
    options: N4Options | None = ...,
    return_bias: Literal[False] = ...,
    together: bool | None = ...,
) -> list[Array]: ...
@overload
def n4_batch(
    images: Sequence[Array],
    masks: Sequence[Array | str | None] | str | None = ...,
    weights: Sequence[Array | None] | None = ...,
    *,
    zooms: Sequence[Sequence[float] | None] | None = ...,
    options: N4Options | None = ...,
    return_bias: Literal[True],
    together: bool | None = ...,
) -> tuple[list[Array], list[Array]]: ...
def n4_batch(
    images: Sequence[jax.Array | np.ndarray],
    masks: Sequence[jax.Array | np.ndarray | str | None] | str | None = "otsu",
    weights: Sequence[jax.Array | np.ndarray | None] | None = None,
    *,
    zooms: Sequence[Sequence[float] | None] | None = None,
    options: N4Options | None = None,
    return_bias: bool = False,
    together: bool | None = None,
) -> list[Array] | tuple[list[Array], list[Array]]:
    """Correct several images, on a GPU those that fit together in one solve.

    Parameters
    ----------
    images : arrays (I, J) or (I, J, K), of one shape or of many
    masks, weights, zooms : one for each image, as for `n4`; one word or None for all
    options : N4Options, for all
    return_bias : also return the fields
    together : solve images of one padded size at once; None: where they are solved on a GPU

    Returns
    -------
    corrected : list of arrays
    log_bias : list of arrays; only with `return_bias`

    Raises
    ------
    TypeError
        As `n4`.
    ValueError
        As `n4`, and if the numbers of images, masks, weights or zooms differ.

    Warns
    -----
    N4Warning
        As `n4`, with the number of the image.
    """
    images = as_list(images)
    if not (together is None or is_bool(together)):
        raise TypeError(f"together is {shown(together)}; expected True, False or None")
    options = require_options(options)
    lists = {"masks": masks, "weights": weights, "zooms": zooms}
    lists = {name: one_for_each(name, given, len(images)) for name, given in lists.items()}
    calls = []
    for number, arrays in enumerate(zip(images, *lists.values(), strict=True)):
        with _numbered(number):
            calls.append(_prepared(*arrays, options))
    results = estimate_batch(
        [each.call.image for each in calls],
        [each.call.mask for each in calls],
        [each.call.weight for each in calls],
        plans=[each.plan for each in calls],
        together=together,
    )
    both = []
    for number, (each, result) in enumerate(zip(calls, results, strict=True)):
        with _numbered(number):
            both.append(divided(each.call, result.log_field))
        for remark in _remarks(each, result):
            warnings.warn(f"images[{number}]: {remark}", N4Warning, stacklevel=2)
    corrected = [one for one, _ in both]
    return (corrected, [log_bias for _, log_bias in both]) if return_bias else corrected


class _Planned(NamedTuple):
    """One image of a call, and how it is to be solved."""

    call: Call
    plan: Plan
    doubt: str | None
    """what is odd about an automatic mask"""


def _prepared(image, mask, weight, zooms, options: N4Options) -> _Planned:
    made = []
    call = prepare(
        image, mask, weight, zooms, lambda shape, mm: made.append(plan(options, shape, mm))
    )
    doubt = None
    if call.automatic:
        doubt = check_automatic_mask(call.image, call.mask, made[0], *call.automatic)
    return _Planned(call, made[0], doubt)


def _remarks(planned: _Planned, result: N4Result) -> tuple[str, ...]:
    found = _without_logarithm(planned)
    return remarks(result, planned.plan, planned.doubt) + ((found,) if found else ())


def _without_logarithm(planned: _Planned) -> str | None:
    """Return a warning where samples that take part are 0 or less."""
    call, made = planned.call, planned.plan
    values = made.sample(call.image, made.image_start)
    odd, n_inside = values <= 0, values.size
    inside = None
    if call.mask is not None:
        inside = made.sample(call.mask, made.mask_start) != 0
    if call.weight is not None:
        positive = made.sample(call.weight, made.weight_start) > 0
        inside = positive if inside is None else inside & positive
    if inside is not None:
        odd, n_inside = odd & inside, int(inside.sum())
    return without_logarithm(int(odd.sum()), n_inside, masked=inside is not None)


@contextmanager
def _numbered(number: int) -> Iterator[None]:
    """Put the image's number before what is objected to."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"images[{number}]: {error}") from error
    except ValueError as error:
        raise ValueError(f"images[{number}]: {error}") from error


def estimate(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray | None = None,
    weight: jax.Array | np.ndarray | None = None,
    *,
    plan: Plan,
    report: Report | None = None,
    dense: bool | None = None,
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
        stopping statistic. The result is the same with it and without; the time is not: each
        iteration comes back to the host.
    dense : work where the arrays lie, on every voxel of the grid, instead of listing those of the
        mask on the host; None: for arrays on a GPU, where that fits into `memory`
    memory : bytes that the voxels may take; beyond, they are taken in slabs. None: what the device
        says is free

    Raises
    ------
    ValueError
        As `n4`.
    MemoryError
        If the smallest slabs take more than `memory`.
    """
    with jax.enable_x64(True):
        free = _free(memory)
        taken = take(image, mask, weight, plan, dense, free)
        solved = _solve(taken, plan, report, free)
    return _result(solved, taken.n_voxels, plan)


def estimate_batch(
    images: Sequence[jax.Array | np.ndarray],
    masks: Sequence[jax.Array | np.ndarray | None],
    weights: Sequence[jax.Array | np.ndarray | None],
    *,
    plans: Sequence[Plan],
    dense: bool | None = None,
    memory: int | None = None,
    together: bool | None = None,
) -> list[N4Result]:
    """Estimate the log fields of several images, those of one padded size in one solve.

    Parameters are one for each image, else as for `estimate`. A batch holds as many images as
    `memory` does. Levels that end by ITK's statistic are solved image by image, and so is all on
    a CPU unless `together` says otherwise: as many images side by side as there are cores, which
    takes less time than a batch of them (docs/benchmarks/scaling.md).
    """
    if not (_device().platform != "cpu" if together is None else together):
        return _side_by_side(images, masks, weights, plans, dense, memory)
    results: dict[int, N4Result] = {}
    with jax.enable_x64(True):
        free = _free(memory)
        taken = []
        for number, each in enumerate(zip(images, masks, weights, plans, strict=True)):
            with _numbered(number):
                taken.append(take(*each, dense, free))
        for batch in _batches(taken, plans, free):
            if len(batch) == 1:
                solved = [_solve(taken[batch[0]], plans[batch[0]], None, free)]
            else:
                parts = [taken[i].lay_out(0, FIRST) for i in batch]
                rows, layouts = zip(*parts, strict=True)
                solved = solve_batch(rows, layouts, [plans[i] for i in batch])
            for i, one in zip(batch, solved, strict=True):
                if one.unseen:
                    one = _solve(taken[i], plans[i], None, free)
                results[i] = _result(one, taken[i].n_voxels, plans[i])
    return [results[i] for i in range(len(images))]


def _side_by_side(
    images: Sequence[Array],
    masks: Sequence[Array | None],
    weights: Sequence[Array | None],
    plans: Sequence[Plan],
    dense: bool | None,
    memory: int | None,
) -> list[N4Result]:
    device = _device()
    n = max(1, min(len(images), n_cores())) if device.platform == "cpu" else 1
    share = None if memory is None else memory // n

    def solve_one(
        number: int, image: Array, mask: Array | None, weight: Array | None, plan: Plan
    ) -> N4Result:
        with jax.default_device(device), _numbered(number):  # a thread has its own device
            return estimate(image, mask, weight, plan=plan, dense=dense, memory=share)

    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(solve_one, range(len(images)), images, masks, weights, plans))


def _device() -> jax.Device:
    config: Any = jax.config  # its settings are not annotated
    return config.jax_default_device or jax.local_devices()[0]


def _free(memory: int | None) -> float:
    """Return how many bytes may be taken."""
    if memory is not None:
        return memory
    device = _device()
    known = device.memory_stats() if device.platform != "cpu" else None
    return known["bytes_limit"] - known["bytes_in_use"] if known else np.inf


def _solve(taken: Taken, plan: Plan, report: Report | None, free: float) -> Solved:
    """Solve one image, in slabs where memory is short."""
    slabs = 0
    while taken.n_bytes(slabs) > free:
        slabs = max(2, 2 * slabs)
        if slabs > taken.most_slabs:
            needed = taken.n_bytes(taken.most_slabs)
            raise MemoryError(
                f"the solve takes {needed} bytes for {taken.n_voxels} voxels; "
                f"expected at most {free:.0f}"
            )
    voxels, layout = taken.lay_out(slabs, FIRST)
    solved = solve(voxels, layout, plan, report)
    if solved.unseen:  # an image that rises from voxel to voxel, made by a program
        voxels, layout = taken.lay_out(slabs, taken.length)
        solved = solve(voxels, layout, plan, report)
    if solved.unseen:
        raise MemoryError(
            f"the image rises throughout the first of {slabs} slabs, and more than {free:.0f} "
            "bytes would be needed to look beyond; expected contrast there"
        )
    return solved


def _batches(taken: Sequence[Taken], plans: Sequence[Plan], free: float) -> list[list[int]]:
    """Numbers of images that share a solve."""
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


def _result(solved: Solved, n_voxels: int, plan: Plan) -> N4Result:
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
    """The field of the shrunk grid on the grid of the image, axes in NIfTI order."""
    scale = (field.lattice.shape[-1] - field.order) / (plan.n_control_points[0] - field.order)
    axes = [axis.image for axis in plan.axes]
    place = (tuple(v * scale for v in column) for column in zip(*axes, strict=True))
    return LogField(field.lattice.T, field.order, *place)
