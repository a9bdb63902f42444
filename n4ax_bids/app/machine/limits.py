"""How much memory this process may still use, by the limits of machine, control groups and job.

If a limit is overlooked, SIGKILL ends the run. So every place that may set one is checked: the
free memory of the machine; the control group of the process and all groups above it, in versions 1
and 2, with or without a namespace; the memory that SLURM gives the job, for clusters where SLURM
does not use control groups; and the limits of `ulimit -v` and `ulimit -d`.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

GROUPS = {
    # file system: files with limits, with usage, and the line of memory.stat for what can be freed
    "cgroup2": (("memory.max", "memory.high"), "memory.current", "inactive_file"),
    "cgroup": (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
}
UNITS = {"": 2**20, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
"""bytes of SLURM's units; SLURM itself gives numbers without a unit, but users may add one"""
_SIZE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)([KMGT]?)B?\s*", re.IGNORECASE)
RLIMITS = {
    # limit: index of the number in /proc/self/statm that it restricts
    resource.RLIMIT_AS: 0,  # the address space
    resource.RLIMIT_DATA: 5,  # data and stack
}


@dataclass(frozen=True)
class _Mount:
    """A mount point of control groups."""

    kind: str
    top: PurePosixPath
    """the group at the mount point"""
    place: Path


def free_memory(
    root: Path = Path("/"),
    environ: Mapping[str, str] | None = None,
    getrlimit: Callable[[int], tuple[int, int]] = resource.getrlimit,
) -> int:
    """Return how many bytes this process may still use: the smallest rest of all limits.

    Parameters
    ----------
    root : folder with proc and sys
    environ : environment variables of the job
    getrlimit : `resource.getrlimit` or a replacement
    """
    environ = os.environ if environ is None else environ
    bounds = [
        *_of_machine(root),
        *_of_groups(root),
        *_of_slurm(root, environ),
        *_of_rlimits(root, getrlimit),
    ]
    return max(0, min(bounds, default=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))


def all_memory(root: Path = Path("/")) -> int:
    """Return how many bytes the machine has, or fewer if a control group allows fewer.

    Parameters
    ----------
    root : folder with proc and sys
    """
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder, kind in _groups(root):
        bounds += _limits(folder, kind)
    return min(bounds)


def job_memory(root: Path = Path("/")) -> int:
    """Return how many bytes this process could use if all other processes ended.

    An image that needs more cannot be processed here, however long we wait.

    Parameters
    ----------
    root : folder with proc and sys
    """
    bounds = [
        all_memory(root) - _statm(root, 1),
        *_of_slurm(root, os.environ),
        *_of_rlimits(root, resource.getrlimit),
    ]
    return max(0, min(bounds))


def _of_machine(root: Path) -> Iterator[int]:
    with suppress(OSError):
        text = (root / "proc/meminfo").read_text(encoding="utf-8", errors="replace")
        for name in ("MemTotal", "MemAvailable"):
            found = re.search(rf"^{name}:\s+(\d+) kB", text, flags=re.M)
            if found:
                yield 1024 * int(found[1])


def _of_groups(root: Path) -> Iterator[int]:
    """Yield the bytes that each control group of this process leaves."""
    for folder, kind in _groups(root):
        yield from _left(folder, kind)


def _groups(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield folder and kind of each control group of this process."""
    try:
        mounts = list(_mounts(root))
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in lines.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        kind = "cgroup" if controllers else "cgroup2"
        for mount in mounts:
            if mount.kind == kind:
                for folder in _chain(mount, PurePosixPath(path)):
                    yield folder, kind


def _mounts(root: Path) -> Iterator[_Mount]:
    """Yield the mount points of control groups that can limit memory."""
    text = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        first, _, last = line.partition(" - ")
        facts, kinds = first.split(), last.split()
        if len(facts) < 5 or len(kinds) < 3 or kinds[0] not in GROUPS:
            continue
        if kinds[0] == "cgroup" and "memory" not in kinds[2].split(","):
            continue
        top, place = (_unescaped(word) for word in facts[3:5])
        yield _Mount(kinds[0], PurePosixPath(top), root / place.lstrip("/"))


def _unescaped(word: str) -> str:
    """Return a path from mountinfo, in which a blank is written as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def _chain(mount: _Mount, path: PurePosixPath) -> Iterator[Path]:
    """Yield the folders of a group and of the groups above it, as far as they are visible.

    In a container, the group of the process may have its name on the host, although only the
    container's own group is visible, at the mount point itself.
    """
    yield mount.place
    below = path.relative_to(mount.top) if path.is_relative_to(mount.top) else None
    if below is None or ".." in below.parts:
        below = PurePosixPath(*(part for part in path.parts if part not in ("/", "..")))
    folder = mount.place
    for part in below.parts:
        folder /= part
        if not folder.is_dir():
            return
        yield folder


def _limits(folder: Path, kind: str) -> Iterator[int]:
    """Yield the limits of one group; "max", and -1 in version 1, mean that there is none."""
    for name in GROUPS[kind][0]:
        with suppress(OSError, ValueError):
            limit = int((folder / name).read_text())
            if limit >= 0:
                yield limit


def _left(folder: Path, kind: str) -> Iterator[int]:
    """Yield the bytes that the limits of one group leave; the cache of files counts as free."""
    _, usage, freeable = GROUPS[kind]
    try:
        used = int((folder / usage).read_text())
    except (OSError, ValueError):  # the root group of version 2 has no such file
        return
    stat: dict[str, int] = {}
    with suppress(OSError, ValueError):
        lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        stat = {name: int(value) for name, value in lines}
    used = max(0, used - stat.get(freeable, 0))
    for limit in _limits(folder, kind):
        yield limit - used
    if "hierarchical_memory_limit" in stat:  # version 1: includes groups above that are invisible
        yield stat["hierarchical_memory_limit"] - used


def _of_slurm(root: Path, environ: Mapping[str, str]) -> Iterator[int]:
    """Yield the bytes that SLURM's limits leave this task on this node; 0 means no limit."""

    def number(name: str) -> int:
        found = re.match(r"[0-9]{1,9}(?![0-9])", environ.get(name, ""))
        return int(found[0]) if found else 0

    def size(name: str) -> int:
        found = _SIZE.fullmatch(environ.get(name, ""))
        return int(float(found[1]) * UNITS[found[2].upper()]) if found else 0

    n_cpus = number("SLURM_CPUS_ON_NODE") or number("SLURM_JOB_CPUS_PER_NODE")
    n_tasks = max(1, number("SLURM_STEP_TASKS_PER_NODE"))
    given = [
        size("SLURM_MEM_PER_NODE"),
        size("SLURM_MEM_PER_CPU") * (n_cpus or number("SLURM_CPUS_PER_TASK") or 1),
        size("SLURM_MEM_PER_GPU") * (number("SLURM_GPUS_ON_NODE") or 1),
    ]
    for n_bytes in filter(None, given):
        yield n_bytes // n_tasks - _statm(root, 1)


def _of_rlimits(root: Path, getrlimit: Callable[[int], tuple[int, int]]) -> Iterator[int]:
    for limit, which in RLIMITS.items():
        soft, _ = getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield soft - _statm(root, which)


def _statm(root: Path, which: int) -> int:
    """Return bytes of this process: address space (0), resident part (1), data and stack (5)."""
    try:
        pages = int((root / "proc/self/statm").read_text().split()[which])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
