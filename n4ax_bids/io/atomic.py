"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
    part = path.with_name(f".part-{secrets.token_hex(4)}-{path.name}")
    _unfinished.add(part)
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        _unfinished.discard(part)


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
    above = next(each for each in (folder, *folder.parents) if each.exists())
    if not above.is_dir():
        raise NotADirectoryError(
            f"{path}: cannot be written, {above} is a file; expected a folder"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: cannot be written, there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: cannot be written, no permission to write to {folder}")
