"""One image: through the node, its outputs put in place, its record; an error stays its own."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from n4ax_bids.app.images import node, quarantine
from n4ax_bids.app.images.outcome import Outcome, State, crash_file, failed
from n4ax_bids.app.images.publish import Begun, files_of, publish
from n4ax_bids.app.job import Job
from n4ax_bids.app.machine import claims
from n4ax_bids.app.machine.claims import Claim, Taken
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.machine.resources import Memory, Share
from n4ax_bids.app.outputs import finished
from n4ax_bids.app.reports import reports
from n4ax_bids.app.request import Request

CLAIMS = claims.FOLDER


def attempt(
    job: Job,
    *,
    request: Request,
    here: Presence,
    work: Path,
    share: Share,
    memory: Memory,
    alone: bool = False,
) -> Outcome:
    """Run one job unless it is finished or another run's; an error becomes part of the outcome.

    Parameters
    ----------
    job : the image
    request : the run it belongs to
    here : the run's presence in the output folder
    work : the folder that all jobs share; nipype changes directory for the whole process
    share : device and threads
    memory : what is left for images in flight
    alone : the run has no other image in flight
    """
    begun = time.perf_counter()
    try:
        with claims.claimed(request.output_dir / CLAIMS, job.relative, here) as claim:
            if not request.overwrite and finished.why_not_finished(job, request) is None:
                return Outcome(job, state=State.FINISHED)
            with quarantine.marked(job, request, alone=alone):
                return _attempt(job, request, claim, work, share, memory)
    except Taken:
        return Outcome(job, state=State.LEFT)
    except (OSError, quarantine.SetAside) as error:  # there can be no claim, or no further attempt
        return failed(job, request, error, traceback.format_exc(), time.perf_counter() - begun)


def _attempt(
    job: Job, request: Request, claim: Claim, work: Path, share: Share, memory: Memory
) -> Outcome:
    from n4ax_bids.device import DeviceError

    begun = time.perf_counter()
    try:
        with (
            memory.reserved(_memory_needed(job, request, share)),
            _private(work, job.name) as private,
        ):
            begun = time.perf_counter()
            correction = correct(
                job, request=request, share=share, work=work, private=private, claim=claim
            )
            drawn = reports.image(job, request, private)
    except Taken:
        raise
    except Exception as error:
        if not claim.holds():  # who took the image over has removed what we were at
            raise Taken from error
        again = isinstance(error, DeviceError)
        text, seconds = traceback.format_exc(), time.perf_counter() - begun
        return failed(job, request, error, text, seconds, try_again=again)
    crash_file(job, request).unlink(missing_ok=True)  # an earlier run's
    notes = [*correction.get("notes", ()), *drawn.remarks]
    return Outcome(job, time.perf_counter() - begun, {**correction, "notes": notes})


def _memory_needed(job: Job, request: Request, share: Share) -> int:
    """Return how many bytes an image will take; refuse one that takes more than the job has.

    The system would end the whole run for it, and not even name the image.
    """
    from n4ax_bids.demand import memory_needed

    needed = {
        path: memory_needed(path, request.options)
        for path in (job.source, job.mask, job.weight)
        if path
    }
    for path, n_bytes in needed.items():
        if share.most is not None and n_bytes > share.most:
            raise ValueError(
                f"{path}: its voxels take about {n_bytes / 1e9:.1f} GB of memory, and there are "
                f"{share.most / 1e9:.1f} GB for this job; expected a smaller image or more memory"
            )
    return needed[job.source]


def correct(
    job: Job, *, request: Request, share: Share, work: Path, private: Path, claim: Claim
) -> Mapping[str, Any]:
    """Correct one image and put its outputs in place; return the node's record."""
    from n4ax_bids.interfaces import BiasFieldCorrection

    given = node.inputs(job, request, private)
    begun = Begun.now(job, request, claim)
    each = BiasFieldCorrection(device=share.device, num_threads=share.n_threads, **given)
    each._tell_notes = False  # the run's own log does
    made = each.run(cwd=str(work)).outputs
    return publish(begun, made.correction, files_of(made, job), private)


@contextmanager
def _private(work: Path, name: str) -> Iterator[Path]:
    """Make a folder for one image in the one that all share."""
    if not work.is_dir():  # who took this run for dead has removed it
        work.mkdir(parents=True)
        os.chdir(work)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
