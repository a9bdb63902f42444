"""The jobs through the node, several at a time, each with its files and its faults."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from n4ax_bids.app import (
    boilerplate,
    dataset,
    derivatives,
    node,
    plan,
    pool,
    progress,
    resources,
    root_files,
    writable,
)
from n4ax_bids.app.dataset import Job
from n4ax_bids.app.pool import Pool
from n4ax_bids.app.request import Request
from n4ax_bids.app.resources import Memory, Share
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.app.validation import validating

log = logging.getLogger("n4ax_bids")


@dataclass(frozen=True)
class Outcome:
    """How one job ended; `error` is None when its outputs are in place."""

    job: Job
    seconds: float = 0.0
    correction: Mapping[str, Any] | None = None
    error: Exception | None = None
    crash_file: Path | None = None
    label: str = ""
    """of the device, where there are several"""


def run(request: Request) -> Status:
    """Correct every image that the request selects.

    Raises
    ------
    Refusal
        If the run cannot begin. An image that fails is logged and does not end the run.
    """
    raw = dataset.read_description(request.bids_dir)
    check_places(request)
    if request.boilerplate_only:
        with _writing(request.output_dir):
            boilerplate.write(request)
        return Status.OK
    with ExitStack() as stack:
        validation = stack.enter_context(validating(request))
        selection = dataset.select(request)
        if request.dry_run:
            print(*plan.lines(selection, request), sep="\n")
            validation.require_valid()
            return Status.OK
        dataset.tell_skipped(selection.skipped)
        devices = stack.enter_context(_opened(request, len(selection.jobs)))
        validation.require_valid()
        work = stack.enter_context(_work_folder(request))
        with _writing(request.output_dir):
            root_files.write(request, raw, selection)
        with closing(_outcomes(devices, selection.jobs, request, work)) as outcomes:
            return progress.follow(outcomes, len(selection.jobs))


@contextmanager
def _opened(request: Request, n_jobs: int) -> Iterator[Pool]:
    """Start the devices of a run and tell what they are."""
    shares = resources.shares(
        n_jobs=n_jobs,
        device=request.device,
        n_images=request.nprocs,
        n_threads=request.omp_nthreads,
        memory=request.mem and int(request.mem * 1e9),
    )
    with ExitStack() as stack:
        try:
            devices = stack.enter_context(pool.opened(shares))
        except ValueError as error:
            raise Refusal(Status.USAGE, str(error)) from error
        found = devices.devices
        for device in found:
            log.info("device: %s", device)
        if request.device == "auto" and not any("gpu" in each.lower() for each in found):
            from n4ax_bids.device import why_no_gpu

            log.warning("no GPU that JAX sees: computing on the CPU (%s)", why_no_gpu())
        share = shares[0]
        log.info("%d images at a time, %d threads for a solve", share.n_images, share.n_threads)
        yield devices


def _outcomes(
    devices: Pool, jobs: tuple[Job, ...], request: Request, work: Path
) -> Iterator[Outcome]:
    """Yield how each job ended, in their order."""
    task = partial(attempt, request=request, work=work)
    with closing(devices.run(task, jobs, work)) as results:
        for job, (share, result) in zip(jobs, results, strict=True):
            if isinstance(result, Exception):  # its process has ended
                result = Outcome(job, error=result)
            yield replace(result, label=share.label)


def attempt(job: Job, *, request: Request, work: Path, share: Share, memory: Memory) -> Outcome:
    """Run one job; an error becomes part of the outcome and a crash file.

    Parameters
    ----------
    job : the image
    request : the run it belongs to
    work : the folder that all jobs share; nipype changes directory for the whole process
    share : device and threads
    memory : what is left for images in flight
    """
    from n4ax_bids.correct import memory_needed

    crash_file = request.output_dir / "logs" / f"crash-{job.name}.txt"
    private = Path(tempfile.mkdtemp(prefix=f"{job.name}-", dir=work))
    start = time.perf_counter()
    try:
        with memory.reserved(memory_needed(job.source, request.options)):
            start = time.perf_counter()
            correction = correct(job, request=request, share=share, work=work, private=private)
    except Exception as error:
        text = f"n4ax_bids {derivatives.__version__}\n{job.source}\n\n{traceback.format_exc()}"
        written = _write_crash_file(crash_file, text)
        return Outcome(job, time.perf_counter() - start, error=error, crash_file=written)
    finally:
        shutil.rmtree(private, ignore_errors=True)
    crash_file.unlink(missing_ok=True)  # an earlier run's
    return Outcome(job, time.perf_counter() - start, correction)


def correct(
    job: Job, *, request: Request, share: Share, work: Path, private: Path
) -> Mapping[str, Any]:
    """Correct one image and put its outputs in place; return the node's record."""
    from n4ax_bids.interfaces import N4BiasFieldCorrection

    metadata = dataset.read_metadata(job)
    n4 = N4BiasFieldCorrection(
        device=share.device,
        num_threads=share.n_threads,
        **node.inputs(job, request, private),
    )
    made = n4.run(cwd=str(work)).outputs
    correction = dict(made.correction)
    correction["notes"] = [*dataset.notes(job, metadata, request), *correction.get("notes", ())]
    contents = derivatives.sidecars(job, metadata, correction, request)
    files = []
    for number, (path, content) in enumerate(contents.items()):
        written = private / f"{number}.json"
        written.write_text(derivatives.encode(content), encoding="utf-8")
        files.append((written, path))
    # The corrected image comes last: where it is, everything is.
    outputs = job.outputs
    files.append((Path(made.lattice_image), outputs.lattice))
    if outputs.field:
        files.append((Path(made.bias_image), outputs.field))
    files.append((Path(made.output_image), outputs.corrected))
    derivatives.publish(files)
    derivatives.remove_unwanted(outputs)
    return correction


def check_places(request: Request) -> None:
    """Refuse an output or work folder that would spoil a dataset.

    Raises
    ------
    Refusal
        With one line that says which folder is in the way and where to put it.
    """
    raw, out = request.bids_dir.resolve(), request.output_dir.resolve()
    if out == raw:
        raise Refusal(Status.USAGE, f"{out}: the output folder is the input dataset itself")
    if raw in out.parents and raw / "derivatives" not in out.parents:
        raise Refusal(
            Status.USAGE,
            f"{out}: the output folder lies inside the input dataset; expected a place outside "
            f"it or {raw / 'derivatives' / derivatives.NAME}",
        )
    if out in raw.parents and out / "sourcedata" not in (raw, *raw.parents):
        raise Refusal(Status.USAGE, f"{out}: the output folder contains the input dataset {raw}")
    work = request.work_dir.resolve() if request.work_dir else out
    if (work == raw or raw in work.parents) and out not in (work, *work.parents):
        raise Refusal(Status.USAGE, f"{work}: the work folder lies inside the input dataset")
    _check_description(out / "dataset_description.json")


def _check_description(path: Path) -> None:
    if not path.is_file():
        return
    try:
        made_by = json.loads(path.read_text(encoding="utf-8"))["GeneratedBy"][0]["Name"]
    except (OSError, ValueError, LookupError, TypeError):
        made_by = None
    if made_by != derivatives.NAME:
        raise Refusal(
            Status.USAGE,
            f"{path.parent}: the output folder holds another dataset, made by "
            f"{made_by or 'an unknown program'}; expected an empty folder or our own",
        )


@contextmanager
def _work_folder(request: Request) -> Iterator[Path]:
    """Make a private folder, on the output's file system unless a place for it was given."""
    parent = request.work_dir or request.output_dir
    with ExitStack() as stack:
        try:
            request.output_dir.mkdir(parents=True, exist_ok=True)
            parent.mkdir(parents=True, exist_ok=True)
            writable.remove_abandoned(parent)
            work = stack.enter_context(writable.own_folder(parent))
        except OSError as error:
            raise _cannot_write(parent, error) from error
        yield work


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Refuse to go on where the block cannot write."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> Refusal:
    return Refusal(Status.CANNOT_WRITE, f"{path}: cannot write here: {error.strerror or error}")


def _write_crash_file(path: Path, text: str) -> Path | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        derivatives.write_text(path, text)
    except OSError as error:
        log.warning("%s: cannot write the crash file: %s", path, error)
        return None
    return path
