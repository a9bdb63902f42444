"""The resources that a run may use: images at a time, threads, memory, devices."""

from __future__ import annotations

import os
import threading
import time

import pytest

from n4ax_bids.app.machine import resources
from n4ax_bids.app.machine.resources import Memory, shares

TWO = "--xla_force_host_platform_device_count=2"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Eight cores, 10 GB, no GPU."""
    monkeypatch.setattr(resources, "n_cores", lambda: 8)
    monkeypatch.setattr(resources, "free_memory", lambda: 10_000_000_000)
    monkeypatch.setattr(resources, "visible_gpus", lambda: ())
    monkeypatch.delenv("XLA_FLAGS", raising=False)


@pytest.mark.parametrize(
    ("given", "images", "threads"),
    [
        ({}, 8, 8),
        ({"n_threads": 1}, 1, 1),  # one core asked, one core used
        ({"n_images": 1}, 1, 1),
        ({"n_images": 3}, 3, 3),
        ({"n_images": 3, "n_threads": 2}, 3, 2),
        ({"n_images": 1, "n_threads": 6}, 1, 6),
        ({"n_threads": 99}, 20, 8),  # no more threads than cores, no more images than there are
    ],
)
def test_images_and_threads_stand_for_one_another(given, images, threads):
    (share,) = shares(n_jobs=20, **given)
    assert (share.n_images, share.n_threads) == (images, threads)
    assert share.environment == {} and share.label == "" and share.memory == 10_000_000_000


def test_the_device_asked_for_is_kept():
    assert [share.device for share in shares(n_jobs=5, device="cpu")] == ["cpu"]
    assert [share.device for share in shares(n_jobs=5, device="gpu")] == ["gpu"]  # refused later


def test_each_gpu_has_a_process_that_sees_it_alone(monkeypatch):
    monkeypatch.setattr(resources, "visible_gpus", lambda: ("2", "GPU-abc", "5"))
    found = shares(n_jobs=100, n_images=8, memory=9000)
    assert [share.environment for share in found] == [
        {"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("2", "GPU-abc", "5")
    ]
    assert {share.device for share in found} == {"gpu"}  # no fall-back on the CPU, three times
    assert [share.label for share in found] == ["GPU 2", "GPU GPU-abc", "GPU 5"]
    assert [share.n_images for share in found] == [3, 3, 3]
    assert [share.memory for share in found] == [3000, 3000, 3000]
    assert len(shares(n_jobs=2)) == 2  # no process without an image
    assert [share.label for share in shares(n_jobs=100, device="cpu")] == [""]


def test_one_gpu_needs_no_other_process(monkeypatch):
    monkeypatch.setattr(resources, "visible_gpus", lambda: ("0",))
    for device in ("auto", "gpu"):
        (share,) = shares(n_jobs=9, device=device)
        assert share.device == device and share.environment == {}


def test_simulated_cpu_devices_have_a_process_each(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{TWO} --xla_cpu_enable_fast_math=false")
    found = shares(n_jobs=9, device="cpu", n_images=4, n_threads=6)
    assert [share.environment["XLA_FLAGS"] for share in found] == [
        "--xla_cpu_enable_fast_math=false"
    ] * 2
    assert [(share.n_images, share.n_threads) for share in found] == [(2, 3)] * 2
    assert len({share.label for share in found}) == 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("0", "1", "2")),
        ({"CUDA_VISIBLE_DEVICES": "1, GPU-x"}, ("1", "GPU-x")),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, ("1",)),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"JAX_PLATFORMS": "cpu"}, ()),
        ({"JAX_PLATFORMS": "cuda,cpu"}, ("0", "1", "2")),
    ],
)
def test_gpus_are_those_that_cuda_and_jax_may_use(monkeypatch, environment, expected):
    monkeypatch.undo()  # the real `visible_gpus`
    from n4ax_bids.interfaces import bias as n4

    monkeypatch.setattr(n4, "n_gpus", lambda: 3)
    monkeypatch.setattr(resources, "entry_points", lambda group: ["xla_cuda12"])
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resources.visible_gpus() == expected
    monkeypatch.setattr(resources, "entry_points", lambda group: [])  # JAX without CUDA
    assert resources.visible_gpus() == ()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given on Linux")
def test_only_the_cores_that_this_process_may_use_are_counted(monkeypatch):
    monkeypatch.undo()  # the real `n_cores`
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert resources.n_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert resources.n_cores() == len(allowed)


@pytest.mark.parametrize(("told", "counted"), [(6, 6), (None, 1)])
def test_cores_where_the_system_does_not_say_which_may_be_used(monkeypatch, told, counted):
    monkeypatch.undo()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: told)
    assert resources.n_cores() == counted


def holder(memory, n_bytes):
    """Start a thread that holds so much; return it, "it has it" and "give it back"."""
    has_it, give_back = threading.Event(), threading.Event()

    def hold():
        with memory.reserved(n_bytes):
            has_it.set()
            give_back.wait(60)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    return thread, has_it, give_back


def test_who_asks_for_more_than_is_left_waits_until_enough_is_given_back():
    memory = Memory(10)
    first, second = holder(memory, 4), holder(memory, 6)  # together all there is
    assert first[1].wait(60) and second[1].wait(60)
    small, large = holder(memory, 5), holder(memory, 7)
    assert not small[1].wait(0.2) and not large[1].is_set()
    first[2].set()
    assert not small[1].wait(0.2) and not large[1].is_set()  # 4 are left
    second[2].set()
    end = time.monotonic() + 30  # either of them may be the first
    while not (small[1].is_set() or large[1].is_set()) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    assert small[1].is_set() != large[1].is_set()  # 12 together would be too much
    small[2].set(), large[2].set()
    for thread, has_it, _ in (first, second, small, large):
        thread.join(60)
        assert has_it.is_set() and not thread.is_alive()


def test_memory_is_never_given_twice():
    """Many threads at once each hold their memory for a moment."""
    memory, held, most, lock = Memory(10), [], [], threading.Lock()
    sizes = (4, 7, 2, 9, 5, 1, 8) * 4
    begin = threading.Barrier(len(sizes))

    def work(n_bytes):
        begin.wait(60)
        with memory.reserved(n_bytes):
            with lock:
                held.append(n_bytes)
                most.append(sum(held))
            time.sleep(0.002)
            with lock:
                held.remove(n_bytes)

    threads = [threading.Thread(target=work, args=(n,)) for n in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == len(sizes) and max(most) <= 10


def test_who_needs_more_than_there_is_waits_to_be_alone():
    memory, order = Memory(10), []

    def large():
        with memory.reserved(99):
            order.append("large")

    thread = threading.Thread(target=large)
    with memory.reserved(1):
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        order.append("small")
    thread.join()
    assert order == ["small", "large"]
    with memory.reserved(10):  # all is given back
        pass
