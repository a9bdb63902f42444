"""Images during which a run was killed: they are tried once more alone, and then set aside.

An image has a mark in `logs/attempts` while it is being processed. Every normal end and every
error removes the mark. So if a mark remains, the run was killed, often because it took too much
memory. Each image that was in flight may be the cause. The next run processes these images last
and one by one. If runs were killed twice during an image, the last time while it was alone, it is
not begun again until its mark is removed, or with --overwrite.
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
"""how many runs may be killed during an image"""


class SetAside(ValueError):
    """An image is not begun, because runs were killed during it."""


@dataclass(frozen=True)
class Mark:
    """How often runs were killed during an image."""

    n_begun: int = 0
    alone: bool = False
    """whether it was the only image in flight the last time"""

    @classmethod
    def read(cls, path: Path) -> Mark:
        """Read a mark; a missing file counts as no attempt, a damaged one as one attempt."""
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
    """Return the path of an image's mark."""
    return output_dir / FOLDER / f"{claims.key(job.relative)}.json"


@contextmanager
def marked(job: Job, request: Request, *, alone: bool) -> Iterator[None]:
    """Keep a mark on an image within the block; the caller holds the claim on the image.

    Parameters
    ----------
    job, request : the image and the run
    alone : whether no other image of the run is in flight

    Raises
    ------
    SetAside
        If runs were killed during it too often; one line with the remedy.
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
    """Raise `SetAside` if runs were killed during an image too often."""
    mark = _known(job, request)
    if mark.n_begun >= MOST and mark.alone:
        raise SetAside(
            f"{job.source}: set aside, because {mark.n_begun} runs were killed while they worked "
            f"on it (out of memory?); to try again remove {path_of(job, request.output_dir)}, or "
            "use --overwrite"
        )


class Marks:
    """Marks on images that are begun one after another within a block.

    The end of the block removes the marks that are left, because the run was not killed.

    Parameters
    ----------
    request : the run
    alone : whether no other image of the run is in flight
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
        """Mark an image that begins now; the caller holds the claim on it."""
        self._jobs.append(job)
        try:
            _mark(job, self._request, alone=self._alone)
        except OSError as error:  # the engine has begun the image: too late to refuse it
            log.warning("%s: cannot mark the attempt: %s", job.source, error)

    def drop(self, job: Job) -> None:
        """Forget an image that has ended, because another run may be working on it by now."""
        self._jobs = [each for each in self._jobs if each is not job]

    def keep(self) -> None:
        """Keep the marks beyond the block, because the images are tried again alone."""
        self._jobs.clear()


def _known(job: Job, request: Request) -> Mark:
    return Mark() if request.overwrite else Mark.read(path_of(job, request.output_dir))


def _mark(job: Job, request: Request, *, alone: bool) -> None:
    path, n_begun = path_of(job, request.output_dir), _known(job, request).n_begun
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"source": job.relative, "n_begun": n_begun + 1, "alone": alone}
    derivatives.write_text(path, derivatives.encode(content))


def forget(job: Job, output_dir: Path) -> None:
    """Remove the mark of an image during which the run was not killed."""
    path_of(job, output_dir).unlink(missing_ok=True)


def suspects(jobs: Sequence[Job], output_dir: Path, here: Presence) -> list[Job]:
    """Return the images that were in flight when a run was killed.

    Parameters
    ----------
    jobs : the jobs of this run
    output_dir : root of the derivative dataset
    here : presence of this run; an image that another run is working on is no suspect, although it
        has a mark
    """
    try:
        marks = {path.name for path in (output_dir / FOLDER).iterdir()}
    except OSError:  # there are no marks
        return []
    return [
        job
        for job in jobs
        if path_of(job, output_dir).name in marks
        and claims.holder(output_dir / claims.FOLDER, job.relative, here) is None
    ]
