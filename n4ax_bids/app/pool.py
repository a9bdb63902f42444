"""The jobs of a run through threads of this process, or through one process for each device.

Whatever ends a pool early ends its threads and processes too, and they clean up behind them.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat, zip_longest
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from n4ax_bids.app.resources import Memory, Share

Task = Callable[..., Any]
"""task(job, share=Share, memory=Memory); an error of one job is part of what it returns"""


class Done(NamedTuple):
    """What a task made of a job, or the error that its process has ended."""

    share: Share
    result: Any


class Pool(NamedTuple):
    """Devices that have been started, and the way to give them work."""

    devices: tuple[str, ...]
    """what each of them is, for the log"""
    run: Callable[[Task, Sequence[Any], Path], Iterator[Done]]
    """run(task, jobs, folder) yields what is done, in the order of the jobs; threads share the
    folder"""


class WorkerEnded(RuntimeError):
    """A process of the pool has ended before its work was done."""


@contextmanager
def opened(shares: Sequence[Share]) -> Iterator[Pool]:
    """Start the device of each share: one here, several in a process each.

    Raises
    ------
    ValueError
        If a device is not there.
    """
    if len(shares) == 1:
        (share,) = shares
        yield Pool((start(share),), partial(_run_in_threads, share=share))
        return
    with _processes(shares) as workers:
        yield Pool(tuple(map(_greeting, workers)), partial(_run_in_processes, workers=workers))


def start(share: Share) -> str:
    """Start JAX with the threads of a share, and return what its device is."""
    from n4ax_bids import device

    device.start(share.n_threads)
    return device.describe(device.resolve(share.device))


def _run_in_threads(
    task: Task, jobs: Sequence[Any], folder: Path, *, share: Share
) -> Iterator[Done]:
    todo: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()
    for numbered in enumerate(jobs):
        todo.put(numbered)
    call = partial(task, share=share, memory=Memory(share.memory))

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                number, job = todo.get_nowait()
                done.put((number, _result(call, job)))

    threads = [threading.Thread(target=work) for _ in range(min(share.n_images, len(jobs)))]
    # nipype changes the current folder of the process and back: all threads have the same one.
    with chdir(folder), _running(threads):
        for result in _in_order(done.get, len(jobs)):
            if isinstance(result, BaseException):
                raise result
            yield Done(share, result)


def _result(call: Callable[[Any], Any], job: Any) -> Any:
    """Return what a call returns, or what it raises."""
    try:
        return call(job)
    except BaseException as error:
        return error


@contextmanager
def _running(threads: Sequence[threading.Thread]) -> Iterator[None]:
    """Run threads beside the block; when it is left early, end them where they are.

    They unwind as the main thread does at Ctrl+C, so that each removes what it has not finished.
    """
    for thread in threads:
        thread.start()
    try:
        yield
    except BaseException:
        interrupt(threads)
        raise
    finally:
        for thread in threads:
            thread.join()


def interrupt(threads: Sequence[threading.Thread]) -> None:
    """Raise SystemExit in threads, as soon as they are back from what is not Python."""
    for thread in threads:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
        )


def _in_order(next_done: Callable[[], tuple[int, Any]], n: int) -> Iterator[Any]:
    """Put numbered results into the order of their numbers."""
    early: dict[int, Any] = {}
    for number in range(n):
        while number not in early:
            found, result = next_done()
            early[found] = result
        yield early.pop(number)


@dataclass(frozen=True)
class _Worker:
    """A process with one device, and a connection to each of its threads."""

    share: Share
    process: BaseProcess
    connections: tuple[Connection, ...]


@contextmanager
def _processes(shares: Sequence[Share]) -> Iterator[list[_Worker]]:
    context = multiprocessing.get_context("spawn")  # a process that runs JAX must not be forked
    workers = []
    try:
        for share in shares:
            ours, theirs = zip(*(context.Pipe() for _ in range(share.n_images)), strict=True)
            process = context.Process(target=_serve, args=(share, theirs), daemon=True)
            process.start()
            for connection in theirs:  # so that the end of the process ends the connection
                connection.close()
            workers.append(_Worker(share, process, ours))
        yield workers
    except BaseException:
        for worker in workers:
            worker.process.terminate()
        raise
    finally:
        for worker in workers:
            for connection in worker.connections:
                connection.close()
        for worker in workers:
            worker.process.join()


def _greeting(worker: _Worker) -> str:
    """Wait for a process to start its device; return what it is."""
    try:
        found = worker.connections[0].recv()
    except EOFError:
        raise WorkerEnded(f"the process of {worker.share.label} has not started") from None
    if isinstance(found, ValueError):
        raise found
    return f"{worker.share.label}: {found}"


def _run_in_processes(
    task: Task, jobs: Sequence[Any], folder: Path, *, workers: Sequence[_Worker]
) -> Iterator[Done]:
    """Give each job to a thread that is free, at first to the devices in turn."""
    for worker in workers:
        worker.connections[0].send((task, folder))
    todo = deque(enumerate(jobs))
    threads = (zip(worker.connections, repeat(worker)) for worker in workers)
    free = deque(filter(None, chain.from_iterable(zip_longest(*threads))))
    busy: dict[Connection, tuple[_Worker, int]] = {}
    done: deque[tuple[int, Done]] = deque()

    def next_done() -> tuple[int, Done]:
        while not done:
            while todo and free:
                connection, worker = free.popleft()
                number, job = todo.popleft()
                busy[connection] = worker, number
                with suppress(OSError):  # the process has ended: so has the connection, below
                    connection.send(job)
            if not busy:
                raise WorkerEnded("all processes that hold a device have ended")
            for connection in wait(list(busy)):
                worker, number = busy.pop(connection)
                try:
                    result = connection.recv()
                    free.append((connection, worker))
                except (EOFError, OSError):
                    result = _how_it_ended(worker)
                done.append((number, Done(worker.share, result)))
        return done.popleft()

    yield from _in_order(next_done, len(jobs))


def _how_it_ended(worker: _Worker) -> WorkerEnded:
    worker.process.join(timeout=5)
    code = worker.process.exitcode
    how = f"signal {-code}" if code and code < 0 else f"exit status {code}"
    return WorkerEnded(f"the process of {worker.share.label} has ended ({how}); out of memory?")


def _serve(share: Share, connections: Sequence[Connection]) -> None:
    """Answer what comes along the connections until they end; the main function of a process."""
    os.environ.update(share.environment)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        greeting = start(share)
    except ValueError as error:
        greeting = error
    with suppress(EOFError, OSError):  # where nothing is to be done
        connections[0].send(greeting)
        task, folder = connections[0].recv()
        os.chdir(folder)
        call = partial(task, share=share, memory=Memory(share.memory))
        threads = [threading.Thread(target=_answer, args=(call, c)) for c in connections]
        with _running(threads):
            for thread in threads:
                thread.join()


def _answer(call: Callable[[Any], Any], connection: Connection) -> None:
    with connection, suppress(EOFError, OSError):
        while True:
            connection.send(call(connection.recv()))
