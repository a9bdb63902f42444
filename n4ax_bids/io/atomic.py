"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHORT = 120
"""bytes of a name that every file system takes"""

_unfinished: set[Path] = set()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a hidden name beside `path` to write to; rename it to `path` at the end.

    When the block raises, the hidden file is removed and `path` stays as it was.

    Parameters
    ----------
    path : the final name; its folder must exist

    Yields
    ------
    Path in the same folder, with the same extension; the file does not exist yet
    """
    path = Path(path)
    part = path.with_name(hidden_name(path.name, start=f".part-{secrets.token_hex(4)}-"))
    _unfinished.add(part)
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        _unfinished.discard(part)


def hidden_name(name: str, *, start: str, end: str = "") -> str:
    """Return a name for an unfinished file that fits wherever its final name fits.

    File systems limit the bytes of a name, most of them to 255. So a long final name is shortened
    from its front until the whole has no more bytes than it had; its extension stays.

    Parameters
    ----------
    name : the final name
    start, end : what to put around it
    """
    room = max(_n_bytes(name), SHORT) - _n_bytes(start + end)
    while _n_bytes(name) > room:
        name = name[1:]
    return start + name + end


def _n_bytes(name: str) -> int:
    return len(os.fsencode(name))


def same_place(one: str | Path, other: str | Path) -> bool:
    """Return whether two paths lead to one file, or would if there were one.

    Links of both kinds are followed. Where neither is there, names that differ only in case, or
    in how accents are encoded, are taken as one, as they would be one file on many disks.
    """
    try:
        return os.path.samefile(one, other)
    except OSError:
        if os.path.exists(one) or os.path.exists(other):
            return False  # the disk has one of them and does not take the other for it
        return _folded(one) == _folded(other)


def _folded(path: str | Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


def remove_unfinished() -> None:
    """Remove what this process is writing, which ends now."""
    for part in tuple(_unfinished):
        with suppress(OSError):
            part.unlink(missing_ok=True)


def require_writable(path: str | Path) -> None:
    """Raise an OSError that names `path` if no file can be made in its folder."""
    folder = Path(path).absolute().parent
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path}: cannot be written, a folder has this name")
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: cannot be written, there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: cannot be written, no permission to write to {folder}")
