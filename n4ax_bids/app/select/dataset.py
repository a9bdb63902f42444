"""Makes the list of jobs from a BIDS dataset and a request."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from n4ax_bids.app.job import MASKS, Job, OutputNames, Selection
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import distinct, filters, inheritance, strays
from n4ax_bids.app.select.folders import NO_LABEL, folders, misplaced, unindexed
from n4ax_bids.app.select.index import index
from n4ax_bids.app.select.inheritance import Sidecars
from n4ax_bids.app.select.masks import Masks
from n4ax_bids.app.select.vocabulary import datatypes, kind_of
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.names import printable
from n4ax_bids.io.text import read_object
from n4ax_bids.methods import METHODS, outputs_of
from n4ax_bids.options import MASK_PROGRAMS

NO_IMAGES = (".json", ".tsv")
"""extensions of files beside images that are no images"""
FEW = 3
"""files that a line of the log names for each reason"""

log = logging.getLogger("n4ax_bids")


def read_description(bids_dir: Path) -> dict[str, Any]:
    """Return the description of a dataset; refuse a folder that is not a BIDS dataset."""
    path = bids_dir / "dataset_description.json"
    if not bids_dir.is_dir() or not os.path.lexists(path):
        raise Refusal(Status.INVALID_INPUT, f"{bids_dir}: {strays.why_no_dataset(bids_dir)}")
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise Refusal(Status.INVALID_INPUT, str(error)) from error


def select(request: Request) -> Selection:
    """Return a job for each image that the request takes, and a reason for each other image.

    Raises
    ------
    Refusal
        If a label is not in the dataset, filters contradict each other, no image is left, or two
        images would share an output.
    """
    query = request.query
    subject_dirs = folders(request.bids_dir, "sub-")
    chosen = _chosen(request, subject_dirs)
    session_labels = {label for folder in chosen for label in folders(folder, "ses-")}
    filters.require_known("session", request.sessions, session_labels)
    for folder in chosen if request.sessions else ():
        distinct.require_distinct_labels(request.sessions, folders(folder, "ses-"), "ses-")
    layout = index(
        request.bids_dir,
        datatypes=query.datatypes,
        participants=request.participants,
        sessions=request.sessions,
        database_dir=request.bids_database_dir,
        make=not request.dry_run,
    )
    of_subjects, of_subjects_or_all = _limits(request)
    files = layout.get(datatype=list(query.datatypes), **of_subjects)
    files = [file for file in files if not _of_other_session(file, request)]
    images = [file for file in files if file.entities.get("extension") not in NO_IMAGES]
    entities = [image.entities for image in images]
    known = {
        "subject": subject_dirs,
        "session": session_labels,
        "run": [each.get("run") for each in entities],
    }
    queries = filters.queries(request, known)
    filters.require_known_labels(request, entities)
    sidecars = inheritance.by_folder(
        layout.get(suffix=list(request.modalities), extension=".json", **of_subjects_or_all)
    )
    unread = sorted(
        (printable(name), reason)
        for name, reason in unindexed(request, chosen, datatypes(), query.datatypes)
    )
    jobs, skipped = _sort(images, request, queries, sidecars)
    skipped = sorted([*skipped, *unread])
    if not jobs:
        _refuse_empty(request, entities, skipped, unread)
    distinct.require_distinct(jobs)
    of_kind = (each for each in images if each.entities.get("suffix") in request.modalities)
    distinct.require_distinct_from(jobs, (Path(each.relpath).as_posix() for each in of_kind))
    return Selection(tuple(jobs), tuple(skipped))


def _chosen(request: Request, subject_dirs: Mapping[str, Path]) -> list[Path]:
    """Return the folders of the chosen participants; refuse labels without a usable folder."""
    _require_labels(request, subject_dirs)
    filters.require_known("participant", request.participants, subject_dirs)
    distinct.require_distinct_labels(request.participants or subject_dirs, subject_dirs)
    return [subject_dirs[label] for label in request.participants or subject_dirs]


def _sort(
    images: Iterable[Any],
    request: Request,
    queries: Mapping[str, filters.Wanted],
    sidecars: Sidecars,
) -> tuple[list[Job], list[tuple[str, str]]]:
    """Return a job for each image that is taken, by name, and (name, reason) of each other one."""
    query, masks, own = request.query, Masks(request), outputs_of(request.method)
    jobs, skipped = [], []
    for image in images:
        reason = misplaced(image) or filters.why_not(image.entities, queries, query)
        if reason is None:
            job = _job(request, image, sidecars, masks)
            unwanted = request.skip_normalized == "yes" and _wants_field(request)
            reason = _scanner_has_corrected(job) if unwanted else None
            if reason is None and own:
                job, reason = own.chosen(job, request)
        if reason is None:
            jobs.append(job)
        else:
            skipped.append((printable(Path(image.relpath).as_posix()), reason))
    return sorted(jobs, key=lambda job: job.relative), skipped


def notes(job: Job, metadata: Mapping[str, Any], request: Request) -> list[str]:
    """Return what the user should know about an image before it is corrected."""
    found: list[str] = []
    if not _wants_field(request):
        return found
    if request.skip_normalized == "warn" and normalized(metadata):
        found.append("ImageType has NORM: the scanner has corrected this image already")
    if job.entities["suffix"] == "UNIT1":
        found.append("UNIT1 is free of a receive field by design, and its background is noise")
    return found


def _wants_field(request: Request) -> bool:
    """Return whether a run estimates bias fields; a realignment does so only if it is asked to."""
    return not outputs_of(request.method) or request.options.bias != "none"


def normalized(metadata: Mapping[str, Any]) -> bool:
    """Return whether the scanner has corrected an image, according to dcm2niix."""
    words = (metadata.get(key) for key in ("ImageType", "ImageTypeText"))
    return any("NORM" in each for each in words if isinstance(each, list | str))


def tell_skipped(skipped: Iterable[tuple[str, str]], *, most: int = FEW) -> None:
    """Log what is left out, one line for each reason, with at most so many of its images."""
    kinds: dict[str, list[str]] = {}
    for name, reason in skipped:
        kinds.setdefault(reason, []).append(name)
    for reason, names in kinds.items():
        more = f" and {len(names) - most} more (logs/skipped)" if names[most:] else ""
        log.info("skipped %s%s: %s", ", ".join(names[:most]), more, reason)


def _scanner_has_corrected(job: Job) -> str | None:
    try:
        metadata = read_metadata(job)
    except (OSError, ValueError):  # the correction of the image will report it
        return None
    if not normalized(metadata):
        return None
    return "ImageType has NORM: corrected by the scanner (--skip-normalized yes)"


def read_metadata(job: Job) -> dict[str, Any]:
    """Merge the job's sidecars by the BIDS inheritance principle: the nearest to the image wins.

    pybids can do this too, but there one damaged sidecar ends the whole index. Here only its image
    fails.
    """
    metadata: dict[str, Any] = {}
    for path in job.sidecars:
        inheritance.require_of_dataset(path, job.source, job.relative)
        metadata.update(read_object(path))
    return metadata


def _require_labels(request: Request, known: Mapping[str, Path]) -> None:
    """Refuse a participant whose folder exists but has a name that BIDS does not allow."""
    for label in request.participants:
        if label not in known and os.path.isdir(request.bids_dir / f"sub-{label}"):
            raise Refusal(Status.USAGE, f"{request.bids_dir / f'sub-{label}'}: {NO_LABEL}")


def _limits(request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return pybids filters for the chosen participants, without and with subject-less files."""
    from bids.layout import Query

    if not request.participants:
        return {}, {}
    chosen = list(request.participants)
    return {"subject": chosen}, {"subject": [*chosen, Query.NONE]}


def _of_other_session(file: Any, request: Request) -> bool:
    """Return whether a file is outside the chosen sessions, as a kept index may hold it."""
    session = file.entities.get("session")
    return bool(request.sessions) and session is not None and session not in request.sessions


def _job(request: Request, image: Any, sidecars: Sidecars, masks: Masks) -> Job:
    relative, found = Path(image.relpath), masks.of(Path(image.relpath).as_posix())
    own = outputs_of(request.method)
    outputs = own.names(relative, request) if own else names_of(relative, request)
    return Job(
        source=request.bids_dir / relative,
        relative=relative.as_posix(),
        outputs=outputs,
        entities=dict(image.entities),
        sidecars=inheritance.inherited(request.bids_dir, relative, image.entities, sidecars),
        mask=found.mask,
        weight=found.weight,
        problem=outputs.problem or found.problem,
        mask_transform=found.mask_transform,
        weight_transform=found.weight_transform,
    )


def names_of(relative: Path, request: Request) -> OutputNames:
    """Return the outputs of an image, given by its path in the dataset or folder."""
    further = METHODS[request.method].written(request.options)
    return OutputNames.of(
        relative,
        request.output_dir,
        desc=request.desc,
        bias_field=request.bias_field,
        masks=_kinds_of_masks(request),
        further=[output.label for output in further],
        probsegs=[output.label for output in further if output.probseg],
        is_bids=request.is_bids,
    )


def _kinds_of_masks(request: Request) -> tuple[str, ...]:
    """Return the kinds of mask that may be found and would be written."""
    if not request.save_mask:
        return ()
    if request.mask in MASK_PROGRAMS:
        return ("brain",)
    return tuple(MASKS) if request.mask == "auto" else (request.mask,)


def _refuse_empty(
    request: Request,
    entities: Sequence[Mapping[str, Any]],
    skipped: Sequence[tuple[str, str]],
    unread: Sequence[tuple[str, str]],
) -> None:
    """Refuse a run without images, and say what there is instead.

    Parameters
    ----------
    request : the run
    entities : of each image in the folders that are read
    skipped : everything that was left out, each with the reason
    unread : the part of it that lies in other places
    """
    tell_skipped(skipped, most=len(skipped))  # no table will be written
    asked = " or ".join(request.modalities)
    there = sorted({str(each.get("suffix")) for each in entities})
    filtered = request.participants or request.sessions or request.runs or request.filters
    if filtered or set(there) & set(request.modalities):
        of_kind = [s for s in skipped if s[0].split(".")[0].endswith(request.modalities)]
        of_kind = of_kind or list(unread)
        why = f"; left out {of_kind[0][0]}: {of_kind[0][1]}" if of_kind else ""
        raise Refusal(
            Status.NOTHING_SELECTED,
            f"{request.bids_dir}: no {asked} image passes the filters{why}",
        )
    kind = kind_of(request.query)
    others = f"; {kind} images there are: {', '.join(there)}" if there else ""
    why = f"; left out {unread[0][0]}: {unread[0][1]}" if unread else ""
    raise Refusal(
        Status.NO_IMAGES, f"{request.bids_dir}: the dataset has no {asked} image{others}{why}"
    )
