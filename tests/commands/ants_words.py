"""The ANTs program and n4ax-n4, run with words of a command line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from n4ax_bids.commands import ants_cli

needs_ants = pytest.mark.skipif(
    not importlib.util.find_spec("ants"), reason="antspyx is not installed"
)

ANTS = """
import json, sys
from ants.internal import get_lib_fn
statuses = []
for words in json.loads(sys.argv[1]):
    try:
        statuses.append(get_lib_fn("N4BiasFieldCorrection")(words))
    except RuntimeError:  # as the program, which ends with 1
        statuses.append(1)
print("statuses", json.dumps(statuses))
"""


def ants_program(cwd, *runs):
    """Run the ANTs program, which antspyx carries, in a process of its own: it may crash.

    Returns the exit statuses and what was printed.
    """
    words = [sys.executable, "-c", ANTS, json.dumps(runs)]
    done = subprocess.run(words, check=True, timeout=300, cwd=cwd, capture_output=True, text=True)
    printed, _, statuses = done.stdout.rpartition("statuses ")
    return json.loads(statuses), printed


def ours(*words):
    return ants_cli.main([str(word) for word in words])
