"""Which device a solve runs on."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import jax

_locks: defaultdict[jax.Device, threading.Lock] = defaultdict(threading.Lock)


def resolve(name: str = "auto") -> jax.Device:
    """Return the device of that name.

    Parameters
    ----------
    name : "auto" for the first GPU or else the CPU, "cpu", "gpu" for the first GPU, or "gpu:N"

    Raises
    ------
    ValueError
        If the name is none of these, or there is no such device.
    """
    match = re.fullmatch(r"auto|cpu|gpu(?::(\d+))?", name)
    if match is None:
        raise ValueError(f"device is {name!r}; expected auto, cpu, gpu or gpu:N")
    if name == "cpu":
        return jax.local_devices(backend="cpu")[0]
    gpus = _gpus()
    if name == "auto":
        return gpus[0] if gpus else jax.local_devices(backend="cpu")[0]
    if not gpus:
        raise ValueError(
            f"device is {name!r}; JAX sees no GPU here (driver, or the extra cuda12 or cuda13, "
            "missing?): expected auto or cpu"
        )
    number = int(match[1] or 0)
    if number >= len(gpus):
        raise ValueError(f"device is {name!r}; expected at most gpu:{len(gpus) - 1}")
    return gpus[number]


def _gpus() -> list[jax.Device]:
    try:
        return jax.local_devices(backend="gpu")
    except RuntimeError:  # JAX's way to say that there is none
        return []


def describe(device: jax.Device) -> str:
    """Return a device's name for a record: "cpu", or "gpu:0 (NVIDIA H200)"."""
    if device.platform == "cpu":
        return "cpu"
    return f"{device.platform}:{device.id} ({device.device_kind})"


@contextmanager
def use(device: jax.Device) -> Iterator[jax.Device]:
    """Compute on a device within the block, one thread at a time.

    Threads that read, write or wait for other images go on meanwhile.
    """
    with _locks[device], jax.default_device(device):
        yield device
