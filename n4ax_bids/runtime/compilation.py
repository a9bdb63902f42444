"""Compiled programs, kept for later processes.

JAX can keep compiled programs in a folder, but it writes them in place: a process that is killed
while it writes leaves half a program behind, and another process may read half a program. Each
process therefore gives JAX a private folder with links to finished programs, and shares new ones
by renaming whole files into the shared folder.

The shared folder is `N4AX_CACHE_DIR`, else `n4ax_bids` in the user's cache folder; with "off",
nothing is kept. If the user has set JAX's own cache folder, that one is used.

A program is machine code that runs with the user's rights. Folders and files that other users own
or may write are therefore not used (`trust`), and neither is JAX's own folder in that case. A file
in the shared folder has the digest of its content in its name, and damaged files are removed.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from n4ax_bids.runtime import program_files, trust

_log = logging.getLogger(__name__)

OFF = ("", "off", "none", "0")
"""values of N4AX_CACHE_DIR that turn keeping off"""
_finding = threading.Lock()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within this block, let JAX find programs of earlier processes, and keep new ones."""
    with _finding:  # threads share one store
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
    """Remove this process' private folder, before an end that runs no exit handlers."""
    if _store.cache_info().currsize and (store := _store()):
        store.end()


class _Store:
    """One process' private folder beside the shared one."""

    def __init__(self, shared: Path):
        self.shared, self.lock, self.users = shared, threading.Lock(), 0
        self.private = _private(shared)
        # Workers of multiprocessing do not run `atexit`; a finalizer runs in every process.
        self.end = multiprocessing.util.Finalize(
            None, shutil.rmtree, (self.private,), {"ignore_errors": True}, exitpriority=0
        )
        self.known: set[str] = set()
        strangers = []
        for program in program_files.newest(shared):
            with contextlib.suppress(OSError):
                try:
                    self._take(program)
                except program_files.Stranger:
                    strangers.append(program)
        if strangers:
            _log.warning(
                "%d compiled programs are not used: other users own or may write them, the first "
                "being %s; remove them",
                len(strangers),
                strangers[0],
            )

    def _take(self, program: Path) -> None:
        """Link a program into the private folder, if it is whole and of no other user."""
        name = program.name.partition(".")[2]
        if name in self.known:  # two processes may have compiled it at the same time
            return
        mine = self.private / name
        program_files.link(program, mine)
        if not trust.is_trusted_file(mine):  # checked here, where nobody can exchange it
            mine.unlink()
            raise program_files.Stranger
        if not program_files.is_undamaged(mine, program.name.partition(".")[0]):
            mine.unlink()
            program.unlink()  # it will be compiled and kept again
            _log.debug("%s: damaged, removed", program)
            return
        self.known.add(name)

    def hand_on(self) -> None:
        """Share the programs that were compiled since the last call with other processes."""
        for program in self.private.iterdir():
            if program.name not in self.known:
                self.known.add(program.name)
                try:
                    content = program.read_bytes()
                    if program_files.is_whole(content):
                        program.chmod(0o600)
                        name = f"{program_files.digest(content)}.{program.name}"
                        program_files.link(program, self.shared / name)
                except OSError as error:
                    _log.debug("%s: not kept: %s", program.name, error)


def _private(shared: Path) -> Path:
    """Create a folder for one process, in the shared one so that files can be linked."""
    running = shared / "running"
    try:
        trust.make_private(running)
        own = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=running))
        program_files.remove_stale(running, now=own.stat().st_mtime)
        return own
    except OSError:
        if not shared.is_dir():
            raise
        # Users who cannot write to a shared folder may still use its programs.
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
        # The current folder may be a temporary one.
        _log.warning(
            "compiled programs are not kept: N4AX_CACHE_DIR is %s; expected an absolute path",
            chosen,
        )
        return None
    if chosen is None:
        named = os.environ.get("XDG_CACHE_HOME", "")
        try:
            # By its specification, programs ignore a relative path in XDG_CACHE_HOME.
            home = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
        except RuntimeError:  # no home
            return None
        return home / "n4ax_bids" / _kind_of_machine()
    return Path(chosen) / _kind_of_machine()


def keep_place() -> None:
    """Make N4AX_CACHE_DIR absolute, relative to the current folder.

    Programs call this first, before they change the folder or start processes.
    """
    chosen = os.environ.get("N4AX_CACHE_DIR", "")
    if chosen.lower() not in OFF and not os.path.isabs(chosen):
        os.environ["N4AX_CACHE_DIR"] = os.path.abspath(chosen)


def _kind_of_machine() -> str:
    """Return a name for this kind of machine: several may share a home folder, but not programs.

    XLA divides a program among its threads, but JAX's key of a program does not contain their
    number: a program for one thread would be found, and be slow, where there are several.
    """
    import jax
    import jaxlib

    from n4ax_bids.runtime import device

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    facts = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    digest = hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()[:12]
    versions = f"jax-{jax.__version__}-{jaxlib.__version__}"  # type: ignore[attr-defined]
    return f"{versions}-{platform.machine()}-{digest}-{device.start()}threads"
