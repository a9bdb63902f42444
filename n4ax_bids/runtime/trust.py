"""Which files may be run as code: those that no other user can have written, as for ssh's keys.

A compiled program is machine code. It is used only if its folder and all folders above that belong
to this user or to root and nobody else can write to them. One exception are folders such as `/tmp`
above it, where everybody may write but nobody can replace files of others (the sticky bit).
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

OWNER = "N4AX_CACHE_OWNER"
"""environment variable with another user, by name or number, whose programs are trusted"""
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def why_not(folder: Path) -> str | None:
    """Return why programs in a folder cannot be trusted, with the remedy; None if they can.

    Parameters
    ----------
    folder : absolute path; folders that do not exist yet are not checked
    """
    for path in _chain(folder):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{path} cannot be looked at ({error.strerror})"
        above = path != Path(os.path.realpath(folder))
        if not _is_trusted(found.st_uid, above=above):
            return (
                f"{path} belongs to {_name(found.st_uid)}, whose programs would be run as yours; "
                f"use a folder of your own, or set {OWNER} if you trust that user"
            )
        if found.st_mode & _OTHERS and not (above and found.st_mode & stat.S_ISVTX):
            return (
                f"{path} may be written by other users (mode {stat.S_IMODE(found.st_mode):04o}), "
                f"whose programs would be run as yours; chmod go-w {path}, or use another folder"
            )
    return None


def is_trusted_file(path: Path) -> bool:
    """Return whether a path is a regular file that only a trusted user can have written."""
    return is_trusted(path.lstat())


def is_trusted(found: os.stat_result) -> bool:
    """Return the same, from the status of a file."""
    return (
        stat.S_ISREG(found.st_mode) and not found.st_mode & _OTHERS and _is_trusted(found.st_uid)
    )


def make_private(folder: Path) -> None:
    """Create a folder and missing ones above it, for this user alone (mode 0700)."""
    for path in reversed([folder, *folder.parents]):
        if not path.is_dir():
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:  # another process was faster
                if not path.is_dir():
                    raise


def _chain(folder: Path) -> Iterator[Path]:
    """Yield a folder and those above it, with links resolved, except the root.

    The owner of the root could change Python itself.
    """
    real = Path(os.path.realpath(folder))
    yield from (real, *real.parents[:-1])


def _is_trusted(uid: int, *, above: bool = False) -> bool:
    if uid in (0, os.geteuid(), _chosen()):
        return True
    # In a user namespace, such as a rootless container's, the machine's root has no number. A
    # folder above ours that seems to belong to nobody is nearly always root's.
    return above and uid == _nobody() and _in_user_namespace()


def _chosen() -> int | None:
    name = os.environ.get(OWNER, "")
    if name.isascii() and name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _nobody() -> int:
    """Return the number that stands for users outside this namespace."""
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return 65534


def _in_user_namespace() -> bool:
    try:
        inside, outside, n = map(int, Path("/proc/self/uid_map").read_text().split()[:3])
    except (OSError, ValueError):
        return False
    return (inside, outside, n) != (0, 0, 2**32 - 1)


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
