"""Lets a signal end a run with a clean-up, and after a limited time in any case."""

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
"""seconds for the clean-up after a signal, during which other signals are ignored"""
GRACE = 60.0
"""seconds after a signal until the process ends in any case; a solve cannot be interrupted"""
_last_signal = -math.inf
_limit: threading.Timer | None = None
_at_work = False


def end_on_signals() -> None:
    """Let SIGTERM from a batch system, or Ctrl+C, end the run with a clean-up.

    The exit status is 143 or 130. A second signal that follows soon is ignored, because it would
    interrupt the clean-up; a later one comes from a user who has waited long enough. After
    the grace period the process ends in any case, because a thread may wait for a file forever.
    """
    global _last_signal, _limit, _at_work
    _last_signal, _limit, _at_work = -math.inf, None, True
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)


def end_of_run() -> None:
    """Stop the timer that would end the process after a signal."""
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
    """End the process at once; the next run removes its unfinished files."""
    logging.getLogger("n4ax_bids").error("an image is still being worked on: ended without it")
    os._exit(status)
