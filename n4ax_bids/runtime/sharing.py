"""Solves take turns on a device; images that wait for the same GPU anyway share a turn."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax

from n4ax_bids.core.estimator import Estimate, Joint, Report, Solve
from n4ax_bids.runtime import compilation
from n4ax_bids.runtime import device as devices

_log = logging.getLogger(__name__)


class Turn(NamedTuple):
    """The result of a solve."""

    estimate: Estimate
    seconds: float
    """wall time, without waiting for the device; of a turn that images shared, the part of one
    image"""


@dataclass(eq=False)
class _Waiting:
    """An image that waits for a device, in the thread that brought it."""

    joint: Joint
    kind: Hashable
    most: int
    told: threading.Event = field(default_factory=threading.Event)
    result: Turn | ValueError | None = None
    """of its turn in another thread"""
    leads: bool = False
    """whether the next turn is its own"""


@dataclass
class _Queue:
    """The images that wait for one device, the first to come in front."""

    waiting: list[_Waiting] = field(default_factory=list)
    busy: bool = False
    """whether a thread leads a turn"""


_changing = threading.Lock()
_queues: dict[jax.Device, _Queue] = {}


def solved(solve: Solve, where: jax.Device, report: Report | None = None) -> Turn:
    """Run a solve on a device when it is this thread's turn.

    On a GPU, a turn is shared by all images of one kind that wait for it, up to the number that
    their method names; the thread of the first one runs it for all. If such a turn fails, because
    the device refuses its memory for instance, each of its images has a turn of its own.

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
    start = time.perf_counter()
    joint = _joint(solve) if report is None and _shares(where) else None
    if joint is None:
        return _alone(solve, where, report)
    mine = _Waiting(joint, joint.kind, max(1, joint.most))
    hash(mine.kind)  # an error belongs to this image and not to those that are compared with it
    prepared = time.perf_counter() - start
    _wait(mine, where)
    if mine.leads:
        _lead(mine, where)
    found, mine.result = mine.result, None
    if found is None:
        return _again(solve, mine, where)
    if isinstance(found, ValueError):
        try:
            raise found
        finally:
            del found  # it holds this frame, and so the arrays of the image
    return found._replace(seconds=found.seconds + prepared)


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


def _wait(mine: _Waiting, where: jax.Device) -> None:
    """Wait until the turn of an image is over, or is to be led by this thread."""
    with _changing:
        queue = _queues.setdefault(where, _Queue())
        if not queue.busy:
            queue.busy = mine.leads = True
            return
        queue.waiting.append(mine)
    try:
        mine.told.wait()
    except BaseException:  # Ctrl+C
        with _changing:
            queue.waiting = [one for one in queue.waiting if one is not mine]
        if mine.leads:
            _pass_on(queue)
        raise


def _lead(mine: _Waiting, where: jax.Device) -> None:
    """Run the turn of an image, and of those that can share it; each finds its result.

    After an error there is none, and each image tries again by itself, in its own thread.
    """
    queue, others = _queues[where], list[_Waiting]()
    try:
        with devices.use(where), compilation.kept():
            others = _of_its_kind(mine, queue)
            start = time.perf_counter()
            estimates = mine.joint.solve([one.joint for one in others])
            seconds = (time.perf_counter() - start) / len(estimates)
        for one, found in zip((mine, *others), estimates, strict=True):
            one.result = found if isinstance(found, ValueError) else Turn(found, seconds)
    except Exception as error:
        text = " ".join(str(error).split())
        _log.info("a solve of %d images has failed: %s", 1 + len(others), text)
        for one in (mine, *others):
            one.result = None
    finally:
        _pass_on(queue)
        for one in others:
            one.told.set()


def _of_its_kind(mine: _Waiting, queue: _Queue) -> list[_Waiting]:
    """Take those who can share a turn out of the queue."""
    with _changing:
        same = [one for one in queue.waiting if one.kind == mine.kind][: mine.most - 1]
        queue.waiting = [one for one in queue.waiting if one not in same]
    return same


def _pass_on(queue: _Queue) -> None:
    """Let the image that has waited longest lead the next turn."""
    with _changing:
        queue.busy = bool(queue.waiting)
        if queue.busy:
            first = queue.waiting.pop(0)
            first.leads = True
            first.told.set()


def _again(solve: Solve, mine: _Waiting, where: jax.Device) -> Turn:
    """Solve one image after a turn that has failed: as in company, for equal bits, else alone."""
    try:
        with devices.use(where), compilation.kept():
            start = time.perf_counter()
            (found,) = mine.joint.solve([])
            seconds = time.perf_counter() - start
        if not isinstance(found, ValueError):
            return Turn(found, seconds)
    except Exception:
        found = None
    # Not in the block above: there, the error still holds the arrays on the device.
    return _alone(solve, where)
