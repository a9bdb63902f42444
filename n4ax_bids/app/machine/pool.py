"""The jobs of a run through threads of this process, or through one process for each device.

Whatever ends a pool early ends its threads and processes too, and they clean up behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from n4ax_bids.app.machine.processes import greeting, processes, run_in_processes
from n4ax_bids.app.machine.resources import Share
from n4ax_bids.app.machine.threads import Done, Task, run_in_threads, start


class Pool(NamedTuple):
    """Devices that have been started, and the way to give them work."""

    devices: tuple[str, ...]
    """what each of them is, for the log"""
    run: Callable[[Task, Sequence[Any], Path], Generator[Done]]
    """run(task, jobs, folder) yields what is done, in the order of the jobs; threads share the
    folder"""


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
        # Not in this thread: a signal that comes while JAX is imported here may be lost in it.
        with ThreadPoolExecutor(1) as aside:
            found = aside.submit(start, share).result()
        yield Pool((found,), partial(run_in_threads, share=share))
        return
    with processes(shares) as workers:
        yield Pool(tuple(map(greeting, workers)), partial(run_in_processes, workers=workers))
