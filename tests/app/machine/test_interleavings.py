"""Claims and agreements of runs whose steps come in any order, with kills and sleep."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n4ax_bids.app.machine import claims, presence
from n4ax_bids.app.machine.claims import Taken, claimed
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.outputs import agreement
from n4ax_bids.app.outputs.agreement import Differs
from tests.app.machine.steps import MANY, STARTED, TOKENS, Run, bursts, in_steps

NAME = "sub-01/anat/sub-01_T1w.nii.gz"


@pytest.fixture(autouse=True)
def no_run_is_left():
    """End the threads of runs that are still waiting at the end of a test."""
    yield
    while STARTED:
        left = STARTED.pop()
        left.end()


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
