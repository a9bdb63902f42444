"""The resources that a run may use: images at a time, threads, memory, devices."""

from __future__ import annotations

import os
import re
import resource
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points

from n4ax_bids.app.machine.limits import free_memory, job_memory

SIMULATED = re.compile(r"--xla_force_host_platform_device_count=(\d+)\s*")
"""JAX's own flag that simulates several devices on one CPU"""


@dataclass(frozen=True)
class Share:
    """The resources of one process of the run; there is one process for each device.

    Parameters
    ----------
    n_images : images in flight, each in its own thread
    n_threads : threads of a solve on the CPU
    memory : bytes for all images in flight; an image that needs more is processed alone
    device : name of the device for `n4ax_bids.runtime.device.resolve`
    environment : variables to set before JAX is imported, so that it sees only this device
    label : name of the device in the log; "" if there is only one
    most : bytes that the whole job can use; no image may need more
    """

    n_images: int
    n_threads: int
    memory: int
    device: str = "auto"
    environment: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    most: int | None = None


def shares(
    *,
    n_jobs: int,
    device: str = "auto",
    n_images: int | None = None,
    n_threads: int | None = None,
    memory: int | None = None,
) -> tuple[Share, ...]:
    """Divide the resources of a run among its devices.

    Parameters
    ----------
    n_jobs : images of the run; no more devices than images are started
    device : "auto", "cpu", "gpu" or "gpu:N"
    n_images : images in flight; default as `n_threads`, or one for each core
    n_threads : threads of a solve; default as `n_images`, or one for each core
    memory : bytes; default the free memory
    """
    cores = n_cores()
    n_images, n_threads = n_images or n_threads or cores, n_threads or n_images or cores
    memory, most = memory or free_memory(), job_memory()
    places = _places(device)[: max(1, n_jobs)]
    if len(places) < 2:
        n_images, n_threads = min(n_images, max(1, n_jobs)), min(n_threads, cores)
        return (Share(n_images, n_threads, memory, device, most=most),)
    n = len(places)
    return tuple(
        Share(
            -(-n_images // n),
            max(1, min(n_threads, cores) // n),
            memory // n,
            kind,
            environment,
            label,
            most,
        )
        for kind, environment, label in places
    )


def usage() -> str:
    """Return the processor time of this run and its peak memory so far, as a sentence."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(each.ru_utime + each.ru_stime for each in both)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    peak = max(each.ru_maxrss for each in both) * unit
    return f"processor time {seconds:.1f} s, peak memory {peak / 1e9:.2f} GB (the largest process)"


def n_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _places(device: str) -> list[tuple[str, dict[str, str], str]]:
    """Return name, environment and label of each device, or nothing if JAX shall choose one."""
    if device.startswith("gpu:"):  # JAX finds it by its number
        return []
    if device in ("auto", "gpu"):
        gpus = visible_gpus()
        if len(gpus) > 1 or device == "gpu":
            return [("gpu", {"CUDA_VISIBLE_DEVICES": gpu}, f"GPU {gpu}") for gpu in gpus]
        if gpus:
            return []
    flags = os.environ.get("XLA_FLAGS", "")
    found = SIMULATED.search(flags)
    alone = {"XLA_FLAGS": SIMULATED.sub("", flags)}
    return [("cpu", alone, f"CPU device {n}") for n in range(int(found[1]) if found else 0)]


def visible_gpus() -> tuple[str, ...]:
    """Return CUDA's names of the GPUs that JAX may use, without asking and so starting JAX."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    wanted = not platforms or {"cuda", "gpu"} & set(platforms.split(","))
    if not wanted or not entry_points(group="jax_plugins"):
        return ()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return tuple(names[: names.index("-1")] if "-1" in names else filter(None, names))
    from n4ax_bids.interfaces.bias import n_gpus

    return tuple(map(str, range(n_gpus())))


class Memory:
    """An amount of memory that threads share; a thread waits if it asks for more than is left."""

    def __init__(self, n_bytes: int):
        self._left, self._users, self._changed = n_bytes, 0, threading.Condition()

    @contextmanager
    def reserved(self, n_bytes: int) -> Iterator[None]:
        """Hold `n_bytes` within the block; if they exceed the total, wait until nobody has any."""
        with self._changed:
            self._changed.wait_for(lambda: self._users == 0 or n_bytes <= self._left)
            self._left, self._users = self._left - n_bytes, self._users + 1
        try:
            yield
        finally:
            with self._changed:
                self._left, self._users = self._left + n_bytes, self._users - 1
                self._changed.notify_all()
