"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHORT = 120
"""bytes of a name that every file system accepts"""

_unfinished: set[Path] = set()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a hidden name in the folder of `path` to write to; rename it to `path` at the end.

    If the block raises, the hidden file is removed and `path` is left unchanged.

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
    """Return a name for an unfinished file that is no longer than its final name may be.

    File systems limit the bytes of a name, most of them to 255. A long final name is therefore
    shortened from its front until the hidden name has no more bytes; its extension is kept.

    Parameters
    ----------
    name : the final name
    start, end : what to put before and after it
    """
    return start + shortened(name, max(n_bytes(name), SHORT) - n_bytes(start + end)) + end


def shortened(name: str, most: int) -> str:
    """Return the end of a name with at most `most` bytes; the whole name if it fits."""
    while n_bytes(name) > most:
        name = name[1:]
    return name


def n_bytes(name: str) -> int:
    """Return how many bytes a name has in a file system."""
    return len(os.fsencode(name))


def longest_name(folder: Path) -> int:
    """Return how many bytes a name may have in a folder, or in the nearest existing one above."""
    for each in (folder, *folder.parents):
        with suppress(OSError, ValueError, AttributeError):  # Windows has no such function
            most = os.pathconf(each, "PC_NAME_MAX")
            return most if most > 0 else sys.maxsize  # not limited
    return 255


def same_place(one: str | Path, other: str | Path) -> bool:
    """Return whether two paths are one file, or would be if they existed.

    Symbolic and hard links are followed. If neither file exists, names that differ only in case or
    in the encoding of accents count as equal, because they are one file on many disks.
    """
    try:
        return os.path.samefile(one, other)
    except OSError:
        if os.path.exists(one) or os.path.exists(other):
            return False  # one exists, and the disk distinguishes the other from it
        return _folded(one) == _folded(other)


def _folded(path: str | Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


def remove_unfinished() -> None:
    """Remove the unfinished files of this process, which is about to end."""
    for part in tuple(_unfinished):
        with suppress(OSError):
            part.unlink(missing_ok=True)


def require_writable(path: str | Path) -> None:
    """Raise an OSError that names `path` if no file of this name can be created."""
    folder = Path(path).absolute().parent
    most = longest_name(folder)
    if n_bytes(Path(path).name) > most:
        raise OSError(
            f"{path}: cannot be written, its name has {n_bytes(Path(path).name)} bytes and the "
            f"file system takes {most}; expected a shorter name"
        )
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path}: cannot be written, a folder has this name")
    above = next(each for each in (folder, *folder.parents) if each.exists())
    if not above.is_dir():
        raise NotADirectoryError(
            f"{path}: cannot be written, {above} is a file; expected a folder"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: cannot be written, there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: cannot be written, no permission to write to {folder}")
