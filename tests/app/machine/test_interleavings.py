"""Claims and agreements of runs whose steps come in any order, with kills, sleep and wrong clocks.

Each run is a thread that stops before every look at the file system and every change of it. Which
one goes on, and which one is killed, is drawn by hypothesis, which shows the shortest order of
steps that leads to a fault.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from n4ax_bids.app.machine import claims, expiry, presence
from n4ax_bids.app.machine.claims import Taken, claimed
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.outputs import agreement
from n4ax_bids.app.outputs.agreement import Differs

NAME = "sub-01/anat/sub-01_T1w.nii.gz"
MANY = settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TOKENS = [f"{number:08x}-1-1-{number:08x}" for number in range(1, 5)]
"""of machines other than this one"""


class Killed(BaseException):
    """Ends a run at a step; nothing that it does afterwards has an effect."""


STARTED: list[Run] = []


@pytest.fixture(autouse=True)
def no_run_is_left():
    """End the threads of runs that are still waiting at the end of a test."""
    yield
    while STARTED:
        left = STARTED.pop()
        left.end()


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


class World:
    """Runs that claim one image, and which of them are alive."""

    def __init__(self, folder: Path, n_runs: int):
        self.folder, self.dead, self.asleep = folder, set(), set()
        self.publishing: list[str] = []
        self.overlaps: list[list[str]] = []
        self.published = 0
        self.runs = [Run(token, self.work) for token in TOKENS[:n_runs]]

    def lives(self, token: str) -> bool:
        return token in TOKENS and token not in self.dead | self.asleep

    def presence_of(self, token: str) -> Presence:
        world = self

        class Stub(Presence):
            def lives(self, token: str) -> bool:
                return world.lives(token)

            def is_young(self, path: Path) -> bool:
                return False

        return Stub(self.folder / f"{presence.PREFIX}{token}")

    def work(self, run: Run) -> None:
        """Claim the image twice, and put outputs in place if the claim still holds."""
        for _ in range(2):
            try:
                with claimed(self.folder, NAME, self.presence_of(run.token)) as claim:
                    if not claim.holds():
                        raise Taken
                    self.publishing.append(run.token)
                    awake = [t for t in self.publishing if t not in self.asleep | self.dead]
                    if len(awake) > 1:
                        self.overlaps.append(awake)
                    for _ in range(6):
                        run.step()
                    self.publishing.remove(run.token)
                    self.published += 1
            except Taken:
                pass

    def kill(self, run: Run) -> None:
        self.dead.add(run.token)
        run.kill()

    def finish(self) -> None:
        for _ in range(2000):
            for run in self.runs:
                run.advance()
            if all(run.over for run in self.runs):
                return
        pytest.fail("a run goes on for ever")


def bursts(*others: str) -> st.SearchStrategy:
    """Some steps of one run, then of another one, and what else may happen between them."""
    times = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 10, 15, 30])
    steps = st.tuples(st.just("go"), st.integers(0, 2), times)
    if not others:
        return st.lists(steps, min_size=3, max_size=12)
    event = st.tuples(st.sampled_from(others), st.integers(0, 2), st.just(1))
    return st.lists(st.one_of(steps, steps, steps, event), min_size=3, max_size=12)


@pytest.mark.parametrize("links", [True, False])
@given(moves=st.one_of(bursts(), bursts("kill")), dead_before=st.integers(0, 2))
@MANY
def test_an_image_is_put_in_place_by_one_run_at_a_time(links, moves, dead_before):
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not links:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(os, "symlink", no_links)
        for number in range(dead_before):
            claims._make(claims._at(folder / claims.key(NAME), number), TOKENS[3])
        stack.enter_context(in_steps(claims, "_make", "_read", "_numbers", "_remove"))
        world = World(folder, 3)
        world.dead.add(TOKENS[3])
        for move, which, times in moves:
            if move == "kill":
                world.kill(world.runs[which])
            for _ in range(times):
                world.runs[which].advance()
        world.finish()
        assert not world.overlaps
        # Whoever comes next gets the image, and leaves nothing behind.
        before, next_one = world.published, Run(TOKENS[0], world.work)
        world.dead = set(TOKENS[1:])
        if not world.runs[0].killed:
            while not next_one.over:
                next_one.advance()
            assert world.published == before + 2
            assert list(folder.iterdir()) == []


@pytest.mark.parametrize("dead_before", [0, 1, 2])
def test_every_pair_of_interruptions(dead_before):
    """One run stops after some steps, the other one after some more; the first goes on, and then
    the second: all numbers of steps, not those alone that are drawn."""
    with in_steps(claims, "_make", "_read", "_numbers", "_remove"):
        for first in range(1, 24):
            for second in range(1, 34):
                with tempfile.TemporaryDirectory() as place:
                    for number in range(dead_before):
                        claims._make(Path(place, f"{claims.key(NAME)}.{number}"), TOKENS[3])
                    world = World(Path(place), 2)
                    world.dead.add(TOKENS[3])
                    for run, times in ((0, first), (1, second), (0, 60), (1, 60)):
                        for _ in range(times):
                            world.runs[run].advance()
                    world.finish()
                    assert not world.overlaps, (first, second)
                    assert list(Path(place).iterdir()) == []


def no_links(*_):
    raise PermissionError(1, "no links here")


@given(moves=bursts("sleep", "wake"))
@MANY
def test_a_run_that_was_taken_for_dead_does_not_go_on_with_an_image_of_another(moves):
    """It checks its claim again before it puts its files in place."""
    with (
        tempfile.TemporaryDirectory() as place,
        in_steps(claims, "_make", "_read", "_numbers", "_remove"),
    ):
        world = World(Path(place), 3)
        for move, which, times in moves:
            run = world.runs[which]
            if move == "sleep":
                world.asleep.add(run.token)
            elif move == "wake":
                world.asleep.discard(run.token)
            for _ in range(0 if run.token in world.asleep else times):
                run.advance()
        world.asleep.clear()
        world.finish()
        for claim in Path(place).iterdir():
            assert os.readlink(claim) in TOKENS


TERMS = {
    "version": "1",
    "settings": {"desc": "a"},
    "source": {"name": "x", "version": "y", "doi": "", "authors": [], "is_named": True},
}


class Meeting:
    """Runs that begin in one folder, each with its own settings."""

    def __init__(self, folder: Path, labels: list[str]):
        self.folder, self.labels = folder, dict(zip(TOKENS, labels, strict=False))
        self.gone: set[str] = set()
        self.at_work: list[str] = []
        self.refused: list[str] = []
        self.runs = [Run(token, self.begin) for token in self.labels]

    def begin(self, run: Run) -> None:
        meeting = self

        class Stub(Presence):
            def lives(self, token: str) -> bool:
                return token not in meeting.gone

        folder = self.folder / f"{presence.PREFIX}{run.token}"
        folder.mkdir()
        here = Stub(folder)
        terms = TERMS | {"settings": {"desc": self.labels[run.token]}}
        try:
            agreement.settle(here, terms, pause=lambda _: run.step())
            self.at_work.append(run.token)
        except Differs:
            self.gone.add(run.token)
            self.refused.append(run.token)


@given(
    labels=st.lists(st.sampled_from("ab"), min_size=2, max_size=3),
    moves=st.one_of(bursts(), bursts("kill")),
)
@MANY
def test_runs_with_other_settings_are_never_at_work_together(labels, moves):
    with tempfile.TemporaryDirectory() as place, in_steps(presence, "_mark", "marker"):
        meeting = Meeting(Path(place), labels)
        for move, which, times in moves:
            run = meeting.runs[which % len(meeting.runs)]
            if move == "kill" and run.token not in meeting.at_work:
                meeting.gone.add(run.token)
                run.kill()
            for _ in range(times):
                run.advance()
        for _ in range(1000):
            for run in meeting.runs:
                run.advance()
        assert all(run.over for run in meeting.runs)
        assert len({meeting.labels[token] for token in meeting.at_work}) <= 1
        # Not all of them end where none was killed.
        assert meeting.at_work or any(run.killed for run in meeting.runs)
        if len(set(labels)) == 1:
            assert not meeting.refused


class Clocks:
    """A file system with one file, its clock, and the clock of this process."""

    def __init__(self, sign: float, *, may_set: bool):
        self.now, self.monotonic, self.sign, self._may_set = 1e9, 0.0, sign, may_set

    def stat(self, path, follow_symlinks=True):
        return os.stat_result((0,) * 10, {"st_mtime_ns": round(self.sign * 1e9)})

    def utime(self, path, follow_symlinks=True):
        if not self._may_set:
            raise PermissionError
        self.sign = self.now

    def time_goes_on(self, seconds: float) -> None:
        self.now, self.monotonic = self.now + seconds, self.monotonic + seconds

    @contextmanager
    def tell_the_time(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(expiry, "os", self)
            patch.setattr(expiry.time, "monotonic", lambda: self.monotonic)
            patch.setattr(expiry, "_seen", {})
            yield

    def is_silent(self) -> bool:
        return expiry.is_silent(Path("sign"), now=self.now)


@given(
    ahead=st.floats(-1e8, 1e9),
    pauses=st.lists(st.floats(0, 100), max_size=50),
    watch=st.sampled_from(["one", "may set", "many, may set"]),
)
@MANY
def test_a_run_that_has_ended_holds_nothing_for_ever(ahead, pauses, watch):
    """This holds for any time of its last sign, whether or not a process may set this time."""
    clocks = Clocks(1e9 + ahead, may_set="may set" in watch)
    with clocks.tell_the_time():
        was_silent = clocks.is_silent()
        for pause in [*pauses, expiry.STALE, expiry.STALE]:
            clocks.time_goes_on(pause)
            if "many" in watch:
                expiry._seen.clear()
            silent = clocks.is_silent()
            assert silent or not was_silent  # nobody comes back
            was_silent = silent
        assert was_silent


@given(
    skew=st.floats(-200, 1e9),
    pauses=st.lists(st.floats(0.1, 30), min_size=1, max_size=60),
    looks=st.lists(st.booleans(), min_size=60, max_size=60),
    may_set=st.booleans(),
)
@MANY
def test_a_run_that_gives_signs_is_never_dead(skew, pauses, looks, may_set):
    """This holds even if the signs carry its own clock, which may be minutes wrong or ahead."""
    clocks = Clocks(1e9 + skew, may_set=may_set)
    with clocks.tell_the_time():
        for pause, look in zip(pauses, looks, strict=False):
            assert not (look and clocks.is_silent())
            clocks.time_goes_on(pause)
            assert not clocks.is_silent()
            clocks.sign = clocks.now + skew
