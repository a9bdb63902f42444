"""Finds the images that get the field of their session's reference image (`--apply-to`)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from n4ax_bids.app.command.words import did_you_mean
from n4ax_bids.app.job import FIELD, LATTICE, MASKS, Job, OutputNames
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import inheritance, vocabulary
from n4ax_bids.app.select.segmentations import parse
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io import endings, placement
from n4ax_bids.io.header import load_header
from n4ax_bids.io.names import printable, why_unfit

DATATYPES = ("anat", "func", "dwi", "perf")
"""folders whose images may share the frame and the coil of an anatomical image"""
NO_FRAME = (
    "its header does not say that it is in the scanner's frame (no q-form or s-form with code 1)"
)
WITH_SERIES = (".bval", ".bvec")
"""endings of texts beside a series that later programs need beside the corrected one, too"""

Left = tuple[str, str]


def require_suffixes(request: Request) -> None:
    """Refuse suffixes that no image has to which a field can be applied."""
    known = vocabulary.modalities(DATATYPES)
    for suffix in request.apply_to:
        if suffix not in known:
            near = did_you_mean(suffix, known)
            raise Refusal(
                Status.USAGE,
                f"--apply-to {suffix}: no such suffix{near}; there are: {', '.join(known)}",
            )


def select(jobs: Sequence[Job], request: Request) -> tuple[tuple[Job, ...], tuple[Left, ...]]:
    """Return a job for each image that gets the field of another, and reasons for the others.

    Parameters
    ----------
    jobs : images that are corrected, among them the references: in each session the first one in
        the order of --modalities, then of its name
    request : the run
    """
    references: dict[PurePath, Job] = {}
    for job in sorted(jobs, key=lambda job: _rank(job, request)):
        references.setdefault(session_of(job), job)
    found, left_out = list[Job](), list[Left]()
    for session in _sessions(jobs, request):
        reference = references.get(session)
        why = "" if reference else _no_reference(request)
        if reference and not _in_frame(reference.source):
            why = f"the reference {reference.relative}: {NO_FRAME}"
        for path in _images(request.bids_dir / session, request):
            relative = path.relative_to(request.bids_dir)
            reason = why or _why_not(path)
            if reason or reference is None:
                left_out.append((printable(relative.as_posix()), reason))
            else:
                found.append(_job(relative, reference, request))
    return tuple(sorted(found, key=lambda job: job.relative)), tuple(sorted(left_out))


def session_of(job: Job) -> PurePath:
    """Return the folder of an image's session, or of its participant if it has no sessions."""
    return PurePath(job.relative).parent.parent


def _rank(job: Job, request: Request) -> tuple[int, str]:
    suffix = job.entities.get("suffix")
    order = request.modalities.index(suffix) if suffix in request.modalities else len(DATATYPES)
    return order, job.relative


def _no_reference(request: Request) -> str:
    wanted = " or ".join(request.modalities)
    return f"no {wanted} image of its session is corrected, whose field it could get"


def _sessions(jobs: Sequence[Job], request: Request) -> list[PurePath]:
    """Return the sessions of the participants of a run, also those without any job."""
    found = {session_of(job) for job in jobs}
    for subject in {PurePath(job.relative).parts[0] for job in jobs}:
        for each in (request.bids_dir / subject).glob("ses-*"):
            if not request.sessions or each.name.removeprefix("ses-") in request.sessions:
                found.add(PurePath(subject, each.name))
    return sorted(found)


def _images(session: Path, request: Request) -> Iterator[Path]:
    """Yield the images with the wanted suffixes in the folders of a session."""
    for datatype in DATATYPES:
        folder = session / datatype
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            stem, ending = endings.split(path.name)
            if path.name.startswith(".") or ending not in endings.NIFTI:
                continue
            if stem.rpartition("_")[2] in request.apply_to:
                yield path


def _why_not(path: Path) -> str:
    unfit = why_unfit(path.name)
    if unfit:
        return unfit
    part = parse(path.name).entities.get("part", "mag")
    if part != "mag":
        return f"part is {part}; only magnitude images get a field"
    return "" if _in_frame(path) else NO_FRAME


def _in_frame(path: Path) -> bool:
    """Return whether a header places an image in the scanner's frame; a bad one fails later."""
    try:
        return placement.in_scanner_frame(load_header(path))
    except (OSError, ValueError):
        return True


def _job(relative: Path, reference: Job, request: Request) -> Job:
    names = OutputNames.of(relative, request.output_dir, desc=request.desc, masks=[*MASKS])
    field = names.named(FIELD)
    outputs = OutputNames(
        names.stem,
        names.corrected,
        None,
        None,
        names.problem,
        # What a correction of the image itself has left.
        absent=(field, names.named(LATTICE), *names.masks.values()),
    )
    entities = dict(parse(relative.name).entities) | {"suffix": names.stem.rpartition("_")[2]}
    return Job(
        source=request.bids_dir / relative,
        relative=relative.as_posix(),
        outputs=outputs,
        entities=entities,
        sidecars=inheritance.inherited(
            request.bids_dir, relative, entities, _sidecars(relative, entities, request)
        ),
        problem=outputs.problem,
        texts=tuple(_texts(request.bids_dir / relative, request.bids_dir)),
        reference=reference,
    )


def _texts(path: Path, root: Path) -> Iterator[Path]:
    for ending in WITH_SERIES if endings.stem(path.name).endswith("_dwi") else ():
        yield from islice(inheritance.texts(path, root, ending), 1)


def _sidecars(
    relative: Path, entities: Mapping[str, Any], request: Request
) -> inheritance.Sidecars:
    """Return the JSON files that may describe an image, as an index would."""
    found: dict[Path, Any] = {}
    for folder in relative.parents:
        for path in sorted((request.bids_dir / folder).glob(f"*{entities['suffix']}.json")):
            name = parse(path.name)
            own = dict(name.entities) | {"suffix": name.suffix}
            if not os.path.isdir(path):
                found.setdefault(folder, []).append((folder / path.name, own.items()))
    return found
