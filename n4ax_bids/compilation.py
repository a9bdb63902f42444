"""Compiled programs, kept from one process to the next.

JAX can keep what it compiles in a folder, but it writes there in place: a process that is killed
while it writes leaves half a program behind, and another may read it meanwhile. So each process
gives JAX a private folder, filled with links to what others have finished, and hands on what is
new by renaming whole files into the shared one.

The shared folder is `N4AX_CACHE_DIR`, else `n4ax_bids` in the user's cache folder; "off" keeps
nothing. Where the user has set JAX's own cache folder, that one is left alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import multiprocessing.util
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger(__name__)

MOST_PROGRAMS = 1000
"""kept in the shared folder; beyond that the oldest go"""
STALE = 2 * 24 * 3600
"""seconds after which a private folder was left behind by a process that was killed"""
_finding = threading.Lock()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Let JAX find what earlier processes compiled inside this block, and keep what is new."""
    with _finding:  # threads that start together share one
        store = _store()
    if store is None:
        yield
        return
    with store.lock:
        store.users += 1
    try:
        yield
    finally:
        with store.lock:
            store.users -= 1
            if store.users == 0:  # no thread of ours is writing
                store.hand_on()


def drop() -> None:
    """Remove this process' private folder; the process ends now, and not by way of its end."""
    if _store.cache_info().currsize and (store := _store()):
        store.end()


class _Store:
    """One process' private folder beside the shared one."""

    def __init__(self, shared: Path):
        self.shared, self.lock, self.users = shared, threading.Lock(), 0
        self.private = _private(shared)
        # Workers of multiprocessing run no atexit; this, like it, runs at the end of any process.
        self.end = multiprocessing.util.Finalize(
            None, shutil.rmtree, (self.private,), {"ignore_errors": True}, exitpriority=0
        )
        self.known: set[str] = set()
        for program in _newest(shared):
            with contextlib.suppress(OSError):
                _link(program, self.private / program.name)
                self.known.add(program.name)

    def hand_on(self) -> None:
        """Give other processes the programs that were compiled since the last time."""
        for program in self.private.iterdir():
            if program.name not in self.known:
                self.known.add(program.name)
                try:
                    _link(program, self.shared / program.name)
                except OSError as error:
                    _log.debug("%s: not kept: %s", program.name, error)


def _private(shared: Path) -> Path:
    """Make a folder for one process, beside the shared one so that links do."""
    running = shared / "running"
    try:
        running.mkdir(parents=True, exist_ok=True)
        _remove_stale(running)
        return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=running))
    except OSError:
        if not shared.is_dir():
            raise
        # What others have filled may be used by those who cannot add to it.
        return Path(tempfile.mkdtemp(prefix="n4ax_bids-"))


@functools.cache
def _store() -> _Store | None:
    import jax

    shared = shared_folder()
    if shared is None or jax.config.jax_compilation_cache_dir:
        return None
    try:
        store = _Store(shared)
    except OSError as error:
        _log.info("compiled programs are not kept: %s", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(store.private))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # XLA's own caches would be written in place as well.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    return store


def shared_folder() -> Path | None:
    """Return where programs for this kind of machine are kept; None if they are not."""
    chosen = os.environ.get("N4AX_CACHE_DIR")
    if chosen is not None and chosen.lower() in ("", "off", "none", "0"):
        return None
    if chosen is None:
        home = os.environ.get("XDG_CACHE_HOME")
        try:
            chosen = Path(home) / "n4ax_bids" if home else Path.home() / ".cache" / "n4ax_bids"
        except RuntimeError:  # no home
            return None
    return Path(chosen).absolute() / _kind_of_machine()


def _kind_of_machine() -> str:
    """Programs for one processor may not run on another that shares the home folder.

    XLA cuts a program into parts for the threads that it has, but JAX's key for a program does
    not tell how many: one made for a single thread would be found, and be slow, with several.
    """
    import jax
    import jaxlib

    from n4ax_bids import device

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    facts = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    digest = hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()[:12]
    versions = f"jax-{jax.__version__}-{jaxlib.__version__}"
    return f"{versions}-{platform.machine()}-{digest}-{device.start()}threads"


def _link(source: Path, target: Path) -> None:
    """Make a whole file appear under another name; one that is there already is left."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        part = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(source, part)
        os.replace(part, target)


def _newest(shared: Path) -> list[Path]:
    """Return the programs in the shared folder, after removing those beyond the limit."""
    found = []
    for path in shared.iterdir():
        with contextlib.suppress(OSError):
            if path.name.startswith(".") or not path.is_file():
                continue
            if path.stat().st_size == 0:  # the machine has failed before it was on the disk
                path.unlink()
                continue
            found.append((path.stat().st_mtime, path))
    found.sort(reverse=True)
    with contextlib.suppress(OSError):  # not ours to remove
        for _, path in found[MOST_PROGRAMS:]:
            path.unlink(missing_ok=True)
    return [path for _, path in found[:MOST_PROGRAMS]]


def _remove_stale(running: Path) -> None:
    for folder in running.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE:
                shutil.rmtree(folder, ignore_errors=True)
