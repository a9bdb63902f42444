"""Which images a run takes, and which of them are not finished."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePath

from n4ax_bids.app.command.words import counted
from n4ax_bids.app.job import Job, Selection
from n4ax_bids.app.outputs import finished
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import applied, dataset, distinct, plain

log = logging.getLogger("n4ax_bids")

LOOKS = 16
"""records that are read at the same time; a shared file system takes milliseconds for each"""


def selected(request: Request) -> Selection:
    """Return the images of a run, with those that get the field of another one."""
    if not request.is_bids:
        return plain.select(request)
    applied.require_suffixes(request)
    found = dataset.select(request)
    if not request.apply_to:
        return found
    jobs, left_out = applied.select(found.jobs, request)
    names = {job.relative for job in jobs} | {name for name, _ in left_out}
    others = [each for each in found.skipped if each[0] not in names]
    distinct.require_distinct([*found.jobs, *jobs])
    there = {PurePath(name).name.split(".")[0].rpartition("_")[2] for name in names}
    for suffix in request.apply_to:
        if suffix not in there:
            log.warning("--apply-to %s: no such image beside those that are corrected", suffix)
    return Selection(found.jobs, tuple(sorted([*others, *left_out])), jobs)


def to_apply(selection: Selection, jobs: Sequence[Job], request: Request) -> list[Job]:
    """Return the images that get a field, without those that are finished and whose field stays.

    An attempt finds out whether the new field of a reference is the same as before.
    """
    again = {job.relative for job in jobs}
    stay = [job for job in selection.applied if _reference(job) not in again]
    late = {job.relative for job in unfinished(stay, request)}
    return [job for job in selection.applied if _reference(job) in again or job.relative in late]


def _reference(job: Job) -> str:
    return job.reference.relative if job.reference else ""


def unfinished(jobs: Sequence[Job], request: Request) -> list[Job]:
    """Return the jobs that are not finished."""
    if request.overwrite or not (request.output_dir / finished.FOLDER).is_dir():
        return list(jobs)
    with ThreadPoolExecutor(LOOKS) as looking:
        reasons = list(looking.map(partial(finished.why_not_finished, request=request), jobs))
    for job, reason in zip(jobs, reasons, strict=True):
        log.debug("%s: %s", job.name, reason or "finished")
    _tell_other_options(reasons)
    return [job for job, reason in zip(jobs, reasons, strict=True) if reason is not None]


def _tell_other_options(reasons: Sequence[str | None]) -> None:
    """Log which changed options make finished images unfinished."""
    other = Counter(r for r in reasons if r and r.startswith(finished.OTHER_OPTIONS))
    for reason, n_images in other.most_common():
        log.info("%s will be done again: %s", counted(n_images, "image"), reason)
