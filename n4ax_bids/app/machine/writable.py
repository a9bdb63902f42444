"""A home folder and a place for temporary files, where the machine gives none.

In a container the root file system may be read-only, the home folder missing or somebody else's,
and the user without a name. nipype, matplotlib, Deno and CUDA write below the home folder all the
same, and so do we, into the cache of compiled programs.
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
"""Docker and Apptainer let everybody write here, also where the root is read-only. It comes last:
Deno, which the BIDS validator runs on, reads nothing below /dev."""


@contextmanager
def places(near: Sequence[Path] = ()) -> Iterator[None]:
    """Let HOME and TMPDIR name folders that can be written, within the block.

    What is right already stays. Else a folder for this run alone takes its place, which goes when
    the block ends, with the programs that were compiled in it. Processes that are started within
    the block inherit both.

    Parameters
    ----------
    near : folders for temporary files, where there is no usual one; of one that is not there yet,
        the nearest that is
    """
    with ExitStack() as stack:
        if not _has_temporary():
            chosen = next(filter(_writable, [*map(_existing, near), MEMORY]), None)
            if chosen is None:
                yield  # whatever needs one will say so
                return
            # A presence, so that nobody takes it for a killed run's, and a killed run's goes.
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
    tempfile.tempdir = None  # look again
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
        tempfile.tempdir = None


def _has_temporary() -> bool:
    """Whether Python has a folder for temporary files other than the current one."""
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
