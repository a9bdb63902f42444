"""Each fuzz target on inputs that are the same each time; `make fuzz` tries others for longer."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests import fuzz

SEED = 20_000_913
N_INPUTS = {"headers": 300, "texts": 60, "names": 60}
"""those of the last two run the program, which takes a quarter of a second"""


def test_every_target_has_a_number_of_inputs():
    assert N_INPUTS.keys() == fuzz.TARGETS.keys()


@pytest.mark.parametrize("target", N_INPUTS)
def test_hostile_files(target):
    ended = fuzz.run(target, N_INPUTS[target], SEED)
    assert ended.total() >= N_INPUTS[target]
    if target != "names":  # else the inputs are all of one kind, and show little
        assert len(ended) > 1


@pytest.mark.parametrize("how", ["written past Python", "printed", "warned"])
def test_a_check_that_prints_or_warns_fails(how):
    with pytest.raises(AssertionError, match="a lost line"), fuzz.nothing_printed():
        if how == "warned":
            warnings.warn("a lost line", RuntimeWarning, stacklevel=1)
        elif how == "printed":
            print("a lost line", file=sys.__stderr__, flush=True)
        else:
            os.write(2, b"a lost line")


def test_what_a_check_must_not_do_ends_the_program(monkeypatch, capsys):
    def check(value):
        raise KeyError(value)

    inputs, _ = fuzz.TARGETS["names"]
    monkeypatch.setitem(fuzz.TARGETS, "names", (inputs, check))
    monkeypatch.setattr(sys, "argv", ["fuzz", "--seed", "3", "names"])
    assert fuzz.main() == 1
    assert "names: failed with seed " in capsys.readouterr().out


def test_the_program_ends_in_time_and_says_what_it_has_tried():
    words = [sys.executable, "-m", "tests.fuzz", "--minutes", "0.02", "--seed", "1", "headers"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=Path(fuzz.__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("headers: ") and " inputs, {" in done.stdout
    assert done.stderr == ""
