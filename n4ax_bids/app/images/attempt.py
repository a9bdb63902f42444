"""One image: through the node, its outputs put in place, its record; an error stays its own."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.app.images import node, quarantine
from n4ax_bids.app.job import Job
from n4ax_bids.app.machine import claims
from n4ax_bids.app.machine.claims import Claim, Taken
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.machine.resources import Memory, Share
from n4ax_bids.app.outputs import derivatives, finished, sidecars
from n4ax_bids.app.reports import reports
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset
from n4ax_bids.io.names import printable, printable_lines
from n4ax_bids.report.page import KEPT

log = logging.getLogger("n4ax_bids")

CLAIMS = claims.FOLDER
FURTHER = "method_images"
"""the node's output that holds further images of the method, by their labels"""
MADE = {
    "output_image": "corrected",
    "bias_image": "field",
    "lattice_image": "lattice",
    "found_mask_image": "masks",
    "method_images": "further",
}
"""Outputs of the node, and what `Outputs` calls them."""


class State(StrEnum):
    """How a job has ended."""

    CORRECTED = "corrected"
    FINISHED = "finished"
    """by another run, meanwhile"""
    LEFT = "left"
    """to another run that works on it"""
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
    """of the device, where there are several"""
    state: State = State.CORRECTED
    try_again: bool = False
    """the device failed, not the image"""


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

    started = datetime.now(UTC)
    given = node.inputs(job, request, private)
    dataset.read_metadata(job)  # names a sidecar that is no text before its size is asked for
    inputs = finished.Inputs.of(job)
    metadata = dataset.read_metadata(job)
    each = BiasFieldCorrection(device=share.device, num_threads=share.n_threads, **given)
    each._tell_notes = False  # the run's own log does
    made = each.run(cwd=str(work)).outputs
    return publish(
        job,
        request,
        claim=claim,
        inputs=inputs,
        metadata=metadata,
        started=started,
        correction=made.correction,
        made=files_of(made, job),
        folder=private,
    )


def wanted(job: Job) -> list[str]:
    """Return the node's outputs that are published for a job."""
    return [name for name, label in MADE.items() if getattr(job.outputs, label)]


def files_of(outputs: Any, job: Job) -> dict[str, Path]:
    """Return the files that a node has made, by its outputs' names; further ones by label."""
    files = {name: Path(getattr(outputs, name)) for name in wanted(job) if name != FURTHER}
    if job.outputs.further:
        files |= {label: Path(path) for label, path in outputs.method_images.items()}
    return files


def publish(
    job: Job,
    request: Request,
    *,
    claim: Claim,
    inputs: finished.Inputs,
    metadata: Mapping[str, Any],
    started: datetime,
    correction: Mapping[str, Any],
    made: Mapping[str, Path],
    folder: Path,
) -> dict[str, Any]:
    """Put the outputs of an image in place, and record that it is finished.

    Parameters
    ----------
    job, request : the image and the run
    claim : on the image
    inputs : its files as they were before they were read
    metadata : what the raw dataset says of it
    started : when it was begun
    correction : the node's record
    made : the node's files by its outputs' names; they are moved
    folder : for unfinished files

    Returns
    -------
    dict, the node's record with what the dataset says that a person should know

    Raises
    ------
    Taken
        If another run has taken the image over.
    """
    notes = [*dataset.notes(job, metadata, request), *correction.get("notes", ())]
    correction = {**correction, "notes": notes}
    contents = sidecars.of(job, metadata, correction, request)
    files = []
    for number, (path, content) in enumerate(contents.items()):
        written = folder / f"{number}.json"
        written.write_text(derivatives.encode(content), encoding="utf-8")
        files.append((written, path))
    # The corrected image comes last, but for the record: where it is, everything is.
    targets = {name: getattr(job.outputs, MADE[name]) for name in wanted(job) if name != FURTHER}
    targets |= job.outputs.further
    kind = sidecars.kind_of_mask(job, correction)
    if kind:
        targets["found_mask_image"] = job.outputs.masks[kind]
    files += [(made[name], target) for name, target in reversed(targets.items())]
    text = finished.text(
        job,
        request,
        inputs=inputs,
        correction=correction,
        sizes={path: source.stat().st_size for source, path in files},
        started=started,
    )
    written = folder / "record.json"
    written.write_text(text, encoding="utf-8")
    files.append((written, finished.path_of(job, request.output_dir)))
    finished.require_unchanged(job, inputs, correction.get("sha256", {}))
    derivatives.require_inside(request.output_dir, [target for _, target in files])
    if not claim.holds():
        raise Taken
    finished.forget(job, request.output_dir)
    derivatives.remove_unwanted(job.outputs, kind)
    derivatives.publish(files)
    return correction


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
    error : what happened
    text : traceback
    seconds : that it took
    try_again : whether the device failed, not the image
    """
    path: Path | None = crash_file(job, request)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = f"{KEPT}\n" if job.outputs.corrected.is_file() else ""
        head = f"n4ax_bids {__version__}\n{printable(job.source)}\n{kept}\n"
        derivatives.write_text(
            path, head + printable_lines(text, request.bids_dir, request.output_dir)
        )
    except OSError as problem:
        log.warning("%s: cannot write the crash file: %s", path, problem)
        path = None
    return Outcome(
        job, seconds, error=error, crash_file=path, state=State.FAILED, try_again=try_again
    )


def crash_file(job: Job, request: Request) -> Path:
    """Return where the traceback of an image is kept."""
    return request.output_dir / "logs" / f"crash-{job.name}.txt"


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
