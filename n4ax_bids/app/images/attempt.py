"""Processes one image: the node, the outputs, the record; an error affects only this image."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from n4ax_bids.app.images import applied, node, quarantine
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
from n4ax_bids.methods import METHODS

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
    """Run one job, unless it is finished or another run works on it; return how it ended.

    Parameters
    ----------
    job : the image
    request : the run
    here : the run's presence in the output folder
    work : current folder of all jobs, because nipype changes it for the whole process
    share : device and threads
    memory : memory that is left for images in flight
    alone : whether the run has no other image in flight
    """
    begun = time.perf_counter()
    try:
        with claims.claimed(request.output_dir / CLAIMS, job.relative, here) as claim:
            if not request.overwrite and finished.why_not_finished(job, request) is None:
                return Outcome(job, state=State.FINISHED)
            if job.reference:
                applied.require_field(job, request, here)
            with quarantine.marked(job, request, alone=alone):
                return _attempt(job, request, claim, work, share, memory)
    except Taken:
        return Outcome(job, state=State.LEFT)
    except (OSError, ValueError) as error:  # no claim is possible, or no further attempt
        return failed(job, request, error, traceback.format_exc(), time.perf_counter() - begun)


def _attempt(
    job: Job, request: Request, claim: Claim, work: Path, share: Share, memory: Memory
) -> Outcome:
    from n4ax_bids.image import in_memory
    from n4ax_bids.runtime.device import DeviceError

    begun = time.perf_counter()
    try:
        with (
            memory.reserved(_memory_needed(job, request, share)),
            _private(work, job.name) as private,
            in_memory.keeping() if request.reports else nullcontext(),
        ):
            begun = time.perf_counter()
            correction = correct(
                job, request=request, share=share, work=work, private=private, claim=claim
            )
            drawn = reports.Drawn(True)
            if job.reference is None:
                drawn = reports.image(job, request, private)
    except Taken:
        raise
    except Exception as error:
        if not claim.holds():  # another run took over and has removed our unfinished files
            raise Taken from error
        again = isinstance(error, DeviceError)
        text, seconds = traceback.format_exc(), time.perf_counter() - begun
        return failed(job, request, error, text, seconds, try_again=again)
    crash_file(job, request).unlink(missing_ok=True)  # from an earlier run
    notes = [*correction.get("notes", ()), *drawn.remarks]
    return Outcome(job, time.perf_counter() - begun, {**correction, "notes": notes})


def _memory_needed(job: Job, request: Request, share: Share) -> int:
    """Return how many bytes an image will need; refuse one that needs more than the job has.

    Otherwise the system would kill the whole run, without naming the image.
    """
    from n4ax_bids.image.demand import memory_needed

    if job.reference:
        return applied.memory_needed(job)
    if METHODS[request.method].streams:
        return node.budget(request, share) + node.OVERHEAD
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
    """Correct one image and put its outputs in place; return the node's output `correction`."""
    begun = Begun.now(job, request, claim)
    if job.reference:
        return publish(begun, *applied.divide(job, share, private), private)
    each = node.node_of(job, request, private, begun.metadata, share)
    each._tell_notes = False  # the run logs them
    made = each.run(cwd=str(work)).outputs
    return publish(begun, made.correction, files_of(made, job), private)


@contextmanager
def _private(work: Path, name: str) -> Iterator[Path]:
    """Make a folder for one image in the folder that all images share."""
    if not work.is_dir():  # another run took this one for dead and has removed it
        work.mkdir(parents=True)
        os.chdir(work)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
