"""Decides whether a run is alive, from its process and its signs of life.

docs/security.md describes the model and the rights of each run. Three sources are used, in this
order:

1. the process table, for a process of this machine;
2. the clock of the file system, which all machines share, for the age of a sign of life;
3. the monotonic clock of this process, for how long a sign of life has not changed.

The wall clock is not used, because it may be wrong and may be set back.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import time
from contextlib import suppress
from pathlib import Path

STALE = 300.0
"""seconds of silence after which a run whose process cannot be seen counts as ended"""
FUTURE = 60.0
"""seconds by which a sign of life may be ahead of the file system's clock"""
PROCESSES = Path("/proc")
"""the process table; tests replace it"""

TOKEN = re.compile(
    r"(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]{1,20})-(?P<start>[0-9]{1,20})-[0-9a-f]{8}"
)
"""the name of a run: machine, process, start of the process, and a random number"""
_seen: dict[str, tuple[int, float]] = {}
"""for each path: the time of its sign of life, and when this process first saw that time"""


def ended(path: Path, token: str, *, now: float, silence: float = STALE) -> bool:
    """Return whether the process of a token has ended.

    Parameters
    ----------
    path : file or folder whose time of last change is the sign of life
    token : name of the run
    now : current time by the clock of the file system
    silence : seconds after which a process that cannot be seen counts as ended; if negative, it
        always does

    Raises
    ------
    FileNotFoundError
        If there is no such path.
    """
    os.stat(path, follow_symlinks=False)
    found = TOKEN.fullmatch(token)
    if found and found["machine"] == machine() and int(found["start"]):
        gone = _process_ended(int(found["pid"]), int(found["start"]))
        if gone is not None:
            return gone
    return is_silent(path, now=now, silence=silence)


def is_silent(path: Path, *, now: float, silence: float = STALE) -> bool:
    """Return whether a sign of life is old, or unchanged for long since this process first saw it.

    A time in the future, from a wrong clock or an archive, is set to the current time if that is
    allowed. Then the silence of an ended run is counted from this look on, and a living run gives
    its next sign of life.
    """
    sign = os.stat(path, follow_symlinks=False).st_mtime_ns
    if silence < 0:
        return True
    age = now - sign / 1e9
    if age < -FUTURE:
        with suppress(OSError, NotImplementedError):  # it belongs to another user
            os.utime(path, follow_symlinks=False)
            _seen.pop(str(path), None)
            return False
    known, since = _seen.get(str(path), (None, 0.0))
    if known != sign:
        _seen[str(path)] = sign, time.monotonic()
        return age > silence
    return age > silence or time.monotonic() - since > silence


def _process_ended(pid: int, start: int) -> bool | None:
    """Return whether a process of this machine has ended, or None if this is not visible.

    The process table may hide the processes of other users (if it is mounted with hidepid). Then
    we can still ask whether a process with this number exists, but not whether it is the same one.
    """
    try:
        state, found = _state_and_start(pid)
    except OSError:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            return None
        return None
    return state in "ZX" or found != start


def start_of(pid: int) -> int | None:
    """Return the start of a process of this machine in ticks, or None if there is no process."""
    try:
        state, start = _state_and_start(pid)
    except OSError:
        return None
    return None if state in "ZX" else start


def _state_and_start(pid: int) -> tuple[str, int]:
    text = (PROCESSES / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    state, *others = text.rpartition(")")[2].split()
    return state, int(others[18])


@functools.cache
def machine() -> str:
    """Return a name for this machine, its current boot and its namespace of process numbers.

    Containers on one machine may have namespaces of their own.
    """
    facts = [platform.node()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
