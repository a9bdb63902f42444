"""How a signal ends a run: by way of its clean-up, and in any case after a while."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
import time
from typing import Any

PATIENCE = 10.0
"""seconds that a run has for its clean-up after a signal, in which others have no effect"""
GRACE = 60.0
"""seconds after a signal in which a run may end by itself: a solve is not broken off"""
_last_signal = -math.inf
_limit: threading.Timer | None = None
_at_work = False


def end_on_signals() -> None:
    """Let a batch system's signal, or Ctrl+C, end the run by way of its clean-up.

    Exit status 143 or 130. One that follows soon would break off the clean-up; one that comes
    later is from somebody who has waited for it. At the end of the time of grace the process ends
    in any case: a thread may wait for a file that never comes.
    """
    global _last_signal, _limit, _at_work
    _last_signal, _limit, _at_work = -math.inf, None, True
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)


def end_of_run() -> None:
    """Let signals do what they did before the run."""
    global _limit, _at_work
    if _limit is not None:
        _limit.cancel()
    _limit, _at_work = None, False


def _end(number: int, _: Any) -> None:
    global _last_signal, _limit
    if time.monotonic() - _last_signal < PATIENCE:
        return
    _last_signal = time.monotonic()
    if _limit is None and _at_work:
        _limit = threading.Timer(GRACE, _give_up, [128 + number])
        _limit.daemon = True
        _limit.start()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _give_up(status: int) -> None:
    """End the process at once; the next run removes what this one leaves."""
    logging.getLogger("n4ax_bids").error("an image is still being worked on: ended without it")
    os._exit(status)
