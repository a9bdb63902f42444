"""The device and the number of threads of a solve."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import entry_points

import jax
from threadpoolctl import ThreadpoolController

from n4ax_bids.arguments import shown

_log = logging.getLogger(__name__)


class DeviceError(RuntimeError):
    """A device failed in a solve, not because of the image; a later attempt may succeed."""


_closed = threading.Event()
_starting = threading.Lock()
_n_threads = 0  # threads of a solve on the CPU; 0 until JAX has started
_limiting = threading.Lock()
_n_limited, _limit = 0, None
_turns: dict[jax.Device, threading.Semaphore] = {}
_complaints: list[str] = []  # JAX's messages about GPUs


def start(n_threads: int | None = None) -> int:
    """Start JAX and return how many threads a solve on the CPU has.

    JAX starts one thread for each core that the calling thread may use, and never changes their
    number: the first call in a process decides. The threads are not bound to these cores.

    Parameters
    ----------
    n_threads : largest number of threads; None for one on each core that this process may use
    """
    global _n_threads
    with _starting:
        if _n_threads == 0:
            # If JAX cannot start, `resolve` reports that.
            with (
                _fewer_cores(n_threads) as n_cores,
                _complaints_kept(),
                suppress(RuntimeError),
            ):
                jax.local_devices()
            _n_threads = n_cores
        elif n_threads not in (None, _n_threads):
            _log.debug("JAX has %d threads already; %d were asked for", _n_threads, n_threads)
    return _n_threads


@contextmanager
def _complaints_kept() -> Iterator[None]:
    """Record the tracebacks that JAX logs when it finds no GPU, instead of showing them."""

    def keep(record: logging.LogRecord) -> bool:
        if not record.exc_info:
            return True
        _log.debug("%s", record.getMessage(), exc_info=record.exc_info)
        _complaints.append(" ".join(str(record.exc_info[1]).split()))
        return False

    logger = logging.getLogger("jax._src.xla_bridge")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


@contextmanager
def one_thread() -> Iterator[None]:
    """Give numpy's linear algebra one thread, during any such block.

    Its products are small here. More threads would spin while they wait for one another: on two
    busy cores, that took 5 to 15 times the processor time of the work itself.
    """
    global _n_limited, _limit
    with _limiting:
        if _n_limited == 0:
            _limit = _linear_algebra().limit(limits=1, user_api="blas")
        _n_limited += 1
    try:
        yield
    finally:
        with _limiting:
            _n_limited -= 1
            if _n_limited == 0:
                _limit.restore_original_limits()


@cache
def _linear_algebra() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _fewer_cores(n_cores: int | None) -> Iterator[int]:
    """Limit the cores of this thread, and of threads that it starts, within the block."""
    if not hasattr(os, "sched_setaffinity"):  # not Linux
        yield os.cpu_count() or 1
        return
    allowed = sorted(os.sched_getaffinity(0))
    before = set(os.listdir("/proc/self/task"))
    chosen = allowed[: max(1, n_cores)] if n_cores else allowed
    os.sched_setaffinity(0, chosen)
    try:
        yield len(chosen)
    finally:
        os.sched_setaffinity(0, allowed)
        for thread in set(os.listdir("/proc/self/task")) - before:
            with suppress(OSError):  # it has ended
                os.sched_setaffinity(int(thread), allowed)


def resolve(name: str = "auto") -> jax.Device:
    """Return the device of a name, and start JAX if it has not been started.

    Parameters
    ----------
    name : "auto" for the first GPU or else the CPU, "cpu", "gpu" for the first GPU, or "gpu:N"

    Raises
    ------
    ValueError
        If the name is invalid, or there is no such device.
    """
    match = re.fullmatch(r"auto|cpu|gpu(?::(\d+))?", name) if isinstance(name, str) else None
    if match is None:
        raise ValueError(f"device is {shown(name)}; expected auto, cpu, gpu or gpu:N")
    start()
    if name == "cpu":
        return _cpu()
    gpus = _gpus()
    if name == "auto":
        return gpus[0] if gpus else _cpu()
    if not gpus:
        raise ValueError(
            f"device is {name!r}; JAX sees no GPU here ({why_no_gpu()}): expected auto or cpu"
        )
    number = int(match[1] or 0)
    if number >= len(gpus):
        raise ValueError(f"device is {name!r}; expected at most gpu:{len(gpus) - 1}")
    return gpus[number]


def _cpu() -> jax.Device:
    """Return the CPU, which JAX does not offer if JAX_PLATFORMS names only other devices."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        given = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(
            f"JAX has no CPU device (JAX_PLATFORMS is {shown(given)}); expected "
            "JAX_PLATFORMS=cuda,cpu, or none"
        ) from error


def _gpus() -> list[jax.Device]:
    try:
        return jax.local_devices(backend="gpu")
    except RuntimeError:  # JAX raises it if there is none
        return []


def why_no_gpu() -> str:
    """Return the likely reason why there is no GPU; call it after the start of JAX."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return f"JAX_PLATFORMS is {platforms}"
    if not entry_points(group="jax_plugins"):
        return "the extra cuda12 or cuda13 is not installed"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver; in a container say docker run --gpus all or apptainer run --nv"
    return "; ".join(_complaints) or "the driver offers none"


def has_nvidia() -> bool:
    """Return whether a driver shows NVIDIA hardware, on Linux or under WSL."""
    return any(map(os.path.exists, ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg")))


def describe(device: jax.Device) -> str:
    """Return a device's name for records: "cpu", or "gpu:0 (NVIDIA H200)"."""
    if device.platform == "cpu":
        return "cpu"
    return f"{device.platform}:{device.id} ({device.device_kind})"


@contextmanager
def use(device: jax.Device) -> Iterator[jax.Device]:
    """Compute on a device within the block, after waiting for the thread's turn.

    A GPU runs one solve at a time, a CPU one for each of its threads, because a small solve keeps
    only one of them busy. Other threads read, write or wait for other images in the meantime.

    Raises
    ------
    DeviceError
        If JAX fails within the block: out of memory, or the device is lost.
    """
    with turns(device), jax.default_device(device):
        _require_open()
        try:
            yield device
        except jax.errors.JaxRuntimeError as error:
            # These are errors in our code.
            if str(error).startswith(("INVALID_ARGUMENT", "UNIMPLEMENTED")):
                raise
            raise DeviceError(f"{describe(device)}: {_in_words(error)}") from error
        _require_open()


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())
    if text.startswith("RESOURCE_EXHAUSTED"):
        return (
            f"out of memory ({text}); expected more free memory: end other programs on the "
            "device, or shrink more"
        )
    return f"failed ({text})"


def turns(device: jax.Device) -> threading.Semaphore:
    """Return the semaphore that limits the solves on a device at a time."""
    n_solves = start() if device.platform == "cpu" else 1
    with _starting:
        return _turns.setdefault(device, threading.Semaphore(n_solves))


@contextmanager
def closed() -> Iterator[None]:
    """Prevent computation during the block: `use` raises KeyboardInterrupt in every thread.

    No further solve begins. A solve that is running ends with its thread, which the caller joins.
    """
    _closed.set()
    try:
        yield
    finally:
        _closed.clear()


def is_closed() -> bool:
    """Return whether computation is prevented, because the run is being ended."""
    return _closed.is_set()


def _require_open() -> None:
    if is_closed():
        raise KeyboardInterrupt
