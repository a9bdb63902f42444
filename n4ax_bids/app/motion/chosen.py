"""Which series are realigned, and which of their volumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from n4ax_bids.app.job import Job
from n4ax_bids.app.motion.names import with_gradients
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import inheritance
from n4ax_bids.io.header import load_header
from n4ax_bids.io.text import read_text

B0 = 50.0
"""s/mm²; volumes with at most this b-value count as b = 0, as in other pipelines"""
NO_SERIES = "it has a single volume; --realign-4d takes series of volumes"


def chosen(job: Job, request: Request) -> tuple[Job, str | None]:
    """Return a job with the volumes that are realigned, or the reason why it is left out.

    Parameters
    ----------
    job : a series
    request : the run
    """
    if job.entities.get("datatype") == "anat" and _is_single(job.source):
        return job, NO_SERIES
    if job.entities.get("suffix") == "dwi":
        return _without_diffusion(job, request)
    return job, None


def _is_single(path: Path) -> bool:
    """Return whether an image has one volume; an unreadable one will fail later, with a reason."""
    try:
        shape = load_header(path).get_data_shape()
    except (OSError, ValueError):
        return False
    return len(shape) < 4 or shape[3] == 1


def _without_diffusion(job: Job, request: Request) -> tuple[Job, str | None]:
    """Choose the volumes of a DWI series with b = 0.

    The others have another contrast in each direction, so least squares cannot compare them with a
    reference; their motion is the task of other programs.
    """
    path = next(inheritance.texts(job.source, request.bids_dir, ".bval"), None)
    if path is None:
        return job, "it has no b-values (.bval), and of DWI series only b = 0 is realigned"
    try:
        values = [float(word) for word in read_text(path, what="b-values").split()]
    except (OSError, ValueError) as error:
        why = str(error).removeprefix(f"{path}: ")
        return dataclasses.replace(job, problem=f"its b-values in {path.name}: {why}"), None
    volumes = tuple(number for number, b in enumerate(values) if b <= B0)
    if len(volumes) < 2:
        return job, (
            f"{len(volumes)} of {len(values)} volumes with b ≤ {B0:g} s/mm²; of DWI series only "
            "b = 0 is realigned, and that takes at least 2 volumes"
        )
    directions = next(inheritance.texts(job.source, request.bids_dir, ".bvec"), None)
    texts = (path, directions) if directions else (path,)
    outputs = with_gradients(job.outputs, [each.suffix for each in texts])
    return dataclasses.replace(job, volumes=volumes, texts=texts, outputs=outputs), None
