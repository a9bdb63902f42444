"""Turns on a device, shared by images that wait for it at the same time."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import pytest

from n4ax_bids.core.estimator import Estimate
from n4ax_bids.runtime import device, sharing
from tests.turns import CPU, n_waiting, share_turns


@pytest.fixture(autouse=True)
def like_a_gpu(monkeypatch):
    """One solve at a time, and turns are shared."""
    share_turns(monkeypatch)


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
                while n_waiting() <= number:
                    assert not waiting[-1].done()
                    time.sleep(0.001)
    assert not sharing._queues[CPU].busy and not sharing._queues[CPU].waiting
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
    (
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GB"),
        MemoryError("many voxels"),
        ZeroDivisionError("a fault of ours"),
    ),
    ids=("device", "memory", "fault"),
)
def test_after_a_turn_that_fails_each_image_tries_again(error):
    """In a turn as in company, so that its bits are the same; only if that fails too, alone."""
    every, turns = images("abc")
    every[2].fails = error
    assert ran(every) == ["a", "b", "c"]
    assert turns[0] == ["a", "b", "c"]
    assert sorted(turns[1:]) == [["a"], ["b"], ["c"], ["c", "alone"]]


def test_a_device_that_is_lost_is_told_to_each_image():
    every, _ = images("ab")
    lost = jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_LAUNCH_FAILED")
    for image in every:
        image.fails = image.fails_alone = lost
    first, second = ran(every)
    assert type(first) is type(second) is device.DeviceError
    assert first is not second  # each thread adds its own frames to the traceback


def test_results_that_are_too_few_leave_nobody_waiting():
    every, turns = images("ab")
    every[0].solve = lambda others: [every[0]._estimate()]
    assert ran(every) == ["a", "b"]
    assert turns == [["b"]]


def test_an_image_whose_kind_cannot_be_compared_fails_alone():
    every, turns = images("ab")
    every[1].kind = ["not hashable"]
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(sharing.solved, image, CPU) for image in every)
    assert first.result().estimate.details == "a"
    assert isinstance(second.exception(), TypeError)
    assert turns == [["a"]]


def test_an_interruption_of_the_leader_leaves_nobody_waiting():
    every, turns = images("ab")
    every[0].fails = KeyboardInterrupt()
    first, second = ran(every)
    assert (type(first), second) == (KeyboardInterrupt, "b")
    assert turns == [["a", "b"], ["b"]]


def test_an_image_that_waits_can_be_interrupted():
    """As by Ctrl+C in the main thread."""
    every, turns = images("ab")

    def interrupted(timeout=None):
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        with device.use(CPU):
            first = pool.submit(sharing.solved, every[0], CPU)
            while not n_waiting():
                time.sleep(0.001)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(threading.Event, "wait", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    sharing.solved(every[1], CPU)
    assert first.result().estimate.details == "a"
    assert turns == [["a"]]


def test_nothing_holds_an_image_after_its_turn():
    """Neither a result, nor an error and the frames that it knows; no collection is needed."""
    gc.collect()
    gc.disable()
    try:
        for case in ("fine", "bad", "fails"):
            every, _ = images("abc")
            every[1].bad = case == "bad"
            every[1].fails = MemoryError if case == "fails" else None
            kept = [weakref.ref(image) for image in every]
            found = ran(every)
            assert len(found) == 3
            del every, found
            assert [one() for one in kept] == [None] * 3, case
    finally:
        gc.enable()


def test_the_arrays_of_a_failed_turn_are_free_in_the_next_attempt():
    class Array:
        pass

    every, _ = images("a")
    held, alive = [], []

    def solve(others):
        array = Array()
        held.append(weakref.ref(array))
        alive.append([one() is not None for one in held])
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")

    every[0].solve = solve
    gc.collect()
    gc.disable()
    try:
        assert ran(every) == ["a"]
    finally:
        gc.enable()
    assert alive == [[True], [False, True]]
    assert [one() for one in held] == [None, None]


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
    assert not sharing._queues


def test_solves_that_cannot_be_shared_have_a_turn_alone():
    def solve(report):
        return Estimate(None, "plain")

    assert sharing.solved(solve, CPU).estimate.details == "plain"
    (image,), turns = images("a")
    image.joint = lambda: None
    assert sharing.solved(image, CPU).estimate.details == "a"
    assert turns == [["a", "alone"]]


def test_the_time_of_a_turn_is_divided_among_its_images(monkeypatch):
    """And what each has prepared before is added."""
    clock = [100.0]
    monkeypatch.setattr(sharing.time, "perf_counter", lambda: clock[0])
    every, _ = images("abcd")

    def solve(others):
        clock[0] += 2
        return [each._estimate() for each in (every[0], *others)]

    def prepared(image):
        clock[0] += 5
        return image

    every[0].solve = solve
    for image in every:
        image.joint = partial(prepared, image)
    seconds = []
    assert ran(every, lambda turn: seconds.append(turn.seconds)) == list("abcd")
    assert seconds == [5.5] * 4
