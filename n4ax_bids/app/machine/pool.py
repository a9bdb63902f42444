"""Runs jobs in threads of this process, or in one process for each device.

If a pool ends early, its threads and processes clean up and end too.
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
    """Devices that have been started, and the function that gives them work."""

    devices: tuple[str, ...]
    """a description of each device, for the log"""
    run: Callable[[Task, Sequence[Any], Path], Generator[Done]]
    """run(task, jobs, folder) yields the results in the order of the jobs; the folder becomes the
    current folder of all threads"""


@contextmanager
def opened(shares: Sequence[Share]) -> Iterator[Pool]:
    """Start the device of each share: a single one in this process, several in one process each.

    Raises
    ------
    ValueError
        If a device does not exist.
    """
    if len(shares) == 1:
        (share,) = shares
        # In another thread, because a signal during the import of JAX might be lost in this one.
        with ThreadPoolExecutor(1) as aside:
            found = aside.submit(start, share).result()
        yield Pool((found,), partial(run_in_threads, share=share))
        return
    with processes(shares) as workers:
        yield Pool(tuple(map(greeting, workers)), partial(run_in_processes, workers=workers))
