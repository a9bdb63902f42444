"""A run: processes the unfinished images in rounds, and returns the exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from n4ax_bids.app import dry_run, todo
from n4ax_bids.app.command.words import counted
from n4ax_bids.app.images import attempt, engine, plugin, quarantine
from n4ax_bids.app.images.attempt import CLAIMS
from n4ax_bids.app.images.outcome import Outcome, State, failed
from n4ax_bids.app.images.progress import Progress, StoppedEarly
from n4ax_bids.app.job import Job, Selection
from n4ax_bids.app.machine import claims, pool, resources
from n4ax_bids.app.machine.pool import Pool
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.outputs import (
    agreement,
    boilerplate,
    places,
    provenance,
    root_files,
    source,
)
from n4ax_bids.app.reports import group, reports
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset
from n4ax_bids.app.select.validation import validating
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.names import printable
from n4ax_bids.runtime import startup

log = logging.getLogger("n4ax_bids")

Tell = Callable[[Outcome], None]
Round = Callable[[Sequence[Job], Request, Tell], None]
"""processes jobs and reports how each one ended"""


def run(request: Request) -> Status:
    """Correct every selected image that is not finished.

    Raises
    ------
    Refusal
        If the run cannot begin. If an image fails, the log says so and the run continues.
    """
    if request.level == "group":
        startup.end()
        return _group(request)
    raw = dataset.read_description(request.bids_dir) if request.is_bids else {}
    places.check_places(request)
    source.check(request, raw)
    if request.boilerplate_only:
        with places.writing(request.output_dir), places.at_work(request):
            ways = provenance.ways(request.output_dir) or [provenance.Way.asked(request)]
            written = boilerplate.write_text_of(ways, request.output_dir)
        log.info("the methods text is in %s, and as .html and .bib beside it", written)
        return Status.OK
    chosen = engine.read(request.use_plugin) if request.use_plugin else None
    with ExitStack() as stack:
        validation = stack.enter_context(validating(request))
        selection = todo.selected(request)
        if request.reports_only and not request.dry_run:
            startup.end()
            return _reports_again(selection, request, stack)
        jobs = todo.unfinished(selection.jobs, request)
        later = todo.to_apply(selection, jobs, request)
        _warn_of_preset(jobs, request)
        if request.dry_run:
            _print(map(printable, dry_run.lines(selection, request, [*jobs, *later])))
            validation.require_valid()
            return Status.OK
        dataset.tell_skipped(selection.skipped)
        devices = None
        if (jobs or later) and chosen is None:
            devices = stack.enter_context(_opened(request, len(jobs) or len(later)))
        validation.require_valid()
        startup.end()  # JAX and pybids have been imported
        here, work = stack.enter_context(places.at_work(request))
        _agree(here, request, raw, selection)
        work_on: Round = _nothing_to_do
        if chosen is not None:
            work_on = partial(plugin.work_on, engine=chosen, here=here, work=work)
        elif devices is not None:
            work_on = partial(_in_pool, devices=devices, here=here, work=work)
        return _work(selection, (jobs, later), request, work_on, here, work, stack)


def _nothing_to_do(jobs: Sequence[Job], request: Request, tell: Tell) -> None:
    """Work on no jobs: no device has been started, because every image is finished."""


def _reports_again(selection: Selection, request: Request, stack: ExitStack) -> Status:
    """Draw the reports of images that have been corrected."""
    known = "dataset_description.json" if request.is_bids else root_files.MARK
    if not (request.output_dir / known).is_file():
        raise Refusal(
            Status.NO_IMAGES,
            f"{request.output_dir}: holds no output of ours; run without --reports-only first",
        )
    _, work = stack.enter_context(places.at_work(request))
    status = reports.again(selection, request, work)
    group.write_of_files(request)
    return status


def _agree(here: Presence, request: Request, raw: Mapping[str, Any], selection: Selection) -> None:
    """Refuse a run whose settings differ from those of a current run; write the root files."""
    with places.writing(request.output_dir):
        agreement.require(here, request, raw, selection.jobs)
    # Another run may have written outputs and ended since the first check.
    places.check_places(request)
    source.check(request, raw)
    with places.writing(request.output_dir):
        root_files.write(request, raw, selection)


def _work(
    selection: Selection,
    parts: tuple[Sequence[Job], Sequence[Job]],
    request: Request,
    work_on: Round,
    here: Presence,
    work: Path,
    stack: ExitStack,
) -> Status:
    """Process the jobs, report each, and write the methods text and the pages.

    The second part of the jobs needs the fields of the first one.
    """
    jobs, later = parts
    n_jobs = len(jobs) + len(later)
    progress = Progress(
        n_jobs,
        n_finished=len(selection.everything) - n_jobs,
        table=request.output_dir / "logs" / request.run_id / "images.tsv",
        stop_on_failure=request.stop_on_first_crash,
    )
    with places.writing(request.output_dir):
        stack.enter_context(progress)
    pages = reports.Pages(selection, jobs, request, work)

    def tell(outcome: Outcome) -> None:
        if outcome.job.reference is None:
            pages.tell(outcome.job)
        progress.tell(outcome)

    try:
        for part in parts:
            _in_rounds(part, request, work_on, here, tell)
    except StoppedEarly:
        log.error("stopped because an image has failed (--stop-on-first-crash)")
    finally:  # also after an interruption, for the images that were corrected
        _write_methods(request)
    reported, status = pages.close(), progress.close()
    if request.resource_monitor:
        log.info("%s", resources.usage())
    if request.reports:
        reports.tell_pages(selection, request)
        group.write_of_files(request)
    return status if reported or status else Status.SOME_FAILED


def _print(lines: Iterable[str]) -> None:
    """Print lines; whoever reads them, such as `head`, may stop before their end."""
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        # Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn_of_preset(jobs: Sequence[Job], request: Request) -> None:
    """Warn if a preset is used without the weight image that it is made for."""
    n_bare = sum(job.weight is None for job in jobs)
    if request.preset == "fmriprep" and n_bare:
        log.warning(
            "preset fmriprep: %d of %d images have no white-matter weight; without it the "
            "preset's fifth level mistakes tissue contrast for bias field (give --weight WM and "
            "-d, or choose another preset)",
            n_bare,
            len(jobs),
        )


def _group(request: Request) -> Status:
    """Gather all images. If this run is killed, its presence makes the next one clean up."""
    with ExitStack() as stack:
        if request.output_dir.is_dir() and not request.dry_run:
            stack.enter_context(places.at_work(request))
        with places.writing(request.output_dir):
            return group.write(request)


def _write_methods(request: Request) -> None:
    try:
        boilerplate.write(request.output_dir)
    except OSError as error:  # the results of the images are more important
        log.warning("%s: the methods text was not written: %s", request.output_dir, error)


def _in_rounds(
    jobs: Sequence[Job], request: Request, work_on: Round, here: Presence, tell: Tell
) -> None:
    """Process jobs until each is done, has failed, or belongs to a run that is still working.

    Jobs that other runs are working on are left to them at first. In the next round they are
    checked again, because those runs may have ended without finishing them.
    """
    folder, waiting = request.output_dir / CLAIMS, list[Job]()
    todo = list(jobs)
    while todo:
        left: list[Job] = []

        def sort(outcome: Outcome, left: list[Job] = left) -> None:
            if outcome.state == State.LEFT:
                left.append(outcome.job)
            else:
                tell(outcome)

        suspects = quarantine.suspects(todo, request.output_dir, here)
        names = {job.relative for job in suspects}
        calm = [job for job in todo if job.relative not in names]
        # Images that were in flight when a run died come last and alone, so that the one that
        # killed it cannot take others with it.
        for part in (calm, *([job] for job in suspects)):
            if part:
                work_on(part, request, sort)
        request = replace(request, overwrite=False)  # other runs have just made what is there
        waiting += left
        todo = [job for job in waiting if claims.holder(folder, job.relative, here) is None]
        waiting = [job for job in waiting if job not in todo]
    for job in waiting:
        tell(Outcome(job, state=State.LEFT))


@contextmanager
def _opened(request: Request, n_jobs: int) -> Iterator[Pool]:
    """Start the devices of a run and log what they are."""
    n_images, n_threads = request.nprocs, request.omp_nthreads
    if request.low_mem:
        n_images, n_threads = 1, n_threads or n_images or resources.n_cores()
    shares = resources.shares(
        n_jobs=n_jobs,
        device=request.device,
        n_images=n_images,
        n_threads=n_threads,
        memory=request.mem,
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
            from n4ax_bids.runtime.device import has_nvidia, why_no_gpu

            level = logging.WARNING if has_nvidia() else logging.INFO
            log.log(level, "JAX sees no GPU: computing on the CPU (%s)", why_no_gpu())
        share = shares[0]
        log.info(
            "%s at a time, %s for a solve",
            counted(share.n_images, "image"),
            counted(share.n_threads, "thread"),
        )
        yield devices


def _in_pool(
    jobs: Sequence[Job],
    request: Request,
    tell: Tell,
    *,
    devices: Pool,
    here: Presence,
    work: Path,
) -> None:
    """Process jobs in our own threads or processes; report them in the order of the jobs."""
    alone = len(jobs) == 1
    task = partial(attempt.attempt, request=request, here=here, work=work, alone=alone)
    with closing(devices.run(task, jobs, work)) as results:
        for job, (share, result) in zip(jobs, results, strict=True):
            if isinstance(result, Exception):  # its process has ended
                quarantine.forget(job, request.output_dir)
                result = failed(job, request, result, f"{result}\n")
            tell(replace(result, label=share.label))
