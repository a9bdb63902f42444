"""Whether a run goes on: what its process and its signs of life tell, and which clock counts.

The model, with who may do what, is in docs/security.md. Three sources are asked, in this order:

1. the process table, for a process of this machine;
2. the clock of the file system, for the age of a sign of life: all machines share it;
3. this process' own monotonic clock, for how long a sign of life has not changed.

The clock that tells the date is asked for nothing: it may be wrong, and may be set back.
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
"""the process table; tests put another one here"""

TOKEN = re.compile(
    r"(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]{1,20})-(?P<start>[0-9]{1,20})-[0-9a-f]{8}"
)
"""what names a run: its machine, its process with the time at which that started, and chance"""
_seen: dict[str, tuple[int, float]] = {}
"""path → the time of the sign of life there, and when this process saw that time first"""


def ended(path: Path, token: str, *, now: float, silence: float = STALE) -> bool:
    """Return whether the process of a token has ended.

    Parameters
    ----------
    path : what carries its sign of life, the time of the last change
    token : of the run
    now : by the clock of the file system
    silence : seconds after which a process that cannot be seen counts as ended; below 0, it does

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
    """Return whether a sign of life is old, or has not changed for long while this process looked.

    A time in the future, as a wrong clock or an archive leaves it, is set to now where that is
    allowed. So the silence of a run that has ended is counted from the first look on, and one that
    goes on gives its next sign of life.
    """
    sign = os.stat(path, follow_symlinks=False).st_mtime_ns
    if silence < 0:
        return True
    age = now - sign / 1e9
    if age < -FUTURE:
        with suppress(OSError, NotImplementedError):  # another user's
            os.utime(path, follow_symlinks=False)
            _seen.pop(str(path), None)
            return False
    known, since = _seen.get(str(path), (None, 0.0))
    if known != sign:
        _seen[str(path)] = sign, time.monotonic()
        return age > silence
    return age > silence or time.monotonic() - since > silence


def _process_ended(pid: int, start: int) -> bool | None:
    """Return whether a process of this machine has ended; None if that cannot be seen.

    The process table may hide other users' processes (mounted with hidepid). Whether there is a
    process of that number can still be asked, but not whether it is the same one.
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
    """Return when a process of this machine has started, in ticks; None if there is none."""
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
    """Return a name for this boot of this machine and its set of process numbers.

    Containers on one machine may have process numbers of their own.
    """
    facts = [platform.node()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
