"""Provides a home folder and a folder for temporary files if the machine has none.

In a container, the root file system may be read-only, the home folder may be missing or belong to
another user, and the user may have no name. But nipype, matplotlib, Deno, CUDA and our cache of
compiled programs write to the home folder.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from n4ax_bids.app.machine import presence

log = logging.getLogger("n4ax_bids")

MEMORY = Path("/dev/shm")
"""Docker and Apptainer let every user write here, even if the root is read-only. This folder is
the last choice, because Deno, on which the BIDS validator runs, reads nothing in /dev."""


@contextmanager
def places(near: Sequence[Path] = ()) -> Iterator[None]:
    """Make HOME and TMPDIR point to writable folders within the block.

    If the present folders are writable, they stay. Otherwise a folder for this run replaces them;
    it is removed at the end of the block, together with any compiled programs in it. Processes
    that are started within the block inherit both variables.

    Parameters
    ----------
    near : folders for temporary files if there is no usual one; if such a folder does not exist
        yet, its nearest existing parent is used
    """
    with ExitStack() as stack:
        if not _has_temporary():
            chosen = next(filter(_writable, [*map(_existing, near), MEMORY]), None)
            if chosen is None:
                yield  # any step that needs a temporary folder will report that there is none
                return
            # As a presence, the folder is safe from other runs while this run lives, and the next
            # run removes it if this run is killed.
            _, temporary = stack.enter_context(presence.at_work(chosen))
            stack.enter_context(_variable("TMPDIR", temporary))
        if not _writable(Path(os.path.expanduser("~"))):
            home = tempfile.TemporaryDirectory(prefix="n4ax_bids-", ignore_cleanup_errors=True)
            stack.enter_context(_variable("HOME", Path(stack.enter_context(home))))
            if not {"N4AX_CACHE_DIR", "XDG_CACHE_HOME"} & set(os.environ):
                log.info("compiled programs are not kept: no home folder (see N4AX_CACHE_DIR)")
        yield


@contextmanager
def _variable(name: str, value: Path) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = str(value)
    tempfile.tempdir = None  # makes tempfile look for it again
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
        tempfile.tempdir = None


def _has_temporary() -> bool:
    """Return whether Python has a folder for temporary files other than the current folder."""
    try:
        found = tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return found != os.getcwd() or found == os.environ.get("TMPDIR")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return folder.is_absolute()
    except OSError:
        return False
