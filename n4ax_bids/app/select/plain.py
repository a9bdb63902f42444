"""Makes the list of jobs from plain files and folders, for `n4ax-files`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePath

from n4ax_bids.app.job import (
    FIELD,
    LATTICE,
    Job,
    Selection,
    digest_of,
)
from n4ax_bids.app.outputs.root_files import MARK
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import distinct, strays
from n4ax_bids.app.select.dataset import names_of
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io import endings
from n4ax_bids.io.atomic import shortened
from n4ax_bids.io.kinds import is_dicom
from n4ax_bids.io.names import printable, why_unfit

SUFFIX = "image"
"""stands for the suffix that images of a dataset have"""
OTHERS = (".hdr", ".img", ".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".nii.bz2")
"""endings of images of other kinds, in lower case; all other files are passed over"""
IN_LOGS = "logs"

Left = tuple[str, str]
"""a file or folder that is left out, and the reason"""


def select(request: Request) -> Selection:
    """Return a job for each NIfTI file, and a reason for each image that is left out.

    Raises
    ------
    Refusal
        If a given file is no NIfTI file, no image is left, or two images would share an output.
    """
    paths: dict[Path, None] = {}
    skipped: list[Left] = []
    for given in request.inputs:
        if given.is_dir():
            for path, reason in _walk(given, request):
                if reason:
                    skipped.append((_shown(path, request), reason))
                else:
                    paths.setdefault(path)
        else:
            _require_image(given)
            paths.setdefault(given)
    jobs = []
    for path in paths:
        reason = _why_not(path, request)
        if reason:
            skipped.append((_shown(path, request), reason))
        else:
            jobs.append(_job(path, request))
    left_out = sorted(set(skipped))
    if not jobs:
        raise _empty(request, left_out)
    jobs.sort(key=lambda job: job.relative)
    distinct.require_distinct(jobs)
    return Selection(tuple(jobs), tuple(left_out))


def _walk(folder: Path, request: Request) -> Iterator[tuple[Path, str]]:
    """Yield each image in a folder and below it, with the reason if it is left out, or ""."""
    real_out = os.path.realpath(request.output_dir)
    unread: list[OSError] = []
    for where, folders, files in os.walk(folder, onerror=unread.append):
        here = Path(where)
        if os.path.realpath(here) == real_out:
            folders.clear()
            continue
        if (here / MARK).is_file():
            yield here, "an output folder of n4ax-files"
            folders.clear()
            continue
        for name in sorted(folders):
            if name.startswith("."):
                folders.remove(name)
            elif (here / name).is_symlink():
                folders.remove(name)
                yield here / name, "a link to a folder, which is not followed; give its target"
        folders.sort()
        yield from _in_folder(here, sorted(files))
    for error in unread:
        yield Path(error.filename), f"cannot be read: {error.strerror}"


def _in_folder(here: Path, names: Sequence[str]) -> Iterator[tuple[Path, str]]:
    dicom = [name for name in names if name.lower().endswith(strays.DICOM)]
    for name in names:
        if name.startswith("."):
            continue
        if name.endswith(endings.NIFTI):
            yield here / name, ""
        elif name.lower().endswith((*OTHERS, *endings.NIFTI)):
            yield here / name, "not named .nii or .nii.gz; only such files are taken"
    if dicom:
        yield here, f"a folder of DICOM files, {dicom[0]} among them; {strays.CONVERT_TO_FILES}"


def _require_image(path: Path) -> None:
    """Refuse a given file that is not named like a NIfTI file."""
    if path.name.endswith(endings.NIFTI):
        return
    why = "not named .nii or .nii.gz; expected NIfTI files, folders or patterns"
    if strays.is_dicom_file(path):
        why = f"a DICOM file; {strays.CONVERT_TO_FILES}"
    raise Refusal(Status.INVALID_INPUT, f"{path}: {why}")


def _why_not(path: Path, request: Request) -> str:
    relative = path.relative_to(request.bids_dir)
    unfit = why_unfit(relative)
    if unfit:
        return unfit
    if request.output_dir in path.parents:
        return "lies in the output folder"
    label = endings.stem(path.name).rpartition("_")[2]
    if label in (request.desc, FIELD, LATTICE):
        return f"its name ends with _{label}, like an output of n4ax-files"
    return ""


def _job(path: Path, request: Request) -> Job:
    relative = path.relative_to(request.bids_dir)
    outputs = names_of(relative, request)
    sidecar = path.with_name(endings.stem(path.name) + ".json")
    problem = outputs.problem
    if distinct.folded_name(relative.parts[0]) == IN_LOGS and relative.parts[1:]:
        problem = (
            f"its outputs would lie in {request.output_dir / IN_LOGS}; expected --root with a "
            "folder above it, or another name of the folder"
        )
    return Job(
        source=path,
        relative=relative.as_posix(),
        outputs=outputs,
        entities={"suffix": SUFFIX},
        sidecars=(sidecar,) if os.path.lexists(sidecar) else (),
        problem=problem,
        unique_name=_unique_name(relative),
    )


def _unique_name(relative: PurePath) -> str:
    """Return a name for logs and figures; those of images in folders end with a digest."""
    name = shortened(endings.stem(relative.name), 150)
    return f"{name}-{digest_of(relative.as_posix())}" if relative.parts[1:] else name


def _shown(path: Path, request: Request) -> str:
    try:
        return printable(path.relative_to(request.bids_dir).as_posix())
    except ValueError:
        return printable(path)


def _empty(request: Request, skipped: Sequence[Left]) -> Refusal:
    """Return the error for a run without images, which says what there is instead."""
    where = ", ".join(map(str, request.inputs[:3])) + (" …" if request.inputs[3:] else "")
    if skipped:
        name, reason = skipped[0]
        more = f" ({len(skipped)} such files or folders)" if skipped[1:] else ""
        return Refusal(
            Status.NOTHING_SELECTED,
            f"{where}: no image to correct; left out {name}: {reason}{more}",
        )
    files = (path for given in request.inputs for path in strays.files_in(given))
    if any(map(is_dicom, islice(files, strays.LOOKED_AT))):
        return Refusal(Status.NO_IMAGES, f"{where}: DICOM files; {strays.CONVERT_TO_FILES}")
    return Refusal(Status.NO_IMAGES, f"{where}: no NIfTI file (.nii, .nii.gz) in it")
