"""Room for compiled programs.

Each program that XLA compiles for a CPU lies in memory maps of its own, and Linux gives a process
65530 of them (`vm.max_map_count`). XLA ends the process where one more is refused. A set of
options takes about 400, so that a session which tries some hundred of them would die.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import jax

EVERY = 16
"""calls from one look to the next; the programs of so many calls take at most 10000 maps"""

_calls = itertools.count()


def make_room() -> None:
    """Let go of all compiled programs if they take half of the maps that this process may have.

    Estimators call this before they begin. What is needed again is compiled again, or found in the
    folder of compiled programs.
    """
    if next(_calls) % EVERY == 0 and is_crowded():
        jax.clear_caches()


def is_crowded(share: float = 0.5) -> bool:
    """Return whether this process holds more than this share of the maps it may have."""
    try:
        allowed = int(Path("/proc/sys/vm/max_map_count").read_text())
        with open("/proc/self/maps", "rb") as maps:
            return sum(1 for _ in maps) > share * allowed
    except (OSError, ValueError):  # not Linux
        return False
