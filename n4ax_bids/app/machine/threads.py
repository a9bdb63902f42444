"""Runs jobs in threads of this process, which clean up when the run ends early."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from n4ax_bids.app.machine.resources import Memory, Share

Task = Callable[..., Any]
"""task(job, share=Share, memory=Memory); its result includes the error of the job, if any"""


class Done(NamedTuple):
    """The result of a task for a job, or the error that its process has ended."""

    share: Share
    result: Any


def start(share: Share) -> str:
    """Start JAX with the threads of a share, and return a description of its device.

    This happens once in each process, before its first image.
    """
    from n4ax_bids.runtime import device  # noqa: F401

    device.start(share.n_threads)
    return device.describe(device.resolve(share.device))


def run_in_threads(
    task: Task, jobs: Sequence[Any], folder: Path, *, share: Share
) -> Generator[Done]:
    """Yield each result in the order of the jobs; all threads work in one folder."""
    todo: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    for numbered in enumerate(jobs):
        todo.put(numbered)
    call = partial(task, share=share, memory=Memory(share.memory))

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                number, job = todo.get_nowait()
                try:
                    done.put((number, call(job)))
                except BaseException as error:
                    done.put((number, error))
                    return

    threads = [threading.Thread(target=work) for _ in range(min(share.n_images, len(jobs)))]

    def begin_no_more() -> None:
        with suppress(queue.Empty):
            while True:
                todo.get_nowait()

    # nipype changes the current folder of the process and restores it, so all threads share one.
    with chdir(folder), running(threads, begin_no_more):
        for result in in_order(done.get, len(jobs)):
            if isinstance(result, BaseException):
                raise result
            yield Done(share, result)


@contextmanager
def running(
    threads: Sequence[threading.Thread], begin_no_more: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Run threads in parallel with the block; if it ends early, none begins another solve."""
    begun = []
    try:
        for thread in threads:
            begun.append(thread)
            thread.start()  # a signal may arrive here
        yield
    except BaseException:
        from n4ax_bids.runtime import device

        begin_no_more()
        with device.closed():
            for thread in begun:
                _join(thread)
        raise
    for thread in threads:
        thread.join()


def _join(thread: threading.Thread) -> None:
    """Wait for a thread to end, even if a signal interrupted its start."""
    for _ in range(100):
        with suppress(RuntimeError):  # it has not started yet
            thread.join()
            return
        time.sleep(0.01)


def in_order(next_done: Callable[[], tuple[int, Any]], n: int) -> Iterator[Any]:
    """Yield numbered results in the order of their numbers."""
    early: dict[int, Any] = {}
    for number in range(n):
        while number not in early:
            found, result = next_done()
            early[found] = result
        yield early.pop(number)
