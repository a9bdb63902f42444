"""Shows which runs are working in a folder, and removes what killed runs have left there.

Each run has its own hidden folder in the output folder while it works, and touches it regularly.
The name of the folder identifies the process, and a file in it says what the run is doing. The
name of every unfinished file identifies the process as well. `expiry` decides whether a run has
ended.
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
from n4ax_bids.io.trees import is_image

PREFIX = ".n4ax_bids-"
"""beginning of the names of hidden folders for unfinished files; the token of the run follows"""
HEARTBEAT = 30.0
"""seconds between signs of life"""
MARKER = "run.json"
"""file in a run's hidden folder that identifies the folder and says what the run is doing"""

_HIDDEN = re.compile(r"\..+\." + TOKEN.pattern)


@dataclass(frozen=True)
class Presence:
    """A run that is working in an output folder."""

    folder: Path
    """its hidden folder there"""
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    """content of the file in the hidden folder"""

    @property
    def token(self) -> str:
        """The name of the run: its machine, its process, and a random number."""
        return self.folder.name.removeprefix(PREFIX)

    def lives(self, token: str) -> bool:
        """Return whether another run in the same output folder is still working."""
        if not TOKEN.fullmatch(token):
            return False
        folder = self.folder.with_name(PREFIX + token)
        try:
            return not expiry.ended(folder, token, now=_now(self.folder, self.facts))
        except FileNotFoundError:
            return False

    def is_young(self, path: Path) -> bool:
        """Return whether a file was written recently enough that its run may still be alive."""
        return not expiry.is_silent(path, now=_now(self.folder, self.facts))

    def tell(self, **facts: Any) -> None:
        """Publish facts about this run for other runs."""
        self.facts.update(facts)
        _mark(self.folder, self.facts)

    def others(self) -> dict[str, dict[str, Any]]:
        """Return the facts of the other runs that are working in the same output folder, by token.

        A run that has not published anything yet is missing, but it will look at our facts after
        it has.
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
    """Register a run in a folder within the block; yield it and a folder for unfinished files.

    Parameters
    ----------
    output_dir : the folder; it is made if it does not exist
    work_dir : place for unfinished files, also made if necessary; default the output folder
    **facts : facts for other runs, as plain JSON values

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
            heart.join()  # otherwise it might make a folder again
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def marker(folder: Path) -> dict[str, Any] | None:
    """Return the facts in a run's hidden folder, or None if the folder does not belong to a run.

    A folder of the user may have a name that begins in the same way.
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

    A killed run leaves its hidden folder behind. Only if there is such a folder, the whole tree is
    searched for the hidden names that files have before they are put in place. Nothing else is
    removed: a folder must have a run's complete name and its marker, or be empty.

    Parameters
    ----------
    parent : the output folder, or the work folder
    own : this run's hidden folder there
    everything : also remove what belongs to runs on other machines that may still be working
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
        # A folder with such a name is an unfinished image of the kind that is a folder.
        trees = [name for name in folders if _HIDDEN.fullmatch(name)]
        folders[:] = [name for name in folders if name not in trees and not is_image(name)]
        names = [*files, *trees]
        for path in (Path(where, name) for name in names if _HIDDEN.fullmatch(name)):
            token = path.name.rpartition(".")[2]
            if _machine_of(token) in machines - {expiry.machine()}:
                continue  # it may belong to a living run on that machine
            with suppress(OSError):
                if not expiry.ended(path, token, now=_now(own)):
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
    for folder in left:  # last, so that if this run is killed here, the next one does the rest
        if marker(folder) is not None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            with suppress(OSError):  # ours only if its run was killed before it wrote the marker
                for new in folder.glob(f".{MARKER}.*"):
                    new.unlink()
                folder.rmdir()


def _machine_of(token: str) -> str:
    return token.partition("-")[0]


def hidden(path: Path) -> Path:
    """Return a hidden name beside `path` for an unfinished file, not longer than allowed."""
    return path.with_name(hidden_name(path.name, start=".", end=f".{_token()}"))


def _token() -> str:
    pid = os.getpid()
    return f"{expiry.machine()}-{pid}-{expiry.start_of(pid) or 0}-{secrets.token_hex(4)}"


def _now(own: Path, facts: Mapping[str, Any] | None = None) -> float:
    """Give a sign of life; return its time by the file system's clock, which all machines share.

    If another run took this one for dead and removed its folder, the folder is made again.
    """
    try:
        os.utime(own)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another thread was faster
            own.mkdir()
        _mark(own, facts or {})
    return own.stat().st_mtime
