"""The part of the solve on the host: voxels in, lattice out, for one image or a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.estimator import Report
from n4ax_bids.core.field import LogField
from n4ax_bids.core.n4 import convergence
from n4ax_bids.core.n4.compiled import for_gpu, on_gpu, run, run_batch, stacked
from n4ax_bids.core.n4.iterate import State, end_level, last_difference, start
from n4ax_bids.core.n4.levels import (
    MOST_ENTRIES,
    Levels,
    counted,
    lattice_sizes,
    n_entries,
    padded_lattice,
    stack,
    unpadded_lattice,
)
from n4ax_bids.core.n4.plan import Plan
from n4ax_bids.core.n4.residual import Numbers, Program
from n4ax_bids.core.n4.rows import Layout
from n4ax_bids.core.n4.storage import Listed, Storage, listed_on_host
from n4ax_bids.core.n4.whole_rows import WholeRows
from n4ax_bids.options.n4 import NO_STOP, N4Options


class End(NamedTuple):
    """How a level ended."""

    n_iterations: int = 0
    value: float = float("nan")
    """last stopping statistic; NaN if the level has no iterations"""


class Solved(NamedTuple):
    """The lattice of the last level on the shrunk grid, axes in raster order."""

    field: LogField
    ends: list[End]
    unseen: bool
    """whether a rising run extended beyond the voxels that were searched for it; the result is not
    valid then"""
    ranges: np.ndarray
    """(4,), lowest and highest log intensity and ln b at the mask's voxels"""


class _Group(NamedTuple):
    """Levels that share a program."""

    numbers: tuple[int, ...]
    fields: tuple[LogField, ...]
    levels: Levels


def solve(voxels: Storage, layout: Layout, plan: Plan, report: Report | None = None) -> Solved:
    """Run all levels of one image.

    Parameters
    ----------
    voxels, layout : from `rows.lay_out` or `rows_on_device`
    plan : Plan of the image
    report : called after each iteration; see `n4ax_bids.core.estimator.Report`
    """
    ends = [End() for _ in plan.options.n_iterations]
    fields = _fields(plan)
    field, bias = fields[0], _no_bias(voxels)
    unseen = False
    for group in _groups(plan, layout, _gpu(voxels)):
        numbers, program = _program(plan.options, report is not None, voxels, group)
        state = _start(group, field, bias)
        tell = report and (lambda level, *told, at=group.numbers: report(at[level] + 1, *told))
        state = _iterate(voxels, group.levels, state, numbers, program, plan.options, tell)
        field, bias, unseen = _field_of(state.lattice, group), state.bias, bool(state.unseen)
        _note(ends, group, state)
        if unseen:
            break
    return Solved(_refined(field, fields[-1]), ends, unseen, np.asarray(state.ranges))


def solve_batch(
    voxels: WholeRows | list[Storage], layouts: Sequence[Layout], plans: Sequence[Plan]
) -> list[Solved]:
    """Run all levels of several images together; padded shapes and options must be equal.

    Parameters
    ----------
    voxels, layouts : from `taken.lay_out_alike`
    plans : Plan of each image

    Raises
    ------
    ValueError
        If the levels end by ITK's statistic, which the host computes image by image.
    """
    options = plans[0].options
    if can_end_by_itk(options):
        raise ValueError("levels that end by ITK's statistic are solved one image at a time")
    fields = [_fields(plan) for plan in plans]
    now = [each[0] for each in fields]
    first = voxels[0] if isinstance(voxels, list) else voxels
    bias = [_no_bias(first) for _ in plans]
    ends = [[End() for _ in options.n_iterations] for _ in plans]
    unseen = np.zeros(len(plans), bool)
    gpu = _gpu(first)
    every = [_groups(plan, layout, gpu) for plan, layout in zip(plans, layouts, strict=True)]
    for groups in zip(*every, strict=True):
        numbers, program = _program(options, False, first, groups[0])
        levels = _levels_of(groups)
        states = [_start(*each) for each in zip(groups, now, bias, strict=True)]
        state = stacked(states)
        if not program.can_stop:
            shared = ("level", "iteration", "waits", "done")
            state = state._replace(**{name: getattr(states[0], name) for name in shared})
        state = _for_device(first, run_batch)(voxels, state, levels, numbers, program)
        state = _on_host(state)
        bias = [None] * len(plans) if state.bias is None else list(state.bias)
        unseen |= state.unseen
        done = np.broadcast_to(state.done, state.changes.shape)
        for i, group in enumerate(groups):
            now[i] = _field_of(state.lattice[i], group)
            _note(ends[i], group, state._replace(done=done[i], changes=state.changes[i]))
    return [
        Solved(_refined(*each), end, bool(more), seen)
        for *each, end, more, seen in zip(
            now, (f[-1] for f in fields), ends, unseen, state.ranges, strict=True
        )
    ]


def can_end_by_itk(options: N4Options) -> bool:
    """Return whether ITK's statistic, which only the host can compute, may end a level."""
    can_stop = options.convergence_threshold > NO_STOP
    return can_stop and options.convergence_statistic == "itk"


def size_of_lattice(plan: Plan) -> tuple[int, ...]:
    """Return the padded size of the last lattice; images of one batch have the same."""
    return lattice_sizes(_fields(plan)[-1])


def _levels_of(groups: Sequence[_Group]) -> Levels:
    """Return the levels of a batch: one for all images, or stacked if they differ."""
    first = groups[0].levels
    if all(group is groups[0] for group in groups):
        return first
    every: Levels = stacked([group.levels for group in groups])
    return every._replace(max_iterations=first.max_iterations)


def _program(
    options: N4Options, told: bool, voxels: Storage, group: _Group
) -> tuple[Numbers, Program]:
    threshold = options.convergence_threshold
    can_stop, by_itk = threshold > NO_STOP, can_end_by_itk(options)
    fwhm, noise, n_bins = options.histogram_sharpening
    numbers = Numbers(
        stop_at=threshold * convergence.MARGIN if by_itk else threshold,
        host_decides=by_itk,
        wait_always=told,
        fwhm=fwhm,
        noise=noise,
        over_relaxation=options.over_relaxation,
    )
    skip_rising = options.itk_version == "5"
    program = Program(n_bins, can_stop, skip_rising, copies=1, order=options.bspline_order)
    if not _gpu(voxels):
        return numbers, program
    known = isinstance(voxels, WholeRows) and not (told or can_stop)
    n_values = math.prod(voxels.log_image.shape[-2:])
    return numbers, for_gpu(
        program, n_values, counted(group.fields, group.levels) if known else None
    )


def _for_device(voxels: Storage, compiled: Callable[..., State]) -> Callable[..., State]:
    """Return the compiled loop for the device on which the voxels lie."""
    return on_gpu(compiled) if _gpu(voxels) else compiled


def _gpu(voxels: Storage) -> jax.Device | None:
    (device,) = voxels.log_image.devices()
    return None if device.platform == "cpu" else device


def _no_bias(voxels: Storage) -> jax.Array | np.ndarray | None:
    if not isinstance(voxels, Listed):
        return None
    # numpy's on a CPU, so that nothing is compiled; on a GPU they would have to be transferred.
    xp = jax.numpy if _gpu(voxels) else np
    return xp.zeros(voxels.log_image.shape, voxels.log_image.dtype)


@lru_cache(maxsize=32)
def _fields(plan: Plan) -> tuple[LogField, ...]:
    """Return a zero field on the shrunk grid for each level, axes in raster order."""
    first, step, clamp = zip(*(axis.sample for axis in reversed(plan.axes)), strict=True)
    order, points = plan.options.bspline_order, np.array(plan.n_control_points[::-1])
    fields = []
    for level in range(len(plan.options.n_iterations)):
        scale = 2**level if plan.options.refine else 1
        lattice = np.zeros((points - order) * scale + order, plan.options.precision)
        place = (tuple(scale * v for v in values) for values in (first, step, clamp))
        fields.append(LogField(lattice, order, *place))
    return tuple(fields)


@lru_cache(maxsize=32)
def _groups(plan: Plan, layout: Layout, gpu: jax.Device | None = None) -> list[_Group]:
    """Group the levels that have iterations: all together, or one by one to save memory.

    On a GPU, the matrices lie there: they are not copied again for every image.
    """
    fields, most = _fields(plan), plan.options.n_iterations
    active = [level for level, n in enumerate(most) if n]
    shared = active and len(active) * n_entries(fields[active[-1]], layout) <= MOST_ENTRIES
    groups = []
    for numbers in [active] if shared else [[level] for level in active]:
        chosen = tuple(fields[level] for level in numbers)
        levels = stack(chosen, [most[level] for level in numbers], layout)
        if gpu:
            counts = levels.max_iterations
            levels = jax.device_put(levels, gpu)._replace(max_iterations=counts)
        groups.append(_Group(tuple(numbers), chosen, levels))
    return groups


def _start(group: _Group, field: LogField, bias: jax.Array | np.ndarray | None) -> State:
    lattice = np.asarray(_refined(field, group.fields[0]).lattice)
    sizes = lattice_sizes(group.fields[-1])
    return start(padded_lattice(lattice, sizes), bias, len(group.numbers))


def _field_of(lattice: jax.Array | np.ndarray, group: _Group) -> LogField:
    last = group.fields[-1]
    return last._replace(lattice=unpadded_lattice(lattice, last.lattice))


def _note(ends: list[End], group: _Group, state: State) -> None:
    for level, n, value in zip(group.numbers, state.done, state.changes, strict=True):
        ends[level] = End(int(n), float(value))


def _iterate(
    voxels: Storage,
    levels: Levels,
    state: State,
    numbers: Numbers,
    program: Program,
    options: N4Options,
    tell: Report | None,
) -> State:
    """Run the levels of one group.

    The compiled loop ends levels by itself. It returns to the host only if ITK's own statistic
    might end a level, or if each iteration is reported; the host then decides and continues it.
    """
    while True:
        state = _for_device(voxels, run)(voxels, state, levels, numbers, program)
        known = _on_host(state)
        if not known.waits or known.unseen:
            return known
        value, n = float(known.change), int(known.iteration)
        ends = program.can_stop and value <= numbers.stop_at
        shown = value
        if (numbers.host_decides and ends) or (tell and options.convergence_statistic == "itk"):
            difference = np.asarray(last_difference(voxels, state, levels), np.float32)
            shown = convergence.itk(difference[listed_on_host(voxels)])
        if numbers.host_decides and ends:
            value, ends = shown, shown <= options.convergence_threshold
        if tell:
            tell(int(known.level), n, shown)
        if ends or n == levels.max_iterations[known.level]:
            state = end_level(levels, state._replace(bias=None), value)._replace(bias=state.bias)
        else:
            goes_on: Any = np.False_  # nothing is compiled for it
            state = state._replace(waits=goes_on)


def _on_host(state: State) -> State:
    """Return a state whose small arrays are numpy's, after one wait for the device."""
    long: Any = {"bias": None, "previous": None}
    return State(**jax.device_get(state._replace(**long))._asdict() | {"bias": state.bias})


def _refined(field: LogField, later: LogField) -> LogField:
    """Return the same function on the lattice of a later level."""
    lattice = np.asarray(field.lattice)
    while lattice.shape != later.lattice.shape:
        lattice = bspline.refine(lattice, field.order)
    return later._replace(lattice=lattice)
