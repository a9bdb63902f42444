"""Runs jobs in one process for each device; each process may end at any moment."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat, zip_longest
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from n4ax_bids.app.machine.resources import Memory, Share
from n4ax_bids.app.machine.threads import Done, Task, in_order, running, start


class WorkerEnded(RuntimeError):
    """A process of the pool has ended before its work was done."""


@dataclass(eq=False)
class _Worker:
    """A process with one device, and a connection to each of its threads."""

    share: Share
    process: BaseProcess
    connections: tuple[Connection, ...]
    starts: bool = True
    """whether it is still starting its device"""

    @classmethod
    def started(cls, share: Share) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a process with JAX must not be forked
        ours, theirs = zip(*(context.Pipe() for _ in range(share.n_images)), strict=True)
        process = context.Process(target=_serve, args=(share, theirs), daemon=True)
        process.start()
        for connection in theirs:  # so that the connection ends together with the process
            connection.close()
        return cls(share, process, ours)


@contextmanager
def processes(shares: Sequence[Share]) -> Iterator[list[_Worker]]:
    """Start a process for each share; processes that are started later join the same list."""
    workers: list[_Worker] = []
    try:
        for share in shares:
            workers.append(_Worker.started(share))
        yield workers
    except BaseException:
        _end(workers, early=True)
        raise
    _end(workers)


def _end(workers: Sequence[_Worker], *, early: bool = False) -> None:
    """Close the connections of processes so that they exit, then join them."""
    for worker in workers:
        if early:
            worker.process.terminate()  # by SIGTERM, so that it cleans up
        for connection in worker.connections:
            connection.close()
    for worker in workers:
        worker.process.join()


def greeting(worker: _Worker) -> str:
    """Wait for a process to start its device; return a description of the device."""
    try:
        found = worker.connections[0].recv()
    except EOFError:
        raise WorkerEnded(f"the process of {worker.share.label} has not started") from None
    if isinstance(found, ValueError):
        raise found
    worker.starts = False
    return f"{worker.share.label}: {found}"


def run_in_processes(
    task: Task, jobs: Sequence[Any], folder: Path, *, workers: list[_Worker]
) -> Generator[Done]:
    """Give each job to a free thread; the first jobs go to the devices in turn."""
    dispatch = _Dispatch(task, jobs, folder, workers)
    try:
        yield from in_order(dispatch.next_done, len(jobs))
    except BaseException:
        _end(workers, early=True)  # before the caller removes their folder
        raise


class _Dispatch:
    """Distributes jobs to processes, each of which may end at any moment.

    A process that ends is replaced. The jobs that it had in flight are tried again one by one,
    when all others are done. The job that ended the process will end the next one too and is given
    up; the others succeed.
    """

    def __init__(self, task: Task, jobs: Sequence[Any], folder: Path, workers: list[_Worker]):
        self._task, self._folder, self._jobs, self._workers = task, folder, jobs, workers
        self._todo, self._again = deque(range(len(jobs))), deque[int]()
        self._tried: set[int] = set()
        self._done: deque[tuple[int, Done]] = deque()
        self._busy: dict[Connection, tuple[_Worker, int | None]] = {}
        """the number is None while the process is still starting"""
        self._share = workers[0].share
        for worker in tuple(workers):
            if worker.process.exitcode is not None:
                self._replace(worker)
        self._busy |= {w.connections[0]: (w, None) for w in workers if w.starts}
        threads = (zip(w.connections, repeat(w)) for w in workers if not w.starts)
        self._free = deque(filter(None, chain.from_iterable(zip_longest(*threads))))

    def next_done(self) -> tuple[int, Done]:
        """Return the number and the result of the next job that is done."""
        while not self._done:
            self._give()
            if not self._busy:
                self._give_up()
                break
            for connection in cast("list[Connection]", wait(list(self._busy))):
                self._take(connection, *self._busy.pop(connection))
        return self._done.popleft()

    def _give(self) -> None:
        while self._free and (self._todo or (self._again and not self._busy)):
            connection, worker = self._free.popleft()
            number = (self._todo or self._again).popleft()
            self._busy[connection] = worker, number
            with suppress(OSError):  # the connection has ended together with its process
                connection.send((self._task, self._folder, self._jobs[number]))

    def _take(self, connection: Connection, worker: _Worker, number: int | None) -> None:
        try:
            result = connection.recv()
        except (EOFError, OSError):
            self._lose(worker, number)
            return
        if number is not None:
            self._done.append((number, Done(worker.share, result)))
            self._free.append((connection, worker))
        elif isinstance(result, str):
            worker.starts = False
            self._free += zip(worker.connections, repeat(worker))

    def _lose(self, worker: _Worker, number: int | None) -> None:
        if number is not None and number in self._tried:
            self._done.append((number, Done(worker.share, _how_it_ended(worker))))
        elif number is not None:
            self._tried.add(number)
            self._again.append(number)
        if worker in self._workers:
            worker.process.join(timeout=5)
            self._free = deque(pair for pair in self._free if pair[1] is not worker)
            if number is None:  # it did not even start, so another one would not start either
                self._workers.remove(worker)
            else:
                self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        other = _Worker.started(worker.share)
        self._workers[self._workers.index(worker)] = other
        self._busy[other.connections[0]] = other, None

    def _give_up(self) -> None:
        """Fail the remaining jobs, because no process is left."""
        lost = WorkerEnded("all processes that hold a device have ended, and start no more")
        for number in (*self._todo, *self._again):
            self._done.append((number, Done(self._share, lost)))
        self._todo.clear()
        self._again.clear()


def _how_it_ended(worker: _Worker) -> WorkerEnded:
    worker.process.join(timeout=5)
    code = worker.process.exitcode
    how = f"signal {-code}" if code and code < 0 else f"exit status {code}"
    return WorkerEnded(f"the process of {worker.share.label} has ended ({how}); out of memory?")


def _serve(share: Share, connections: Sequence[Connection]) -> None:
    """Run the jobs that arrive on the connections until these end; main function of a process."""
    os.environ.update(share.environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all; the parent will end us
    try:
        found: Any = start(share)
    except ValueError as error:
        found = error
    with suppress(EOFError, OSError):  # the parent has closed the connections already
        connections[0].send(found)
        call = partial(_call, share=share, memory=Memory(share.memory))
        threads = [threading.Thread(target=_answer, args=(call, c)) for c in connections]
        with running(threads):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
            for thread in threads:
                thread.join()


def _call(task: Task, folder: Path, job: Any, *, share: Share, memory: Memory) -> Any:
    """Run a task in the folder that all threads share; nipype changes and restores it."""
    if Path.cwd() != folder:
        os.chdir(folder)
    return task(job, share=share, memory=memory)


def _answer(call: Callable[..., Any], connection: Connection) -> None:
    with connection, suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            result = call(*connection.recv())
            try:
                pickle.loads(pickle.dumps(result))
            except Exception as error:  # it is of a kind that cannot be sent
                result = RuntimeError(f"{type(error).__name__}: {error}")
            connection.send(result)
