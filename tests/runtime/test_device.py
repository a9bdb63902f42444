"""Choosing a device."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from n4ax_bids.runtime import device

CPU = jax.local_devices(backend="cpu")[0]


def stand_in(number):
    return SimpleNamespace(platform="gpu", id=number, device_kind="NVIDIA H200")


def test_cpu_is_always_there():
    assert device.resolve("cpu").platform == "cpu"
    assert device.describe(CPU) == "cpu"


def test_auto_takes_the_cpu_without_a_gpu(monkeypatch):
    monkeypatch.setattr(device, "_gpus", lambda: [])
    assert device.resolve("auto") == device.resolve() == CPU


def without_cpu(*, backend=None):
    if backend == "cpu":
        raise RuntimeError("Unknown backend cpu")
    return [stand_in(0)]


def test_where_the_platforms_leave_no_cpu(monkeypatch):
    """As JAX_PLATFORMS=cuda does."""
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(device, "_gpus", lambda: [stand_in(0)])
    monkeypatch.setattr(jax, "local_devices", without_cpu)
    assert device.resolve("auto").platform == "gpu"
    with pytest.raises(ValueError, match="JAX has no CPU device.*'cuda'.*cuda,cpu"):
        device.resolve("cpu")


def test_names_of_gpus(monkeypatch):
    gpus = [stand_in(0), stand_in(1)]
    monkeypatch.setattr(device, "_gpus", lambda: gpus)
    for name, number in (("auto", 0), ("gpu", 0), ("gpu:0", 0), ("gpu:1", 1)):
        assert device.resolve(name) is gpus[number]
    assert device.describe(gpus[1]) == "gpu:1 (NVIDIA H200)"
    with pytest.raises(ValueError, match="'gpu:2'; expected at most gpu:1"):
        device.resolve("gpu:2")


@pytest.mark.parametrize("name", ["gpu", "gpu:0"])
def test_a_gpu_that_is_not_there(monkeypatch, name):
    monkeypatch.setattr(device, "_gpus", lambda: [])
    with pytest.raises(ValueError, match="JAX sees no GPU") as raised:
        device.resolve(name)
    assert "\n" not in str(raised.value)


def test_why_there_is_no_gpu(monkeypatch):
    """The nearest reason first: what was asked for, what is installed, the driver, JAX's own."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert device.why_no_gpu() == "JAX_PLATFORMS is cpu"
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(device, "entry_points", lambda group: [])
    assert "cuda12" in device.why_no_gpu()
    monkeypatch.setattr(device, "entry_points", lambda group: ["xla_cuda12"])
    monkeypatch.setattr(device.ctypes, "CDLL", missing)
    assert "--gpus all" in device.why_no_gpu()
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(device, "_complaints", ["driver too old"])
    assert device.why_no_gpu() == "driver too old"
    monkeypatch.setattr(device, "_complaints", [])
    assert device.why_no_gpu() == "the driver offers none"


def missing(name):
    raise OSError(name)


BROKEN_PLUGIN = """
def initialize():
    raise RuntimeError("cuInit failed:", "CUDA_ERROR_NO_DEVICE")
"""

PROBE = """
import logging, sys
logging.basicConfig(level=sys.argv[1])
from n4ax_bids.runtime import device
assert device.resolve("auto").platform == "cpu"
(complaint,) = device._complaints
assert "CUDA_ERROR_NO_DEVICE" in complaint and "\\n" not in complaint
"""


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_no_traceback_of_the_search_for_a_gpu(tmp_path, level):
    """JAX logs one where CUDA is installed and no GPU is there; who wants it has it with DEBUG."""
    (tmp_path / "jax_plugins" / "xla_broken").mkdir(parents=True)
    (tmp_path / "jax_plugins" / "xla_broken" / "__init__.py").write_text(BROKEN_PLUGIN)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", PROBE, level],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert ("Traceback" in done.stderr) == (level == "DEBUG")


@pytest.mark.parametrize("name", ["", "cuda", "gpu:", "gpu:x", "gpu:-1", "cpu:0"])
def test_other_names(name):
    with pytest.raises(ValueError, match="expected auto, cpu, gpu or gpu:N"):
        device.resolve(name)


@pytest.mark.parametrize("n_solves", (1, 2))
def test_use_computes_there_when_it_is_its_turn(n_solves, monkeypatch):
    monkeypatch.setitem(device._turns, CPU, threading.Semaphore(n_solves))
    inside, most = [], []

    def work():
        with device.use(CPU) as used:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            assert jnp.ones(3).device == used
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == n_solves


THREADS = """
import os, sys
from n4ax_bids.runtime import device
allowed = os.sched_getaffinity(0)
asked = int(sys.argv[1]) or None
n = device.start(asked)
assert n == min(asked or len(allowed), len(allowed)), n
assert device.start(99) == n  # JAX has its threads
for thread in os.listdir("/proc/self/task"):
    assert os.sched_getaffinity(int(thread)) == allowed, thread
import jax, jax.numpy as jnp
program = jax.jit(lambda x: jnp.exp(jnp.sin(x)).sum(1)).lower(jnp.ones((3000, 4000))).compile()
cut = 'outer_dimension_partitions":["' in program.as_text()
assert cut == (n > 1), program.as_text()  # XLA cuts a program for the threads that it has
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are counted on Linux")
@pytest.mark.parametrize("asked", ["0", "1"])
def test_jax_has_the_threads_that_were_asked_for_and_they_may_run_anywhere(asked):
    subprocess.run([sys.executable, "-c", THREADS, asked], check=True, timeout=120)


def test_closed_devices_are_used_by_nobody():
    with device.closed():
        with pytest.raises(KeyboardInterrupt), device.use(CPU):
            raise AssertionError("begun")
    with pytest.raises(KeyboardInterrupt):  # closed meanwhile
        with device.use(CPU), device.closed():
            device._require_open()
    with device.use(CPU):
        pass


def test_a_cpu_takes_a_solve_for_each_of_its_threads():
    """And a GPU one; the same turns for all who ask."""
    cpu = device.resolve("cpu")
    assert device.turns(cpu)._value == device.start()
    assert device.turns(cpu) is device.turns(cpu)
    assert device.turns(GPU())._value == 1


class GPU:
    platform = "gpu"


ONE_CORE = """
import numpy
from threadpoolctl import threadpool_info
from n4ax_bids.runtime import device

def blas():
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

before = blas()
device.start()
with device.one_thread():
    with device.one_thread():
        assert set(blas()) == {1}
    assert set(blas()) == {1}
assert blas() == before
"""


def test_linear_algebra_has_one_thread_and_then_its_own_number_again():
    subprocess.run([sys.executable, "-c", ONE_CORE], check=True, timeout=120)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "RESOURCE_EXHAUSTED: Out of\n memory",
            "out of memory (RESOURCE_EXHAUSTED: Out of memory)",
        ),
        ("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS", "failed (INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS)"),
    ],
)
def test_what_the_device_cannot_do_is_told_as_its_fault(text, told):
    cpu = device.resolve("cpu")
    with pytest.raises(device.DeviceError) as caught, device.use(cpu):
        raise jax.errors.JaxRuntimeError(text)
    assert str(caught.value).startswith(f"cpu: {told}")
    with device.use(cpu):  # its turn has been given back
        pass


def test_a_fault_of_ours_is_not_put_on_the_device():
    with pytest.raises(jax.errors.JaxRuntimeError), device.use(device.resolve("cpu")):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes")
