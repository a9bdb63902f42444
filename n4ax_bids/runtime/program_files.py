"""The files of compiled programs: shared by links, checked for damage and trust, few.

A file in the shared folder has the digest of its content in its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import zlib
from pathlib import Path

from n4ax_bids.runtime import trust

MOST_PROGRAMS = 1000
"""largest number in the shared folder; the oldest are removed"""
LARGEST_PROGRAM = 2**28
"""bytes; the programs of this package have a few hundred thousand"""
STALE = 2 * 24 * 3600
"""seconds after which a private folder counts as left behind by a killed process"""
_PROGRAM = re.compile(r"[0-9a-f]{16}\..+-cache")


class Stranger(Exception):
    """A program that another user owns or may write."""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def is_whole(content: bytes) -> bool:
    """Return whether JAX can read a file that it wrote; a full disk truncates it."""
    try:
        zlib.decompress(content)
        return True
    except zlib.error:
        pass
    try:
        from jax._src import compilation_cache

        compilation_cache.decompress_executable(content)
        return True
    except (ImportError, AttributeError):
        return bool(content)
    except Exception:  # the library that JAX compresses with may raise anything
        return False


def is_undamaged(path: Path, digest_of_content: str) -> bool:
    """Return whether a file has a digest; one that is too large to be read has not."""
    is_small = path.stat().st_size <= LARGEST_PROGRAM
    return is_small and digest(path.read_bytes()) == digest_of_content


def link(source: Path, target: Path) -> None:
    """Make a whole file appear under another name; keep a file that has that name already."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return
    except OSError:  # a file system without links, or another user's file
        part = target.with_name(f".{target.name}.{os.getpid()}")
        _copy(source, part)
        os.replace(part, target)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, readable for this user alone, unless another user may have written it.

    Raises
    ------
    Stranger
        If another user may have written it; the copy would look like this user's own file.
    """
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not trust.is_trusted(os.fstat(descriptor)):
            raise Stranger
        new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(new, "wb") as copy:
            shutil.copyfileobj(file, copy)


def newest(shared: Path) -> list[Path]:
    """Return the programs in the shared folder, after removing those beyond the limit."""
    found = []
    for path in shared.iterdir():
        with contextlib.suppress(OSError):
            if _PROGRAM.fullmatch(path.name) and path.is_file():
                found.append((path.stat().st_mtime, path))
            elif path.name.endswith("-cache"):  # written by a version without digests
                path.unlink()
    found.sort(reverse=True)
    with contextlib.suppress(OSError):  # another user's file
        for _, path in found[MOST_PROGRAMS:]:
            path.unlink(missing_ok=True)
    return [path for _, path in found[:MOST_PROGRAMS]]


def remove_stale(running: Path, *, now: float) -> None:
    """Remove folders of killed processes; `now` is by the clock of the file system."""
    for folder in running.iterdir():
        with contextlib.suppress(OSError):
            if abs(now - folder.stat().st_mtime) > STALE:
                shutil.rmtree(folder, ignore_errors=True)
