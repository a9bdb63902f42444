"""Turns on a device, shared by images that wait for it at the same time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import pytest

from n4ax_bids.core.estimator import Estimate
from n4ax_bids.runtime import device, sharing

CPU = jax.local_devices(backend="cpu")[0]


@pytest.fixture(autouse=True)
def like_a_gpu(monkeypatch):
    """One solve at a time, and turns are shared."""
    monkeypatch.setattr(sharing, "_shares", lambda where: True)
    monkeypatch.setattr(sharing, "_waiting", {})
    monkeypatch.setattr(sharing, "_workers", {})
    monkeypatch.setitem(device._turns, CPU, threading.Semaphore(1))
    yield
    for worker in sharing._workers.values():
        worker.shutdown()  # calls that find nobody may still be waiting


@dataclass(eq=False)
class Image:
    """A solve, and its own joint solve; `turns` has the names of those who shared each turn."""

    name: str
    turns: list[list[str]]
    kind: str = "small"
    most: int = 8
    bad: bool = False
    fails: Any = None
    """raised by a shared turn"""
    fails_alone: Any = None

    def __call__(self, report=None):
        self.turns.append([self.name, "alone"])
        if report:
            report(1, 1, 0.5)
        if self.fails_alone:
            raise self.fails_alone
        return self._estimate()

    def joint(self):
        return self

    def solve(self, others):
        every = [self, *others]
        self.turns.append([one.name for one in every])
        for one in every:
            if one.fails:
                raise one.fails
        return [ValueError(f"{one.name} is bad") if one.bad else one._estimate() for one in every]

    def _estimate(self):
        return Estimate(None, self.name)


def ran(images, seen=lambda turn: None):
    """Let each image wait in a thread while the device is busy; return details or errors."""
    with ThreadPoolExecutor(len(images)) as pool:
        waiting = []
        with device.use(CPU):
            for number, image in enumerate(images):
                waiting.append(pool.submit(sharing.solved, image, CPU))
                while len(sharing._waiting.get(CPU, ())) <= number:
                    assert not waiting[-1].done()
                    time.sleep(0.001)
    found = []
    for one in waiting:
        if error := one.exception():
            found.append(error)
        else:
            seen(one.result())
            found.append(one.result().estimate.details)
    return found


def images(names, **more):
    turns = []
    return [Image(name, turns, **more) for name in names], turns


def test_images_that_wait_share_a_turn():
    every, turns = images("abc")
    assert ran(every) == ["a", "b", "c"]
    assert turns == [["a", "b", "c"]]


def test_only_images_of_one_kind_do_and_the_longest_wait_ends_first():
    every, turns = images("abcde")
    every[1].kind = every[3].kind = "other"
    assert ran(every) == list("abcde")
    assert turns == [["a", "c", "e"], ["b", "d"]]


def test_a_turn_has_as_many_images_as_the_method_allows():
    every, turns = images("abcde", most=2)
    assert ran(every) == list("abcde")
    assert turns == [["a", "b"], ["c", "d"], ["e"]]


def test_a_bad_image_fails_alone():
    every, turns = images("abc")
    every[1].bad = True
    first, error, last = ran(every)
    assert (first, last) == ("a", "c")
    assert isinstance(error, ValueError)
    assert str(error) == "b is bad"
    assert turns == [["a", "b", "c"]]


@pytest.mark.parametrize(
    "error",
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GB"), MemoryError("many voxels")),
    ids=("device", "memory"),
)
def test_a_turn_in_which_the_device_fails_is_made_for_each_image(error):
    every, turns = images("abc")
    every[2].fails = error
    every[1].fails_alone = ValueError("b is bad alone")
    first, bad, last = ran(every)
    assert (first, str(bad), last) == ("a", "b is bad alone", "c")
    assert turns == [["a", "b", "c"], ["a", "alone"], ["b", "alone"], ["c", "alone"]]


def test_a_device_that_is_lost_is_told_to_each_image():
    every, _ = images("ab")
    lost = jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_LAUNCH_FAILED")
    for image in every:
        image.fails = image.fails_alone = lost
    assert [type(error) for error in ran(every)] == [device.DeviceError] * 2


def test_an_error_of_ours_reaches_every_image():
    every, turns = images("ab")
    every[0].fails = ZeroDivisionError("a fault")
    assert [str(error) for error in ran(every)] == ["a fault"] * 2
    assert turns == [["a", "b"]]


def test_who_waits_hears_that_the_run_ends():
    every, turns = images("ab")
    with device.closed():
        assert [type(error) for error in ran_closed(every)] == [KeyboardInterrupt] * 2
    assert turns == []
    assert ran(every) == ["a", "b"]  # and later images find a device that works


def ran_closed(every):
    """Ask for turns after the device was closed; return the errors."""
    with ThreadPoolExecutor(len(every)) as pool:
        waiting = [pool.submit(sharing.solved, image, CPU) for image in every]
    return [one.exception() for one in waiting]


def test_who_is_told_of_iterations_has_a_turn_alone():
    (image,), turns = images("a")
    told = []
    found = sharing.solved(image, CPU, lambda *each: told.append(each))
    assert (found.estimate.details, told) == ("a", [(1, 1, 0.5)])
    assert turns == [["a", "alone"]]


def test_a_cpu_shares_no_turn(monkeypatch):
    monkeypatch.undo()
    (image,), turns = images("a")
    assert sharing.solved(image, CPU).estimate.details == "a"
    assert turns == [["a", "alone"]]
    assert not sharing._workers


def test_solves_that_cannot_be_shared_have_a_turn_alone():
    def solve(report):
        return Estimate(None, "plain")

    assert sharing.solved(solve, CPU).estimate.details == "plain"
    (image,), turns = images("a")
    image.joint = lambda: None
    assert sharing.solved(image, CPU).estimate.details == "a"
    assert turns == [["a", "alone"]]


def test_the_time_of_a_turn_is_divided_among_its_images(monkeypatch):
    """And waiting is not counted."""
    clock = [100.0]
    monkeypatch.setattr(sharing.time, "perf_counter", lambda: clock[0])
    every, _ = images("abcd")

    def solve(others):
        clock[0] += 2
        return [each._estimate() for each in (every[0], *others)]

    def wait(image):
        clock[0] += 5
        return image

    every[0].solve = solve
    for image in every:
        image.joint = partial(wait, image)
    seconds = []
    assert ran(every, lambda turn: seconds.append(turn.seconds)) == list("abcd")
    assert seconds == [0.5] * 4
