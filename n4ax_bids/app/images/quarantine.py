"""Images during which a run died: they are tried once more alone, and then set aside.

A mark stands in `logs/attempts` for as long as an image is worked on. Whatever can be caught
removes it; so where it has stayed, the run was killed, often for its memory. Any image that was in
flight may be the cause. The next run does these images last and one by one. An image that a run
has died of twice, the last time alone, is not begun again until its mark is removed, or with
--overwrite.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from n4ax_bids.app.job import Job
from n4ax_bids.app.machine import claims
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.outputs import derivatives
from n4ax_bids.app.request import Request
from n4ax_bids.io.text import read_json

log = logging.getLogger("n4ax_bids")

FOLDER = Path("logs", "attempts")
MOST = 2
"""times that a run may die of an image"""


class SetAside(ValueError):
    """Runs have died of an image, which is therefore not begun."""


@dataclass(frozen=True)
class Mark:
    """How often an image was begun by runs that died then."""

    n_begun: int = 0
    alone: bool = False
    """it was the only one in flight the last time"""

    @classmethod
    def read(cls, path: Path) -> Mark:
        """Read a mark; none is one of no attempt, and what holds anything else of one."""
        try:
            content = read_json(path)
            n_begun, alone = content["n_begun"], content["alone"]
            if type(n_begun) is int and type(alone) is bool and n_begun > 0:
                return cls(n_begun, alone)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, LookupError, TypeError):
            pass
        return cls(1)


def path_of(job: Job, output_dir: Path) -> Path:
    """Return where the mark of an image is."""
    return output_dir / FOLDER / f"{claims.key(job.relative)}.json"


@contextmanager
def marked(job: Job, request: Request, *, alone: bool) -> Iterator[None]:
    """Have a mark on an image within the block; whose claim one must hold.

    Parameters
    ----------
    job, request : the image and the run
    alone : no other image of the run is in flight

    Raises
    ------
    SetAside
        If runs have died of it too often; one line with the remedy.
    OSError
        If the mark cannot be written.
    """
    require_allowed(job, request)
    _mark(job, request, alone=alone)
    try:
        yield
    finally:
        forget(job, request.output_dir)


def require_allowed(job: Job, request: Request) -> None:
    """Raise `SetAside` if runs have died of an image too often."""
    mark = _known(job, request)
    if mark.n_begun >= MOST and mark.alone:
        raise SetAside(
            f"{job.source}: set aside, for {mark.n_begun} runs were killed while they worked on "
            f"it (out of memory?); to try again remove {path_of(job, request.output_dir)}, or use "
            "--overwrite"
        )


class Marks:
    """Marks on images that are begun one after another, within a block.

    At its end the marks of images that have not ended go, for the run has not died.

    Parameters
    ----------
    request : the run
    alone : no other image of the run is in flight
    """

    def __init__(self, request: Request, *, alone: bool) -> None:
        self._request, self._alone = request, alone
        self._jobs: list[Job] = []

    def __enter__(self) -> Marks:
        return self

    def __exit__(self, *error: object) -> None:
        for job in self._jobs:
            forget(job, self._request.output_dir)

    def __contains__(self, job: Job) -> bool:
        return job in self._jobs

    def add(self, job: Job) -> None:
        """Mark an image that is begun now, whose claim one must hold."""
        self._jobs.append(job)
        try:
            _mark(job, self._request, alone=self._alone)
        except OSError as error:  # its engine has begun it: too late to fail it
            log.warning("%s: cannot mark the attempt: %s", job.source, error)

    def drop(self, job: Job) -> None:
        """Leave an image to itself, which has ended: another run may be at it by now."""
        self._jobs = [each for each in self._jobs if each is not job]

    def keep(self) -> None:
        """Leave the marks where they are behind the block: the images are tried again alone."""
        self._jobs.clear()


def _known(job: Job, request: Request) -> Mark:
    return Mark() if request.overwrite else Mark.read(path_of(job, request.output_dir))


def _mark(job: Job, request: Request, *, alone: bool) -> None:
    path, n_begun = path_of(job, request.output_dir), _known(job, request).n_begun
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"source": job.relative, "n_begun": n_begun + 1, "alone": alone}
    derivatives.write_text(path, derivatives.encode(content))


def forget(job: Job, output_dir: Path) -> None:
    """Remove the mark of an image that has not ended the run."""
    path_of(job, output_dir).unlink(missing_ok=True)


def suspects(jobs: Sequence[Job], output_dir: Path, here: Presence) -> list[Job]:
    """Return the images that were in flight when a run died.

    Parameters
    ----------
    jobs : that are to be done
    output_dir : root of the derivative dataset
    here : presence of this run; an image that another run works on has a mark and is no suspect
    """
    try:
        marks = {path.name for path in (output_dir / FOLDER).iterdir()}
    except OSError:  # there is none
        return []
    return [
        job
        for job in jobs
        if path_of(job, output_dir).name in marks
        and claims.holder(output_dir / claims.FOLDER, job.relative, here) is None
    ]
