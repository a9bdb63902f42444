"""When a run counts as dead by the time of its last sign, with clocks that are wrong."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n4ax_bids.app.machine import expiry
from tests.app.machine.steps import MANY


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
