"""What a run may take of the machine: images at a time, threads, memory, devices."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points

from n4ax_bids.app.machine.limits import free_memory, job_memory

SIMULATED = re.compile(r"--xla_force_host_platform_device_count=(\d+)\s*")
"""JAX's own way to make several devices of one CPU"""


@dataclass(frozen=True)
class Share:
    """What one process of the run takes; there is one for each device.

    Parameters
    ----------
    n_images : images in flight, each in a thread of its own
    n_threads : threads of a solve on the CPU
    memory : bytes for all images in flight; an image that needs more is alone
    device : as `n4ax_bids.device.resolve` takes it
    environment : variables to set before JAX is imported, so that it sees one device alone
    label : what the log calls the device; "" where there is but one
    most : bytes that the job has at all; no image can take more
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
    """Divide what a run may take among its devices.

    Parameters
    ----------
    n_jobs : images of the run; no device is started without one
    device : "auto", "cpu", "gpu" or "gpu:N"
    n_images : images in flight
    n_threads : threads of a solve. This and `n_images` stand for one another where one is not
        given; neither given: one for each core
    memory : bytes; all that is free where not given
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


def n_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _places(device: str) -> list[tuple[str, dict[str, str], str]]:
    """Return name, environment and label of each device that could take part."""
    if device.startswith("gpu:"):  # JAX counts them itself
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
    """Return what CUDA calls the GPUs that JAX may use; it is not asked, for that starts it."""
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
    """A number of bytes that threads share; who asks for more than is left waits."""

    def __init__(self, n_bytes: int):
        self._left, self._users, self._changed = n_bytes, 0, threading.Condition()

    @contextmanager
    def reserved(self, n_bytes: int) -> Iterator[None]:
        """Hold so many bytes within the block; more than there are at all, when nobody has any."""
        with self._changed:
            self._changed.wait_for(lambda: self._users == 0 or n_bytes <= self._left)
            self._left, self._users = self._left - n_bytes, self._users + 1
        try:
            yield
        finally:
            with self._changed:
                self._left, self._users = self._left + n_bytes, self._users - 1
                self._changed.notify_all()
