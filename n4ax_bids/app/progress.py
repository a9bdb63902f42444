"""What a run tells while it goes on: a line for each image, a bar on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from n4ax_bids.app.status import Status

if TYPE_CHECKING:
    from tqdm import tqdm

    from n4ax_bids.app.run import Outcome

log = logging.getLogger("n4ax_bids")


def follow(outcomes: Iterator[Outcome], n_jobs: int) -> Status:
    """Log each outcome as it comes and return the exit status."""
    failed, shares = 0, Counter()
    start = time.perf_counter()
    with _bar(n_jobs) as bar:
        for number, outcome in enumerate(outcomes, start=1):
            seconds = time.perf_counter() - start
            # On a terminal the bar says it.
            pace = "" if bar else f"; {_pace(number, n_jobs, seconds)}"
            _tell(f"[{number}/{n_jobs}] {outcome.job.name}", outcome, pace)
            failed += outcome.error is not None
            shares[outcome.label] += 1
            if bar:
                bar.update()
    if len(shares) > 1:
        parts = (f"{label}: {n}" for label, n in sorted(shares.items()))
        log.info("images of each device: %s", ", ".join(parts))
    log.info("%d of %d images corrected, %d failed", n_jobs - failed, n_jobs, failed)
    return Status.SOME_FAILED if failed else Status.OK


@contextmanager
def _bar(n_jobs: int) -> Iterator[tqdm | None]:
    """Show a progress bar beneath the log where that goes to a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    with logging_redirect_tqdm([log]), tqdm(total=n_jobs, unit="image", smoothing=0.1) as bar:
        yield bar


def _pace(n_done: int, n_jobs: int, seconds: float) -> str:
    """Return images per second and the time left, in words."""
    from tqdm import tqdm

    left = tqdm.format_interval((n_jobs - n_done) * seconds / n_done)
    return f"{n_done / seconds:.2g} images/s, {left} left"


def _tell(head: str, outcome: Outcome, pace: str) -> None:
    if outcome.error is None:
        for note in outcome.correction.get("notes", ()):
            log.warning("%s: %s", head, note)
        log.info("%s: corrected in %.1f s%s", head, outcome.seconds, pace)
        log.debug("%s: %s", head, outcome.correction)
    else:
        where = f" (see {outcome.crash_file})" if outcome.crash_file else ""
        log.error("%s: failed: %s%s", head, in_one_line(outcome.error), where)


def in_one_line(error: Exception) -> str:
    """Return the message of an error without line breaks; its type where that tells more."""
    message = " ".join(str(error).split())
    if message and isinstance(error, ValueError | OSError):
        return message
    return f"{type(error).__name__}: {message}".rstrip(": ")
