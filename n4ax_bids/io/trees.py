"""Files, and folders that are one image: their size, their time, and digests of their content."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from n4ax_bids.io.text import opened

FOLDERS = (".zarr",)
"""endings of folders that are one image"""


def is_image(name: str) -> bool:
    """Return whether a folder of this name is one image."""
    return name.endswith(FOLDERS)


def is_tree(path: Path) -> bool:
    """Return whether a path is a folder that is one image."""
    return is_image(path.name) and path.is_dir()


def files_of(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file in a folder with its name in the folder, in a fixed order.

    Raises
    ------
    OSError
        If something in it is neither a file nor a folder, or a folder cannot be read.
    """
    for entry in sorted(os.scandir(path), key=lambda each: each.name):
        if entry.is_dir():
            for name, file in files_of(Path(entry.path)):
                yield f"{entry.name}/{name}", file
        elif entry.is_file():
            yield entry.name, Path(entry.path)
        else:
            raise OSError(f"{entry.path}: no regular file; expected a file")


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if is_tree(path):
        return sum(file.stat().st_size for _, file in files_of(path))
    return path.stat().st_size


def size_and_time(path: Path) -> tuple[int, int]:
    """Return the bytes of a file or folder, and its latest change in nanoseconds."""
    if is_tree(path):
        found = [file.stat() for _, file in files_of(path)]
        return sum(f.st_size for f in found), max((f.st_mtime_ns for f in found), default=0)
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # opening a pipe would block
        raise OSError(f"{path}: no regular file; expected a file")
    return about.st_size, about.st_mtime_ns


def sha256(path: Path, *, what: str = "an input") -> str:
    """Return the digest of a file, or of the names and digests of all files in a folder.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or is no regular file; one line that names it.
    """
    if not is_tree(path):
        with opened(path, what=what) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for name, file in files_of(path):
        digest.update(f"{name}\0{sha256(file, what=what)}\n".encode())
    return digest.hexdigest()


def remove(path: Path) -> None:
    """Remove a file, or a folder that is one image, if it is there."""
    if is_tree(path) and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
