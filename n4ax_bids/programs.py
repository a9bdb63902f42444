"""Programs of others, run so that they end when whoever started them ends or wants it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LINES = 20
"""lines of a program's output that are kept for a message"""
POLL = 0.1
"""seconds between two looks at whether a run is to end"""
PATIENCE = 5.0
"""seconds that a program has to end by itself"""
SAID = "said.txt"
"""in a program's folder: what it printed"""

# The keeper starts the program and waits for it. Its standard input is a pipe from us that nobody
# writes to: it ends when we close it, and also when this process is killed. Then the keeper ends
# the process group, in which the program and all that it has started are.
KEEPER = f"""
import os, select, signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: None)
try:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
except OSError as error:
    sys.exit(f"{{sys.argv[1]}}: {{error.strerror}}")
while child.poll() is None:
    if select.select([0], [], [], {POLL})[0]:
        os.killpg(0, signal.SIGTERM)
        try:
            child.wait({PATIENCE})
        except subprocess.TimeoutExpired:
            pass
        os.killpg(0, signal.SIGKILL)
sys.exit(child.returncode if child.returncode >= 0 else 128 - child.returncode)
"""


class Ended(NamedTuple):
    """How a program has ended."""

    status: int
    """exit status; 128 + n where signal n has ended it"""
    said: tuple[str, ...]
    """the last lines of what it printed, on either stream"""

    @property
    def how(self) -> str:
        """The status in words."""
        if self.status <= 128:
            return f"exit status {self.status}"
        killed = "; out of memory?" if self.status == 128 + signal.SIGKILL else ""
        return f"signal {self.status - 128}{killed}"


def never() -> bool:
    """Return that a run goes on."""
    return False


def run(
    words: Sequence[str | Path],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    stopped: Callable[[], bool] = never,
) -> Ended:
    """Run a program in a folder and wait for its end.

    Parameters
    ----------
    words : the program and what follows it
    folder : current folder of the program; what it prints is written there
    environment : variables, default those of this process
    stopped : says whether this run is to end; looked at ten times a second

    Raises
    ------
    KeyboardInterrupt
        If the run is to end. The program has ended then, with all that it had started.
    """
    said = folder / SAID
    command = [sys.executable, "-I", "-S", "-c", KEEPER, *map(str, words)]
    with open(said, "wb") as file:
        keeper = subprocess.Popen(
            command,
            cwd=folder,
            env=None if environment is None else dict(environment),
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl+C reaches us alone, and its group is its own
        )
    try:
        while keeper.poll() is None:
            if stopped():
                raise KeyboardInterrupt
            time.sleep(POLL / 4)
    finally:
        _end(keeper)
    return Ended(keeper.returncode, _tail(said))


def _end(keeper: subprocess.Popen[bytes]) -> None:
    """End a program that has not ended yet, with its group."""
    if keeper.stdin is not None:
        keeper.stdin.close()
    try:
        keeper.wait(2 * PATIENCE)
    except subprocess.TimeoutExpired:  # the keeper itself is stopped
        with suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)
        keeper.wait()


def _tail(path: Path, most: int = 1 << 16) -> tuple[str, ...]:
    """Return the last lines of a text that may be long, without blank ones."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        text = file.read().decode("utf-8", errors="replace")
    # A progress bar overwrites its line; what is seen of it is its last state.
    lines = (line.rstrip().rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return tuple(line for line in lines if line)[-LINES:]
