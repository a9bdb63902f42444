"""How a job has ended, and the crash file of one that has failed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.app.job import Job
from n4ax_bids.app.outputs import derivatives
from n4ax_bids.app.request import Request
from n4ax_bids.io.names import printable, printable_lines
from n4ax_bids.report.page import KEPT

log = logging.getLogger("n4ax_bids")


class State(StrEnum):
    """How a job has ended."""

    CORRECTED = "corrected"
    FINISHED = "finished"
    """another run has finished it in the meantime"""
    LEFT = "left"
    """left to another run that is working on it"""
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """How one job ended; `error` is None unless it has failed."""

    job: Job
    seconds: float = 0.0
    correction: Mapping[str, Any] | None = None
    error: Exception | None = None
    crash_file: Path | None = None
    label: str = ""
    """name of the device, if there are several"""
    state: State = State.CORRECTED
    try_again: bool = False
    """whether the device failed and not the image"""


def failed(
    job: Job,
    request: Request,
    error: Exception,
    text: str,
    seconds: float = 0.0,
    *,
    try_again: bool = False,
) -> Outcome:
    """Write a crash file and return the outcome of a job that has failed.

    Parameters
    ----------
    job, request : the image and the run
    error : the error that ended the job
    text : traceback
    seconds : duration
    try_again : whether the device failed and not the image
    """
    path = crash_file(job, request)
    written: Path | None = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = f"{KEPT}\n" if job.outputs.corrected.is_file() else ""
        head = f"n4ax_bids {__version__}\n{printable(job.source)}\n{kept}\n"
        derivatives.write_text(
            path, head + printable_lines(text, request.bids_dir, request.output_dir)
        )
    except OSError as problem:
        log.warning("%s: cannot write the crash file: %s", path, problem)
        written = None
    return Outcome(
        job, seconds, error=error, crash_file=written, state=State.FAILED, try_again=try_again
    )


def crash_file(job: Job, request: Request) -> Path:
    """Return the path of the file for the traceback of an image."""
    return request.output_dir / "logs" / f"crash-{job.name}.txt"
