"""What a run would do, in words: each image, why it is taken or not, its options, its outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from n4ax_bids.app.dataset import Job, Selection, notes, read_metadata
from n4ax_bids.app.derivatives import sidecar_path
from n4ax_bids.app.request import Request
from n4ax_bids.app.words import counted


def lines(selection: Selection, request: Request, todo: Collection[Job]) -> Iterator[str]:
    """Yield the lines of the plan; nothing is written for it.

    Parameters
    ----------
    selection : what the run takes and what not
    request : the run
    todo : the selection's jobs that are not finished
    """
    yield f"dataset  {request.bids_dir}"
    yield f"output   {request.output_dir}"
    yield f"method   {request.method}, preset {request.preset}{', sloppy' * request.sloppy}"
    for name, value in asdict(request.options).items():
        if value is not None:
            yield f"         {name} = {_words(value)}"
    yield ""
    todo = {job.relative for job in todo}
    for job in selection.jobs:
        if job.relative in todo:
            yield from _of_job(job, request)
        else:
            yield f"keep     {job.relative}"
            yield "         finished already (--overwrite does it again)"
    for name, reason in selection.skipped:
        yield f"skip     {name}"
        yield f"         {reason}"
    unfit = sum(problem(job) is not None for job in selection.jobs if job.relative in todo)
    yield ""
    yield (
        f"{counted(len(todo) - unfit, 'image')} to correct, {unfit} that cannot be, "
        f"{len(selection.jobs) - len(todo)} finished already, {len(selection.skipped)} skipped; "
        "nothing was written"
    )


def problem(job: Job) -> str | None:
    """Return why a job would fail, as far as can be seen without reading the image."""
    if job.problem:
        return job.problem
    try:
        read_metadata(job)
    except (OSError, ValueError) as error:
        return str(error)
    if job.source.is_symlink() and not job.source.exists():
        return "broken link (in a DataLad or git-annex dataset, get the file's content first)"
    if not job.source.is_file():
        return "not a file"
    return None if job.source.stat().st_size else "empty file (0 bytes)"


def _of_job(job: Job, request: Request) -> Iterator[str]:
    found = problem(job)
    if found:
        yield f"fail     {job.relative}"
        yield f"         {found}"
        return
    yield f"correct  {job.relative}"
    taken = ", ".join(f"{name} {value}" for name, value in _told(job))
    yield f"         taken: {taken}"
    for note in notes(job, read_metadata(job), request):
        yield f"         note: {note}"
    mask = job.mask or ("none" if request.mask == "derivatives" else request.mask)
    rescaled = ", rescaled inside the mask" if request.rescale and job.mask else ""
    yield f"         mask: {mask}, weight: {job.weight or 'none'}{rescaled}"
    for path in job.outputs.images:
        sidecar = sidecar_path(path).suffix
        yield f"         -> {_relative(path, request)} (and {sidecar})"
    masks = [_relative(path, request) for path in job.outputs.masks.values()]
    if masks:
        others = "".join(f", or {PurePath(path).name}" for path in masks[1:])
        yield f"         -> {masks[0]}{others} (and .json)"


def _told(job: Job) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(job.entities.items()):
        if name not in ("datatype", "extension"):
            yield name, value


def _relative(path: Path, request: Request) -> str:
    return path.relative_to(request.output_dir).as_posix()


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
