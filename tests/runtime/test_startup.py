"""Python's search for garbage waits while a command starts, and no longer."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from n4ax_bids.runtime import startup


@pytest.fixture
def started():
    """The process as at the start of a command; afterwards as before."""
    assert gc.isenabled() and gc.get_freeze_count() == 0
    startup.begin()
    yield
    startup.end()
    gc.unfreeze()
    gc.enable()


def test_the_search_waits_and_then_leaves_out_what_is_there(started):
    assert not gc.isenabled() and gc.get_freeze_count() == 0
    startup.end()
    assert gc.isenabled() and gc.get_freeze_count() > 10_000


def test_what_is_made_afterwards_is_found(started):
    startup.end()

    class Ring:
        pass

    ring = Ring()
    ring.self = ring
    del ring
    assert gc.collect() > 0


def test_a_second_begin_does_not_forget_the_first(started):
    startup.begin()
    startup.end()
    assert gc.isenabled()


def test_an_end_without_a_begin_changes_nothing():
    startup.end()
    assert gc.isenabled() and gc.get_freeze_count() == 0
    gc.disable()
    try:
        startup.begin()  # somebody has switched the search off, and it stays off
        startup.end()
        assert not gc.isenabled() and gc.get_freeze_count() == 0
    finally:
        gc.enable()


COMMANDS = {
    "ants_cli": ["-i", "missing.nii", "-o", "out.nii"],
    "apply_cli": ["missing.nii", "image.nii", "-o", "out.nii"],
    "realign_cli": ["missing.nii", "out.nii"],
    "stack_cli": ["missing.nii", "out.nii"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_searches_again_when_it_has_imported_what_it_needs(name, tmp_path):
    code = (
        "import gc, sys\n"
        f"from n4ax_bids.commands import {name}\n"
        f"status = {name}.program()\n"
        "print(status, gc.isenabled(), gc.get_freeze_count() > 10_000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *COMMANDS[name]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "missing" in done.stderr, done.stderr
    assert done.stdout.split() == ["1", "True", "True"], done.stderr
