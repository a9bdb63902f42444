"""Programs of other packages, run so that they never outlive this process or the run."""

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
"""lines of a program's output that are kept for messages"""
POLL = 0.1
"""seconds between two checks of whether the run is to end"""
PATIENCE = 5.0
"""seconds that a program gets to end by itself"""
SAID = "said.txt"
"""file in a program's folder with its output"""

# The keeper starts the program and waits for it. Its standard input is a pipe from this process
# without content: it ends when we close it, and also when this process is killed. The keeper then
# ends the process group, which contains the program and everything that it has started.
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
    """How a program ended."""

    status: int
    """exit status; 128 + n if signal n ended it"""
    said: tuple[str, ...]
    """the last lines of its output on both streams"""

    @property
    def how(self) -> str:
        """The status in words."""
        if self.status <= 128:
            return f"exit status {self.status}"
        killed = "; out of memory?" if self.status == 128 + signal.SIGKILL else ""
        return f"signal {self.status - 128}{killed}"


def never() -> bool:
    """Return False: the run is not to end."""
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
    words : the program and its arguments
    folder : current folder of the program, where its output is written too
    environment : variables, by default those of this process
    stopped : returns whether this run is to end; called several times a second

    Returns
    -------
    Ended

    Raises
    ------
    KeyboardInterrupt
        If the run is to end. The program and everything it started have ended then.
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
            start_new_session=True,  # Ctrl+C reaches only us, and the program has its own group
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
    """End a program that is still running, with its group."""
    if keeper.stdin is not None:
        keeper.stdin.close()
    try:
        keeper.wait(2 * PATIENCE)
    except subprocess.TimeoutExpired:  # the keeper itself is stopped
        with suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)
        keeper.wait()


def _tail(path: Path, most: int = 1 << 16) -> tuple[str, ...]:
    """Return the last lines of a file that may be long, without blank lines."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        text = file.read().decode("utf-8", errors="replace")
    # A progress bar overwrites its line; only its last state is kept.
    lines = (line.rstrip().rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return tuple(line for line in lines if line)[-LINES:]
