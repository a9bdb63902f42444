"""The log of a run, on standard error: one line for each message."""

from __future__ import annotations

import logging
import sys

from n4ax_bids.io.names import printable, printable_lines


class _Printable(logging.Formatter):
    """Shows each message as one line, so that a file name cannot forge a line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return (printable_lines if record.levelno == logging.DEBUG else printable)(text)


def set_up(*, verbose: bool) -> None:
    """Write the log to standard error, with `verbose` also the details for finding faults."""
    log = logging.getLogger("n4ax_bids")
    log.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
