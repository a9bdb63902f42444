"""Says what a run would do: each image, why it is taken or not, its options and outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from n4ax_bids.app.command.words import counted
from n4ax_bids.app.job import Job, Selection
from n4ax_bids.app.outputs.derivatives import sidecar_path
from n4ax_bids.app.request import Request
from n4ax_bids.app.select.dataset import notes, read_metadata
from n4ax_bids.io.kinds import require_file
from n4ax_bids.io.trees import is_tree


def lines(selection: Selection, request: Request, todo: Collection[Job]) -> Iterator[str]:
    """Yield the lines that a dry run prints; nothing is written.

    Parameters
    ----------
    selection : the images that the run takes, and those that it leaves out
    request : the run
    todo : the jobs of the selection that are not finished
    """
    yield f"{'dataset' if request.is_bids else 'folder '}  {request.bids_dir}"
    yield f"output   {request.output_dir}"
    yield f"method   {request.method}, preset {request.preset}{', sloppy' * request.sloppy}"
    for name, value in asdict(request.options).items():
        if value is not None:
            yield f"         {name} = {_words(value)}"
    yield ""
    names, unfit = {job.relative for job in todo}, 0
    for job in selection.everything:
        if job.relative in names:
            try:
                metadata = _require_fit(job)
            except (OSError, ValueError) as error:
                unfit += 1
                yield f"fail     {job.relative}"
                yield f"         {str(error).removeprefix(f'{job.source}: ')}"
            else:
                yield from _of_job(job, metadata, request)
        else:
            yield f"keep     {job.relative}"
            yield "         finished already (--overwrite does it again)"
    for name, reason in selection.skipped:
        yield f"skip     {name}"
        yield f"         {reason}"
    yield ""
    n_finished = len(selection.everything) - len(names)
    yield (
        f"{counted(len(names) - unfit, 'image')} to correct, {unfit} that cannot be, "
        f"{n_finished} finished already, {len(selection.skipped)} skipped; "
        "nothing was written"
    )


def _require_fit(job: Job) -> Mapping[str, Any]:
    """Return the metadata of an image that can be corrected, judging without reading the image.

    Raises
    ------
    OSError, ValueError
        If it is already clear that the job would fail.
    """
    if job.problem:
        raise ValueError(job.problem)
    if not is_tree(job.source):
        require_file(job.source)
    return read_metadata(job)


def _of_job(job: Job, metadata: Mapping[str, Any], request: Request) -> Iterator[str]:
    yield f"{'divide ' if job.reference else 'correct'}  {job.relative}"
    taken = ", ".join(f"{name} {value}" for name, value in _shown_entities(job))
    yield f"         taken: {taken}"
    for note in notes(job, metadata, request):
        yield f"         note: {note}"
    if job.volumes is not None:
        yield f"         volumes: {len(job.volumes)} with b = 0: {_words(job.volumes)}"
    if job.reference:
        yield f"         field of {job.reference.relative}"
    if job.outputs.lattice is not None:
        yield _of_mask(job, request)
    for path in job.outputs.images:
        alone = path.suffix in (".bval", ".bvec")  # BIDS has no JSON file for these
        beside = "" if alone else f" (and {sidecar_path(path).suffix})"
        yield f"         -> {_relative(path, request)}{beside}"
    masks = [_relative(path, request) for path in job.outputs.masks.values()]
    if masks:
        others = "".join(f", or {PurePath(path).name}" for path in masks[1:])
        yield f"         -> {masks[0]}{others} (and .json)"


def _of_mask(job: Job, request: Request) -> str:
    mask = job.mask or ("none" if request.mask == "derivatives" else request.mask)
    mask = f"{mask} ({request.mask_program})" if request.mask_program else mask
    rescaled = ", rescaled inside the mask" if request.rescale and job.mask else ""
    return f"         mask: {mask}, weight: {job.weight or 'none'}{rescaled}"


def _shown_entities(job: Job) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(job.entities.items()):
        if name not in ("datatype", "extension"):
            yield name, value


def _relative(path: Path, request: Request) -> str:
    return path.relative_to(request.output_dir).as_posix()


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
