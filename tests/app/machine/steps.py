"""Runs that make one step at a time, on command, in an order that hypothesis draws.

Each run is a thread that stops before every look at the file system and every change of it. Which
one goes on, and which one is killed, is drawn by hypothesis, which shows the shortest order of
steps that leads to a fault.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

MANY = settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TOKENS = [f"{number:08x}-1-1-{number:08x}" for number in range(1, 5)]
"""of machines other than this one"""


class Killed(BaseException):
    """Ends a run at a step; nothing that it does afterwards has an effect."""


STARTED: list[Run] = []


class Run(threading.Thread):
    """A run that makes one step at a time, on command."""

    def __init__(self, token: str, body: Callable[[Run], None]):
        super().__init__(daemon=True)
        self.token, self._body = token, body
        self._go, self._arrived = threading.Semaphore(0), threading.Semaphore(0)
        self.killed = self.over = False
        self.fault: BaseException | None = None
        STARTED.append(self)
        self.start()
        self._arrived.acquire()

    def run(self) -> None:
        try:
            self.step()
            self._body(self)
        except Killed:
            pass
        except BaseException as fault:
            self.fault = fault
        finally:
            self.over = True
            self._arrived.release()

    def step(self) -> None:
        """Wait for the next turn."""
        self._arrived.release()
        self._go.acquire()
        if self.killed:
            raise Killed

    def advance(self) -> None:
        """Make one step."""
        if not self.over:
            self._go.release()
            self._arrived.acquire()
            if self.fault:
                raise self.fault

    def kill(self) -> None:
        self.killed = True
        while not self.over:
            self.advance()

    def end(self) -> None:
        """Kill the run in any state, and wait for its thread."""
        self.killed = True
        while self.is_alive():
            self._go.release()
            self.join(0.01)


def stepping(function: Callable) -> Callable:
    """Make a run wait for its turn before it calls a function."""

    def call(*args, **kwargs):
        here = threading.current_thread()
        if isinstance(here, Run):
            here.step()
        return function(*args, **kwargs)

    return call


@contextmanager
def in_steps(module, *names):
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(module, name, stepping(getattr(module, name)))
        yield


def bursts(*others: str) -> st.SearchStrategy:
    """Some steps of one run, then of another one, and what else may happen between them."""
    times = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 10, 15, 30])
    steps = st.tuples(st.just("go"), st.integers(0, 2), times)
    if not others:
        return st.lists(steps, min_size=3, max_size=12)
    event = st.tuples(st.sampled_from(others), st.integers(0, 2), st.just(1))
    return st.lists(st.one_of(steps, steps, steps, event), min_size=3, max_size=12)
