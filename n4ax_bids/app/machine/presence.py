"""Which runs are at work on a folder, and what killed ones left behind there.

A run has a hidden folder of its own in the output folder for as long as it goes on, and touches it
from time to time. The folder's name tells the process, and a file in it tells what the run does.
The name of every unfinished file tells the process as well. How a run is known to have ended is in
`expiry`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n4ax_bids.app.machine import expiry
from n4ax_bids.app.machine.expiry import STALE, TOKEN
from n4ax_bids.io.atomic import hidden_name
from n4ax_bids.io.text import read_object

PREFIX = ".n4ax_bids-"
"""of the hidden folders that hold unfinished files; a run's token follows"""
HEARTBEAT = 30.0
"""seconds between signs of life"""
MARKER = "run.json"
"""in a run's hidden folder: says that it is one, and what the run does"""

_HIDDEN = re.compile(r"\..+\." + TOKEN.pattern)


@dataclass(frozen=True)
class Presence:
    """A run that is at work on an output folder."""

    folder: Path
    """its hidden folder there"""
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    """what the file in it tells"""

    @property
    def token(self) -> str:
        """What names the run: its machine, its process, and a random number."""
        return self.folder.name.removeprefix(PREFIX)

    def lives(self, token: str) -> bool:
        """Return whether another run on the same output folder goes on."""
        if not TOKEN.fullmatch(token):
            return False
        folder = self.folder.with_name(PREFIX + token)
        try:
            return not expiry.ended(folder, token, now=_now(self.folder, self.facts))
        except FileNotFoundError:
            return False

    def is_young(self, path: Path) -> bool:
        """Return whether a file has been written within the time that is allowed for silence."""
        return not expiry.is_silent(path, now=_now(self.folder, self.facts))

    def tell(self, **facts: Any) -> None:
        """Let other runs know what this one does."""
        self.facts.update(facts)
        _mark(self.folder, self.facts)

    def others(self) -> dict[str, dict[str, Any]]:
        """Return what the other runs tell that are at work on the same output folder, by token.

        One that has not told anything yet is not among them: it looks at us after it has.
        """
        found = {}
        for folder in self.folder.parent.glob(f"{PREFIX}*"):
            token = folder.name.removeprefix(PREFIX)
            told = marker(folder) if folder != self.folder else None
            if told is not None and self.lives(token):
                found[token] = told
        return found


@contextmanager
def at_work(
    output_dir: Path, work_dir: Path | None = None, **facts: Any
) -> Iterator[tuple[Presence, Path]]:
    """Be present in a folder within the block; yield that, and a folder for unfinished files.

    Parameters
    ----------
    output_dir : made if it is not there
    work_dir : place for unfinished files, made if it is not there; default the output folder
    **facts : that other runs shall know, as JSON holds them

    Raises
    ------
    OSError
        If a folder cannot be made.
    """
    name = f"{PREFIX}{_token()}"
    folders = [(parent / name) for parent in dict.fromkeys((output_dir, work_dir or output_dir))]
    here = Presence(folders[0], {**facts, "host": platform.node(), "pid": os.getpid()})
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            for folder in folders:
                with suppress(OSError):
                    _now(folder, here.facts)

    heart = threading.Thread(target=beat, daemon=True)
    try:
        for folder in folders:
            folder.mkdir(parents=True)
            _mark(folder, here.facts)
        heart.start()
        yield here, folders[-1]
    finally:
        over.set()
        if heart.ident is not None:
            heart.join()  # or it makes a folder once more
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def marker(folder: Path) -> dict[str, Any] | None:
    """Return what the run of a hidden folder tells; None if the folder is not a run's.

    A folder of the user's own may have a name that begins like ours.
    """
    token = folder.name.removeprefix(PREFIX)
    if not TOKEN.fullmatch(token):
        return None
    try:
        if (folder / MARKER).is_symlink():
            return None
        told = read_object(folder / MARKER)
        return told if told["token"] == token else None
    except (OSError, ValueError, LookupError):
        return None


def _mark(folder: Path, facts: Mapping[str, Any]) -> None:
    told = {**facts, "token": folder.name.removeprefix(PREFIX)}
    new = folder / f".{MARKER}.{secrets.token_hex(4)}"
    new.write_text(json.dumps(told, indent=2), encoding="utf-8")
    os.replace(new, folder / MARKER)


def remove_leftovers(parent: Path, own: Path, *, everything: bool = False) -> None:
    """Remove the unfinished files of runs that have ended without cleaning up.

    A run that was killed has left its hidden folder behind; only then the whole tree is looked
    through for the hidden names under which files are put in place. Nothing else is removed: a
    folder needs a run's whole name and its marker, or must be empty.

    Parameters
    ----------
    parent : the output folder, or the work folder
    own : this run's hidden folder there
    everything : also what belongs to runs on other machines that may still go on
    """
    left, machines = [], set()
    for folder in parent.glob(f"{PREFIX}*"):
        token = folder.name.removeprefix(PREFIX)
        if folder == own or not TOKEN.fullmatch(token) or folder.is_symlink():
            continue
        with suppress(OSError):
            silence = -1 if everything else STALE
            if expiry.ended(folder, token, now=_now(own), silence=silence):
                left.append(folder)
            else:
                machines.add(_machine_of(token))
    if not left:
        return
    for where, folders, files in os.walk(parent):
        folders[:] = [name for name in folders if not name.startswith(PREFIX)]
        for path in (Path(where, name) for name in files if _HIDDEN.fullmatch(name)):
            token = path.name.rpartition(".")[2]
            if _machine_of(token) in machines - {expiry.machine()}:
                continue  # of one of its processes, perhaps; it may take its time
            with suppress(OSError):
                if expiry.ended(path, token, now=_now(own)):
                    path.unlink()
    for folder in left:  # last, so that who is killed here is followed by one that does the rest
        if marker(folder) is not None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            with suppress(OSError):  # not ours, unless it was killed before it was marked
                for new in folder.glob(f".{MARKER}.*"):
                    new.unlink()
                folder.rmdir()


def _machine_of(token: str) -> str:
    return token.partition("-")[0]


def hidden(path: Path) -> Path:
    """Return a name beside `path` for a file that is not finished; it fits where `path` fits."""
    return path.with_name(hidden_name(path.name, start=".", end=f".{_token()}"))


def _token() -> str:
    pid = os.getpid()
    return f"{expiry.machine()}-{pid}-{expiry.start_of(pid) or 0}-{secrets.token_hex(4)}"


def _now(own: Path, facts: Mapping[str, Any] | None = None) -> float:
    """Give a sign of life; return its time by the file system's clock, which all machines share.

    Who took this run for dead has removed its folder: then it is made anew.
    """
    try:
        os.utime(own)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another thread was faster
            own.mkdir()
        _mark(own, facts or {})
    return own.stat().st_mtime
