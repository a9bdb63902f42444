"""Which runs are at work on a folder, and what killed ones left behind there.

A run has a hidden folder of its own in the output folder for as long as it goes on, and touches it
from time to time. The folder's name, and that of every unfinished file, tells the process: one
that has ended on this machine is known at once, one on another machine by its silence.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from n4ax_bids.io.atomic import hidden_name

PREFIX = ".n4ax_bids-"
"""of the hidden folders that hold unfinished files; a run's token follows"""
HEARTBEAT = 30.0
"""seconds between signs of life"""
STALE = 300.0
"""seconds of silence after which a run on another machine counts as ended"""

_PROCESS = r"(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)"
_TOKEN = re.compile(_PROCESS + r"-[0-9a-f]{8}")
_HIDDEN = re.compile(r"\..+\." + _TOKEN.pattern)


@dataclass(frozen=True)
class Presence:
    """A run that is at work on an output folder."""

    folder: Path
    """its hidden folder there"""

    @property
    def token(self) -> str:
        """What names the run: its machine, its process, and a random number."""
        return self.folder.name.removeprefix(PREFIX)

    def lives(self, token: str) -> bool:
        """Return whether another run on the same output folder goes on."""
        folder = self.folder.with_name(PREFIX + token)
        try:
            return not _ended(folder, token, now=_now(self.folder))
        except FileNotFoundError:
            return False

    def is_young(self, path: Path) -> bool:
        """Return whether a file has been written within the time that is allowed for silence."""
        return _now(self.folder) - path.stat().st_mtime <= STALE


@contextmanager
def at_work(output_dir: Path, work_dir: Path | None = None) -> Iterator[tuple[Presence, Path]]:
    """Be present in a folder within the block; yield that, and a folder for unfinished files.

    Parameters
    ----------
    output_dir : made if it is not there
    work_dir : place for unfinished files, made if it is not there; default the output folder

    Raises
    ------
    OSError
        If a folder cannot be made.
    """
    name = f"{PREFIX}{_token()}"
    folders = [(parent / name) for parent in dict.fromkeys((output_dir, work_dir or output_dir))]
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            for folder in folders:
                with suppress(OSError):
                    folder.mkdir(exist_ok=True)  # who took us for dead has removed it
                    os.utime(folder)

    heart = threading.Thread(target=beat, daemon=True)
    try:
        for folder in folders:
            folder.mkdir(parents=True)
        heart.start()
        yield Presence(folders[0]), folders[-1]
    finally:
        over.set()
        if heart.ident is not None:
            heart.join()  # or it makes a folder once more
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent: Path, own: Path, *, everything: bool = False) -> None:
    """Remove the unfinished files of runs that have ended without cleaning up.

    A run that was killed has left its hidden folder behind; only then the whole tree is looked
    through for the hidden names under which files are put in place.

    Parameters
    ----------
    parent : the output folder, or the work folder
    own : this run's hidden folder there
    everything : also what belongs to runs on other machines that may still go on
    """
    left = []
    for folder in parent.glob(f"{PREFIX}*"):
        token = folder.name.removeprefix(PREFIX)
        with suppress(OSError):
            silence = -1 if everything else STALE
            if folder != own and _ended(folder, token, now=_now(own), silence=silence):
                left.append(folder)
    if not left:
        return
    for where, folders, files in os.walk(parent):
        folders[:] = [name for name in folders if not name.startswith(PREFIX)]
        for path in (Path(where, name) for name in files if _HIDDEN.fullmatch(name)):
            token = path.name.rpartition(".")[2]
            with suppress(OSError):
                if _ended(path, token, now=_now(own)):
                    path.unlink()
    for folder in left:  # last, so that who is killed here is followed by one that does the rest
        shutil.rmtree(folder, ignore_errors=True)


def hidden(path: Path) -> Path:
    """Return a name beside `path` for a file that is not finished; it fits where `path` fits."""
    return path.with_name(hidden_name(path.name, start=".", end=f".{_token()}"))


def _token() -> str:
    return f"{_machine()}-{os.getpid()}-{_start_of(os.getpid()) or 0}-{secrets.token_hex(4)}"


def _ended(path: Path, token: str, *, now: float, silence: float = STALE) -> bool:
    """Return whether the process of a token has ended, by its number or by the file's age."""
    found = _TOKEN.fullmatch(token)
    silent = now - path.stat().st_mtime > silence
    if found is None:  # of another version
        return silent
    if found["machine"] == _machine() and int(found["start"]):
        return _start_of(int(found["pid"])) != int(found["start"])
    return silent


def _now(own: Path) -> float:
    """Return the time by the clock of the file system, which all machines share."""
    with suppress(FileNotFoundError):
        os.utime(own)
        return own.stat().st_mtime
    own.mkdir()
    return own.stat().st_mtime


@functools.cache
def _machine() -> str:
    """Return a name for this boot of this machine and its set of process numbers.

    Containers on one machine may have process numbers of their own.
    """
    facts = [platform.node()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def _start_of(pid: int) -> int | None:
    """Return when a process of this machine has started, in ticks; None if there is none."""
    try:
        text = Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *others = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(others[18])
