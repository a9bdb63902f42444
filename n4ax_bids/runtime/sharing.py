"""Solves take turns on a device; images that wait for the same GPU anyway share a turn."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax

from n4ax_bids.core.estimator import Estimate, Joint, Report, Solve
from n4ax_bids.runtime import compilation
from n4ax_bids.runtime import device as devices


class Turn(NamedTuple):
    """The result of a solve."""

    estimate: Estimate
    seconds: float
    """wall time on the device, without waiting for it; of a turn that images shared, the part of
    one image"""


class _Waiting(NamedTuple):
    """An image that waits for a device."""

    solve: Solve
    joint: Joint
    result: Future[Turn]


_changing = threading.Lock()
_waiting: dict[jax.Device, deque[_Waiting]] = {}
_workers: dict[jax.Device, ThreadPoolExecutor] = {}
"""a thread for each GPU, which runs the turns; all who wait in one are told at once"""


def solved(solve: Solve, where: jax.Device, report: Report | None = None) -> Turn:
    """Run a solve on a device when it is this thread's turn.

    On a GPU, a turn is shared by all images of one kind that wait for it, up to the number that
    their method names. If the device fails in such a turn, because it has too little memory for
    instance, each of the images has a turn of its own.

    Parameters
    ----------
    solve : from an `Estimator`
    where : the device
    report : called after each iteration; such a solve has a turn of its own

    Raises
    ------
    DeviceError
        As `n4ax_bids.runtime.device.use`.
    ValueError
        As the solve.
    """
    joint = _joint(solve) if report is None and _shares(where) else None
    if joint is None:
        return _alone(solve, where, report)
    mine = _Waiting(solve, joint, Future())
    with _changing:
        _waiting.setdefault(where, deque()).append(mine)
        if where not in _workers:
            _workers[where] = ThreadPoolExecutor(1, "turns")
        _workers[where].submit(_next_turn, where)
    return mine.result.result()


def _shares(where: jax.Device) -> bool:
    """Return whether turns are shared: a CPU runs several solves at a time instead."""
    return where.platform != "cpu"


def _joint(solve: Solve) -> Joint | None:
    make = getattr(solve, "joint", None)
    return make and make()


def _alone(solve: Solve, where: jax.Device, report: Report | None = None) -> Turn:
    with devices.use(where), compilation.kept():
        start = time.perf_counter()
        estimate = solve(report)
        return Turn(estimate, time.perf_counter() - start)


def _next_turn(where: jax.Device) -> None:
    """Run the turn of the image that has waited longest, and of those that can share it.

    There is a call for each image; those whose images have had their turn find nobody, or others.
    """
    some: list[_Waiting] = []
    try:
        with devices.use(where), compilation.kept():
            some = _of_one_kind(where)
            turns = _together(some)
    except (devices.DeviceError, MemoryError):
        turns = [_tried_alone(one, where) for one in some]
    except BaseException as error:  # also if the run is being ended: each thread must hear it
        some = some or _of_one_kind(where)
        turns = [error] * len(some)
    for one, turn in zip(some, turns, strict=True):
        if isinstance(turn, Turn):
            one.result.set_result(turn)
        else:
            one.result.set_exception(turn)


def _of_one_kind(where: jax.Device) -> list[_Waiting]:
    """Take the first who waits, and others of its kind, out of the queue."""
    waiting = _waiting[where]
    with _changing:
        if not waiting:
            return []
        first = waiting[0].joint
        same = [one for one in waiting if one.joint.kind == first.kind][: first.most]
        for one in same:
            waiting.remove(one)
        return same


def _together(some: Sequence[_Waiting]) -> list[Turn | BaseException]:
    if not some:
        return []
    start = time.perf_counter()
    first, *others = (one.joint for one in some)
    estimates = first.solve(others)
    seconds = (time.perf_counter() - start) / len(some)
    return [
        one if isinstance(one, ValueError) else Turn(one, seconds)
        for one, _ in zip(estimates, some, strict=True)  # an image without a result would wait on
    ]


def _tried_alone(one: _Waiting, where: jax.Device) -> Turn | BaseException:
    try:
        return _alone(one.solve, where)
    except BaseException as error:
        return error
