"""Ensures that only one run at a time works on an image, if several runs share an output folder.

A claim is a symbolic link whose target, which does not exist, names the run. Making a link is one
step, on NFS too, and fails if the link exists. The claim with the highest number is valid. The
claim of a run that has ended is not removed, because two runs that did so at once could remove
each other's claims; instead, the next claim gets the next number. Only the run with the highest
claim removes the claims below it, and its own last. The rules are in docs/security.md, and
tests/app/machine/test_interleavings.py tries every order of the steps.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from n4ax_bids.app.machine.expiry import TOKEN
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.io.atomic import shortened

FOLDER = Path("logs", "claims")
"""in the output folder"""
MOST_DIGITS = 9
"""most digits of a claim's number; it rises by one if a run ends without releasing its claim"""
MOST_BYTES = 1024
"""most bytes that are read of a claim that is a file"""
ROUNDS = 1000
"""how often a claim may disappear between two looks before the image is given up"""
_NUMBER = re.compile(rf"0|[1-9][0-9]{{0,{MOST_DIGITS - 1}}}")
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@dataclass(frozen=True)
class Claim:
    """The right to work on an image; another run that takes this one for dead may take it over."""

    path: Path
    """path of the claim without its number"""
    number: int
    token: str

    def holds(self) -> bool:
        """Return whether no other run has taken over the image."""
        return _read(self.path, self.number) == self.token and _numbers(self.path)[-1:] == [
            self.number
        ]


class Taken(Exception):
    """Another run works on the image."""


@contextmanager
def claimed(folder: Path, name: str, presence: Presence) -> Iterator[Claim]:
    """Hold the claim on an image within the block.

    Parameters
    ----------
    folder : folder of the claims; it is made if it does not exist
    name : path of the image in the dataset
    presence : presence of this run

    Raises
    ------
    Taken
        If another run that is still working has the image.
    OSError
        If no claim can be written.
    """
    claim = _take(folder / key(name), presence)
    try:
        yield claim
    finally:
        if claim.holds():
            for number in _numbers(claim.path):  # claims of runs that have ended, then its own
                if number <= claim.number:
                    _remove(claim.path, number)


def holder(folder: Path, name: str, presence: Presence) -> str | None:
    """Return the token of the run that is working on an image, if any.

    On file systems without symbolic links a claim is a file. The token is "" while a run has made
    this file but has not written to it yet.
    """
    path = folder / key(name)
    for number in _numbers(path)[-1:]:
        token = _read(path, number)
        if token is not None and _lives(path, number, token, presence):
            return token
    return None


def _take(path: Path, presence: Presence) -> Claim:
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(ROUNDS):
        below, last = None, None
        for number in _numbers(path)[-1:]:
            below, last = number, _read(path, number)
            if last == presence.token:
                return Claim(path, number, last)
            if last is not None and _lives(path, number, last, presence):
                raise Taken
        if below is not None and last is None:
            continue  # it was released in the meantime
        mine = 0 if below is None else below + 1
        _make(_at(path, mine), presence.token)
        if _read(path, mine) != presence.token:
            continue  # another run was faster
        # The number may have been free only because a run with a higher claim is removing those
        # below. And the claim below may belong to another run by now.
        if _numbers(path)[-1:] == [mine] and (below is None or _read(path, below) == last):
            return Claim(path, mine, presence.token)
        _remove(path, mine)
    raise OSError(errno.EAGAIN, "the claim on the image comes and goes", str(path))


def _make(path: Path, text: str) -> None:
    """Make a claim unless it exists; the caller reads whose it is, because NFS may err."""
    try:
        os.symlink(text, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with suppress(FileExistsError), open(path, "x", encoding="utf-8") as file:
            file.write(text)


def _lives(path: Path, number: int, token: str, presence: Presence) -> bool:
    if TOKEN.fullmatch(token):
        return presence.lives(token)
    # It is a file whose maker has not written to it yet, or no claim of ours.
    with suppress(FileNotFoundError):
        return presence.is_young(_at(path, number))
    return False


def _read(path: Path, number: int) -> str | None:
    try:
        return os.readlink(_at(path, number))
    except FileNotFoundError:
        return None
    except OSError:  # on file systems without links it is a file
        return _text(_at(path, number))


def _text(path: Path) -> str | None:
    """Return the text of a claim that is a file; "" for anything else, such as a named pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.read(descriptor, MOST_BYTES).decode("utf-8", errors="replace")
    finally:
        os.close(descriptor)


def _remove(path: Path, number: int) -> None:
    with suppress(OSError):  # it is a folder or has gone
        _at(path, number).unlink()


def _numbers(path: Path) -> list[int]:
    """Return the numbers of the claims on an image, the highest last."""
    found = []
    with suppress(FileNotFoundError):
        for name in os.listdir(path.parent):
            key, _, number = name.rpartition(".")
            if key == path.name and _NUMBER.fullmatch(number):
                found.append(int(number))
    return sorted(found)


def _at(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def key(name: str) -> str:
    """Return a file name for an image that resembles its name and is unique in the dataset."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{shortened(name.rpartition('/')[2].partition('.')[0], 200)}-{digest}"
