"""Threads and processes that run jobs: order, number, faults, early ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.images import attempt
from n4ax_bids.app.machine import pool, presence, processes, signals, threads
from n4ax_bids.app.machine.processes import WorkerEnded
from n4ax_bids.app.machine.resources import Share, shares
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset
from n4ax_bids.options import N4Options
from n4ax_bids.runtime import device

FOUR = [f"sub-{n:02}/anat/sub-{n:02}_T1w.nii.gz" for n in range(1, 5)]


def in_threads(task, jobs, folder, n_images):
    share = Share(n_images=n_images, n_threads=1, memory=1)
    return threads.run_in_threads(task, jobs, folder, share=share)


def test_results_have_the_order_of_the_jobs(tmp_path):
    second = threading.Event()

    def task(job, **_):
        if job == 0:
            assert second.wait(60)  # the first ends last
        if job == 4:
            second.set()
        return 10 * job

    assert [done.result for done in in_threads(task, range(5), tmp_path, 2)] == [0, 10, 20, 30, 40]


def test_as_many_at_a_time_as_were_asked(tmp_path):
    together, inside, most = threading.Barrier(3), [], []

    def task(job, **_):
        inside.append(job)
        most.append(len(inside))
        together.wait(60)  # passes only if three are here
        inside.remove(job)

    list(in_threads(task, range(9), tmp_path, 3))
    assert max(most) == 3


def test_threads_share_a_folder_and_leave_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    seen = [d.result for d in in_threads(lambda *_, **__: os.getcwd(), "abc", Path("work"), 2)]
    assert seen == [str(tmp_path / "work")] * 3
    assert Path.cwd() == tmp_path


def test_an_early_end_begins_nothing_more(tmp_path):
    begun, before = [], set(threading.enumerate())

    def task(job, **_):
        begun.append(job)
        time.sleep(0.02)

    results = in_threads(task, range(1000), tmp_path, 2)
    with closing(results):
        next(results)
    count = len(begun)
    assert count < 1000
    assert set(threading.enumerate()) <= before
    assert len(begun) == count


@pytest.mark.parametrize("started", (True, False))
def test_a_signal_while_the_threads_start(tmp_path, monkeypatch, started):
    """The first thread is working already; none may continue during the clean-up."""
    start, inside, ended = threading.Thread.start, threading.Event(), []
    before = set(threading.enumerate())

    def task(job, **_):
        inside.set()
        time.sleep(0.2)
        ended.append(job)

    def broken_off(thread):
        if not inside.is_set():
            start(thread)
            assert inside.wait(60)
            return
        if started:  # and nobody waits for it to begin
            monkeypatch.setattr(thread._started, "wait", Mock(side_effect=SystemExit(143)))
            start(thread)
        raise SystemExit(143)

    monkeypatch.setattr(threading.Thread, "start", broken_off)
    with pytest.raises(SystemExit), closing(in_threads(task, range(1000), tmp_path, 3)) as results:
        next(results)
    assert 1 <= len(ended) <= 2
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    "number, raised", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_second_signal_does_not_break_off_the_clean_up(monkeypatch, number, raised):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(signals, "PATIENCE", 1.0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # wherever the tests run
    try:
        signals.end_on_signals()
        signals.end_on_signals()  # by another run in this process
        with pytest.raises(raised):
            os.kill(os.getpid(), number)
            time.sleep(60)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.1)
        with pytest.raises(raised):
            os.kill(os.getpid(), number)
            time.sleep(60)
    finally:
        signals.end_of_run()
        for each, handler in before.items():
            signal.signal(each, handler)


def test_no_solve_begins_once_the_run_is_at_its_end(tmp_path, monkeypatch):
    """Threads that wait for the device give up; the one that has it ends after its solve."""
    cpu = device.resolve("cpu")
    monkeypatch.setitem(device._turns, cpu, threading.Semaphore(1))
    holding, done = threading.Semaphore(0), []

    def task(job, **_):
        if job == 0:
            return None
        with device.use(cpu):
            done.append("solve")
            holding.release()
            while not device._closed.is_set():
                pass
        done.append("written")

    results = in_threads(task, range(4), tmp_path, 3)
    with closing(results):
        next(results)
        assert holding.acquire(timeout=60)
    assert done == ["solve"]
    with device.use(cpu):  # open again
        pass


def test_what_a_thread_raises_reaches_the_caller(tmp_path):
    def task(job, **_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_threads(task, range(3), tmp_path, 2))


# Processes: what they run has to be found by its name there, so it is the App's own task.


@pytest.fixture
def two_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")


def test_two_devices_share_the_images_evenly_with_equal_results(
    make_dataset, tmp_path, two_devices, monkeypatch, capsys
):
    root, one, two = make_dataset(*FOUR), tmp_path / "one", tmp_path / "two"
    flags = ["participant", "--device", "cpu", "--n-iterations", "4", "3", "--mask", "otsu"]
    flags += ["--omp-nthreads"]
    assert cli.main([str(root), str(two), *flags, "2", "--nprocs", "4"]) == 0
    text = capsys.readouterr().err
    # Two threads each, so that each device has two of the four from the start.
    assert "images of each device: CPU device 0: 2, CPU device 1: 2" in text
    for number in range(1, 5):
        assert text.count(f"[{number}/4] sub-{number:02}_T1w: corrected in ") == 1
    assert multiprocessing.active_children() == []
    monkeypatch.delenv("XLA_FLAGS")
    assert cli.main([str(root), str(one), *flags, "1"]) == 0
    names, others = (
        sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file() and "logs" not in p.parts)
        for out in (one, two)
    )
    assert names == others
    assert len(names) == 3 + (6 + 5 + 1) * 4  # images, figures, a page for each
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_a_process_that_dies_is_replaced(make_dataset, tmp_path, two_devices):
    root, out = make_dataset(*FOUR), tmp_path / "out"
    request = Request(root, out, options=N4Options(n_iterations=(2,)), mask="otsu")
    jobs = dataset.select(request).jobs
    with (
        presence.at_work(out, tmp_path / "work") as (here, work),
        pool.opened(shares(n_jobs=4, device="cpu", n_images=2)) as devices,
    ):
        task = partial(attempt.attempt, request=request, here=here, work=work)
        first = min(multiprocessing.active_children(), key=lambda process: process.pid)
        os.kill(first.pid, signal.SIGKILL)
        first.join()
        results = [done.result for done in devices.run(task, jobs, work)]
        assert len(multiprocessing.active_children()) == 2
    assert [result.error for result in results] == [None] * 4
    assert multiprocessing.active_children() == []


DEADLY = """
import os, signal
from pathlib import Path

def task(job, *, share, memory, log):
    with open(log, "a") as file:
        file.write(f"{job} ")
    if job in (2, 5):
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * job

def end(*_):
    os._exit(1)
"""


def test_images_that_end_their_process_are_given_up_and_the_others_come_right(
    tmp_path, two_devices, monkeypatch
):
    """Two of eight jobs kill their process; the jobs in flight beside them are tried again."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    import deadly

    task = partial(deadly.task, log=tmp_path / "log")
    with pool.opened(shares(n_jobs=8, device="cpu", n_images=4)) as devices:
        results = [done.result for done in devices.run(task, range(8), tmp_path)]
        again = [done.result for done in devices.run(task, [0, 1], tmp_path)]
    for job, result in enumerate(results):
        if job in (2, 5):
            assert isinstance(result, WorkerEnded) and "signal 9" in str(result)
        else:
            assert result == 10 * job
    assert again == [0, 10]
    begun = (tmp_path / "log").read_text().split()
    assert begun.count("2") <= 2 and begun.count("5") <= 2
    assert multiprocessing.active_children() == []


def test_a_device_that_does_not_come_back_ends_its_images_only(tmp_path, two_devices, monkeypatch):
    """All processes end and none starts again: each image has a result, and the run continues."""
    (tmp_path / "deadly.py").write_text(DEADLY.replace("job in (2, 5)", "True"))
    monkeypatch.syspath_prepend(tmp_path)
    import deadly

    with pool.opened(shares(n_jobs=3, device="cpu", n_images=2)) as devices:
        # Of those that are started from now on.
        monkeypatch.setattr(processes, "_serve", deadly.end)
        task = partial(deadly.task, log=tmp_path / "log")
        results = [done.result for done in devices.run(task, range(3), tmp_path)]
    assert all(isinstance(result, WorkerEnded) for result in results)
    assert multiprocessing.active_children() == []


def test_no_device_no_run(two_devices):
    pair = shares(n_jobs=4, device="cpu", n_images=2)
    broken = [Share(1, 1, 1, "gpu:7", share.environment, share.label) for share in pair]
    with pytest.raises(ValueError, match="gpu:7"), pool.opened(broken):
        pass
    assert multiprocessing.active_children() == []
