"""Reports the progress of a run: a line for each image, a bar on a terminal, a table."""

from __future__ import annotations

import errno
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from n4ax_bids.app.images.outcome import Outcome, State
from n4ax_bids.app.outputs import sidecars
from n4ax_bids.app.status import Status
from n4ax_bids.io.names import printable

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger("n4ax_bids")

COLUMNS = ("source", "state", "seconds", "device", "reason")
"""columns of the table"""

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class StoppedEarly(Exception):
    """An image has failed, and the run should end after the first failure."""


class Progress:
    """Reports each image when it ends, and the totals at the end.

    Parameters
    ----------
    n_jobs : images to process
    n_finished : images that were finished before
    table : file with a row for each image; the file and its folder are created
    stop_on_failure : raise StoppedEarly after the first image that fails
    """

    def __init__(
        self,
        n_jobs: int,
        *,
        n_finished: int = 0,
        table: Path | None = None,
        stop_on_failure: bool = False,
    ):
        self._n_jobs, self._n_finished, self._table = n_jobs, n_finished, table
        self._stop_on_failure = stop_on_failure
        self._states: Counter[State] = Counter()
        self._devices: Counter[str] = Counter()
        self._failures: list[Outcome] = []
        self._stack, self._bar = ExitStack(), None

    def __enter__(self) -> Progress:
        if self._table:
            self._table.parent.mkdir(parents=True, exist_ok=True)
            self._table.write_text("\t".join(COLUMNS) + "\n", encoding="utf-8")
        if self._n_finished:
            log.info(
                "%d of %d images are finished already",
                self._n_finished,
                self._n_finished + self._n_jobs,
            )
        self._bar = self._stack.enter_context(_bar(self._n_jobs))
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def tell(self, outcome: Outcome) -> None:
        """Log how an image ended.

        Raises
        ------
        StoppedEarly
            If it has failed and the run should end after the first failure.
        """
        self._states[outcome.state] += 1
        number, seconds = self._states.total(), time.perf_counter() - self._start
        # On a terminal, the progress bar shows the pace already.
        pace = "" if self._bar else f"; {_pace(number, self._n_jobs, seconds)}"
        _tell(f"[{number}/{self._n_jobs}] {outcome.job.name}", outcome, pace)
        self._write_row(outcome)
        if self._bar:
            self._bar.update()
        if outcome.state == State.CORRECTED or outcome.label:
            self._devices[outcome.label] += 1
        if outcome.error is not None:
            self._failures.append(outcome)
            if self._stop_on_failure:
                raise StoppedEarly

    def close(self) -> Status:
        """Log the totals and return the exit status."""
        if len(self._devices) > 1:
            parts = (f"{label}: {n}" for label, n in sorted(self._devices.items()))
            log.info("images of each device: %s", ", ".join(parts))
        sums = {
            "finished before": self._n_finished,
            "finished by other runs in the meantime": self._states[State.FINISHED],
            "left to other runs": self._states[State.LEFT],
            "not begun": self._n_jobs - self._states.total(),
        }
        log.info(
            "%d of %d images corrected, %d failed%s",
            self._states[State.CORRECTED],
            self._n_finished + self._n_jobs,
            len(self._failures),
            "".join(f", {n} {what}" for what, n in sums.items() if n),
        )
        return self._status()

    def _status(self) -> Status:
        if not self._failures:
            return Status.OK
        if all(failure.try_again for failure in self._failures):
            return Status.TRY_AGAIN
        numbers = (getattr(failure.error, "errno", None) for failure in self._failures)
        if all(number in _CANNOT_WRITE for number in numbers):
            return Status.CANNOT_WRITE
        return Status.SOME_FAILED

    def _write_row(self, outcome: Outcome) -> None:
        if self._table is None:
            return
        reason = in_one_line(outcome.error) if outcome.error else ""
        state = str(outcome.state)
        if outcome.error and outcome.job.outputs.corrected.is_file():
            state += ", earlier outputs kept"
        row = (
            printable(outcome.job.relative),
            state,
            f"{outcome.seconds:.2f}",
            (outcome.correction or {}).get("device", "n/a"),
            printable(reason) or "n/a",
        )
        try:
            with open(self._table, "a", encoding="utf-8") as file:
                file.write("\t".join(row) + "\n")
        except OSError as error:
            log.warning("%s: this table gets no further rows: %s", self._table, error)
            self._table = None


@contextmanager
def _bar(n_jobs: int) -> Iterator[tqdm | None]:
    """Show a progress bar below the log, if the log goes to a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    with logging_redirect_tqdm([log]), tqdm(total=n_jobs, unit="image", smoothing=0.1) as bar:
        yield bar


def _pace(n_done: int, n_jobs: int, seconds: float) -> str:
    """Return in words the images per second or the seconds per image, and the time left."""
    from tqdm import tqdm

    left = tqdm.format_interval((n_jobs - n_done) * seconds / n_done)
    if n_done < seconds:
        each = seconds / n_done
        return f"{each:.{1 if each < 10 else 0}f} s per image, {left} left"
    return f"{n_done / seconds:.2g} images/s, {left} left"


def _tell(head: str, outcome: Outcome, pace: str) -> None:
    if outcome.state == State.CORRECTED:
        correction = outcome.correction or {}
        for note in correction.get("notes", ()):
            log.warning("%s: %s", head, note)
        log.info("%s: corrected in %.1f s%s", head, outcome.seconds, pace)
        _tell_mask(head, correction.get("mask_found"))
        log.debug("%s: %s", head, correction)
    elif outcome.state == State.FINISHED:
        log.info("%s: another run has finished it in the meantime", head)
    elif outcome.state == State.LEFT:
        log.info("%s: left to another run, which is working on it", head)
    elif outcome.error is not None:
        where = f" (see {outcome.crash_file})" if outcome.crash_file else ""
        log.error("%s: failed: %s%s", head, in_one_line(outcome.error), where)


def _tell_mask(head: str, facts: Mapping[str, Any] | None) -> None:
    """Log with -v how the mask of an image was found, if it was found in the image."""
    if facts and log.isEnabledFor(logging.DEBUG):
        log.info(
            "%s: mask: %s, %.3g %% of the image, %s; Otsu's threshold finds %.3g %% of it",
            head,
            facts["kind"],
            100 * facts["share"],
            ", ".join(sidecars.how_found(facts)),
            100 * facts["otsu_covers"],
        )


def in_one_line(error: Exception) -> str:
    """Return the message of an error on one line, with its type unless the message is ours."""
    message = " ".join(str(error).split())
    if message and isinstance(error, ValueError | OSError):
        return message
    return f"{type(error).__name__}: {message}".rstrip(": ")
