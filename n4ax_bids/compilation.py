"""Compiled programs, kept from one process to the next.

JAX can keep what it compiles in a folder, but it writes there in place: a process that is killed
while it writes leaves half a program behind, and another may read it meanwhile. So each process
gives JAX a private folder, filled with links to what others have finished, and hands on what is
new by renaming whole files into the shared one.

The shared folder is `N4AX_CACHE_DIR`, else `n4ax_bids` in the user's cache folder; "off" keeps
nothing. Where the user has set JAX's own cache folder, that one is used.

A program is machine code that runs with the user's rights. Folders and files that other users own
or may write are not used (`trust`), and JAX is not given its own folder either if that is so. A
file in the shared folder has the digest of its content in its name: what is damaged is removed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import multiprocessing.util
import os
import platform
import re
import shutil
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from n4ax_bids import trust

_log = logging.getLogger(__name__)

MOST_PROGRAMS = 1000
"""kept in the shared folder; beyond that the oldest go"""
LARGEST_PROGRAM = 2**28
"""bytes; programs of this package have a few hundred thousand"""
STALE = 2 * 24 * 3600
"""seconds after which a private folder was left behind by a process that was killed"""
OFF = ("", "off", "none", "0")
"""values of N4AX_CACHE_DIR with which nothing is kept"""
_PROGRAM = re.compile(r"[0-9a-f]{16}\..+-cache")
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
        strangers = []
        for program in _newest(shared):
            with contextlib.suppress(OSError):
                try:
                    self._take(program)
                except _Stranger:
                    strangers.append(program)
        if strangers:
            _log.warning(
                "%d compiled programs are not used: other users own or may write them, the first "
                "being %s; remove them",
                len(strangers),
                strangers[0],
            )

    def _take(self, program: Path) -> None:
        """Let JAX find a program, if it is whole and no other user's."""
        name = program.name.partition(".")[2]
        if name in self.known:  # processes that ran side by side may both have compiled it
            return
        mine = self.private / name
        _link(program, mine)
        if not trust.is_trusted_file(mine):  # looked at here, where nobody can exchange it
            mine.unlink()
            raise _Stranger
        is_small = mine.stat().st_size <= LARGEST_PROGRAM  # or reading it takes all memory
        if not is_small or _digest(mine.read_bytes()) != program.name.partition(".")[0]:
            mine.unlink()
            program.unlink()  # it is compiled once more, and then kept
            _log.debug("%s: damaged, removed", program)
            return
        self.known.add(name)

    def hand_on(self) -> None:
        """Give other processes the programs that were compiled since the last time."""
        for program in self.private.iterdir():
            if program.name not in self.known:
                self.known.add(program.name)
                try:
                    content = program.read_bytes()
                    if _is_whole(content):
                        program.chmod(0o600)
                        _link(program, self.shared / f"{_digest(content)}.{program.name}")
                except OSError as error:
                    _log.debug("%s: not kept: %s", program.name, error)


class _Stranger(Exception):
    """A program that another user owns or may write."""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _is_whole(content: bytes) -> bool:
    """Return whether JAX can read what it has written: a full disk leaves a part of it."""
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
    except Exception:  # whatever the library raises that JAX compresses with
        return False


def _private(shared: Path) -> Path:
    """Make a folder for one process, beside the shared one so that links do."""
    running = shared / "running"
    try:
        trust.make_private(running)
        own = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=running))
        _remove_stale(running, now=own.stat().st_mtime)
        return own
    except OSError:
        if not shared.is_dir():
            raise
        # What others have filled may be used by those who cannot add to it.
        return Path(tempfile.mkdtemp(prefix="n4ax_bids-"))


@functools.cache
def _store() -> _Store | None:
    import jax

    config: Any = jax.config  # its settings are not annotated
    own = config.jax_compilation_cache_dir
    if own:
        why = None if "://" in own else trust.why_not(Path(own).absolute())
        if why:
            _log.warning("JAX's folder of compiled programs is not used: %s", why)
            jax.config.update("jax_compilation_cache_dir", None)
        return None
    shared = shared_folder()
    if shared is None:
        return None
    why = trust.why_not(shared)
    if why:
        _log.warning("compiled programs are not kept: %s", why)
        return None
    try:
        store = _Store(shared)
        why = trust.why_not(store.private)
    except OSError as error:
        _log.info("compiled programs are not kept: %s", error)
        return None
    if why:  # the folder for temporary files
        store.end()
        _log.warning("compiled programs are not used: %s", why)
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
    if chosen is not None and chosen.lower() in OFF:
        return None
    if chosen is not None and not os.path.isabs(chosen):
        # The current folder may be one that goes when the work is done.
        _log.warning(
            "compiled programs are not kept: N4AX_CACHE_DIR is %s; expected an absolute path",
            chosen,
        )
        return None
    if chosen is None:
        named = os.environ.get("XDG_CACHE_HOME", "")
        try:
            # The specification of XDG_CACHE_HOME has programs pass over a relative path.
            home = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
        except RuntimeError:  # no home
            return None
        return home / "n4ax_bids" / _kind_of_machine()
    return Path(chosen) / _kind_of_machine()


def keep_place() -> None:
    """Make N4AX_CACHE_DIR absolute, seen from the current folder.

    A program does so when it begins, before it goes to another folder or starts processes.
    """
    chosen = os.environ.get("N4AX_CACHE_DIR", "")
    if chosen.lower() not in OFF and not os.path.isabs(chosen):
        os.environ["N4AX_CACHE_DIR"] = os.path.abspath(chosen)


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
    versions = f"jax-{jax.__version__}-{jaxlib.__version__}"  # type: ignore[attr-defined]
    return f"{versions}-{platform.machine()}-{digest}-{device.start()}threads"


def _link(source: Path, target: Path) -> None:
    """Make a whole file appear under another name; one that is there already is left."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return
    except OSError:  # a file system without links, or another user's file
        part = target.with_name(f".{target.name}.{os.getpid()}")
        _copy(source, part)
        os.replace(part, target)


def _copy(source: Path, target: Path) -> None:
    """Copy a file for this user alone, unless another user may have written it.

    Raises
    ------
    _Stranger
        In that case; the copy would be our own, and nobody could tell any more.
    """
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not trust.is_trusted(os.fstat(descriptor)):
            raise _Stranger
        new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(new, "wb") as copy:
            shutil.copyfileobj(file, copy)


def _newest(shared: Path) -> list[Path]:
    """Return the programs in the shared folder, after removing those beyond the limit."""
    found = []
    for path in shared.iterdir():
        with contextlib.suppress(OSError):
            if _PROGRAM.fullmatch(path.name) and path.is_file():
                found.append((path.stat().st_mtime, path))
            elif path.name.endswith("-cache"):  # of a version that did not keep digests
                path.unlink()
    found.sort(reverse=True)
    with contextlib.suppress(OSError):  # not ours to remove
        for _, path in found[MOST_PROGRAMS:]:
            path.unlink(missing_ok=True)
    return [path for _, path in found[:MOST_PROGRAMS]]


def _remove_stale(running: Path, *, now: float) -> None:
    """Remove what killed processes have left; the clock is the file system's."""
    for folder in running.iterdir():
        with contextlib.suppress(OSError):
            if abs(now - folder.stat().st_mtime) > STALE:
                shutil.rmtree(folder, ignore_errors=True)
