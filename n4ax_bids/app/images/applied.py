"""Divides an image by the field of its session's reference image, for `--apply-to`."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from n4ax_bids.app.job import Job
from n4ax_bids.app.machine import claims
from n4ax_bids.app.machine.claims import Taken
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.machine.resources import Share
from n4ax_bids.app.outputs.finished import copies
from n4ax_bids.app.request import Request
from n4ax_bids.io import trees
from n4ax_bids.io.header import load_header

PER_VOXEL = 40
"""bytes for each voxel of a volume: the volume as stored and as float32, ln b, b, the result"""


def require_field(job: Job, request: Request, here: Presence) -> None:
    """Raise an error if the field of the reference image is not there.

    Raises
    ------
    Taken
        If another run is working on the reference.
    ValueError
        If the reference has failed; one line that names it.
    """
    assert job.reference is not None and job.reference.outputs.lattice is not None
    lattice = job.reference.outputs.lattice
    if lattice.is_file():
        return
    if claims.holder(request.output_dir / claims.FOLDER, job.reference.relative, here):
        raise Taken
    raise ValueError(
        f"{job.source}: gets no field, because {job.reference.relative} has none (it has failed "
        f"or was not begun); expected {lattice}"
    )


def memory_needed(job: Job) -> int:
    """Return how many bytes an image takes, one volume at a time, from its header."""
    return PER_VOXEL * math.prod(load_header(job.source).get_data_shape()[:3])


def divide(job: Job, share: Share, folder: Path) -> tuple[Mapping[str, Any], dict[str, Path]]:
    """Divide an image by its field; return what was done, and the files by their labels."""
    from n4ax_bids.apply import apply_field
    from n4ax_bids.runtime import device

    assert job.reference is not None and job.reference.outputs.lattice is not None
    if job.problem:
        raise ValueError(f"{job.source}: {job.problem}")
    lattice, output = job.reference.outputs.lattice, folder / "corrected.nii.gz"
    digests = {"input_image": trees.sha256(job.source), "field_image": trees.sha256(lattice)}
    with device.use(device.resolve(share.device)) as chosen:
        done = apply_field(job.source, lattice, output)
    made = {"output_image": output}
    for source, target in copies(job).items():
        made[target.name] = Path(shutil.copyfile(source, folder / target.name))
    return {
        "reference": job.reference.relative,
        "n_voxels": done.n_voxels,
        "n_outside": done.n_outside,
        "n_volumes": done.n_volumes,
        "notes": list(done.notes),
        "device": device.describe(chosen),
        "sha256": digests,
    }, made
