"""A command as a process of its own, which signals end immediately."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from n4ax_bids.io.atomic import remove_unfinished
from n4ax_bids.runtime import compilation, startup


def run(main: Callable[[], int]) -> int:
    """Run the main function of a command; return its exit status.

    The function calls `startup.end` when it has imported what it needs.
    """
    startup.begin()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    compilation.keep_place()
    try:
        return main()
    finally:
        startup.end()


def _end(number: int, _: Any) -> None:
    """End the process and remove unfinished files.

    An exception is not enough: while JAX compiles, it is lost, or makes JAX fail at the end of the
    process. An unfinished stack keeps its name that ends in .partial, and its journal.
    """
    remove_unfinished()
    compilation.drop()
    os._exit(128 + number)
