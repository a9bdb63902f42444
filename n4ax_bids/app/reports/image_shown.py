"""What the report draws of a single image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from n4ax_bids.app.job import Job
from n4ax_bids.app.outputs import finished as record_of
from n4ax_bids.app.outputs.sidecars import how_found
from n4ax_bids.app.reports.grid import grid_of
from n4ax_bids.app.reports.stack_shown import Shown
from n4ax_bids.core.field import LogField
from n4ax_bids.image import in_memory
from n4ax_bids.io.lattice import load_lattice
from n4ax_bids.io.text import read_object
from n4ax_bids.io.volume import Volume, load
from n4ax_bids.masks.region import Region, region
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS

KINDS = {
    "brain": "voxels of the brain that was found in the image",
    "head": "voxels of the head that was found in the image",
    "otsu": "voxels above Otsu's threshold",
}
"""descriptions of the masks that `--mask auto` finds"""


def shown_image(job: Job, output_dir: Path, facts: Mapping[str, Any]) -> Shown:
    """Return what is drawn of a single image.

    An image that this thread has just corrected is taken from memory.

    Parameters
    ----------
    job : an image whose outputs are in place
    output_dir : root of the derivative dataset
    facts : of its correction, from the sidecar

    Raises
    ------
    OSError, ValueError
        If one of its files cannot be read or does not fit; one line that names it.
    """
    image, corrected = _pair(job, output_dir)
    inside, where = _inside(job, image, facts)
    log_field = grid_of(image).field(_log_field(cast(Path, job.outputs.lattice)))
    return Shown(image, corrected, inside, where, log_field)


def _pair(job: Job, output_dir: Path) -> tuple[Volume, Volume]:
    """Return the image and the corrected image, after a check that they belong together."""
    known = _in_memory(job)
    if known:
        made = replace(known.image, data=known.corrected, path=job.outputs.corrected, finite=None)
        return known.image, made
    image, corrected = load(job.source), load(job.outputs.corrected)
    _require_same(job, output_dir, image)
    if image.data.shape != corrected.data.shape:
        raise ValueError(
            f"{corrected.path}: shape {corrected.data.shape}; expected that of {image.path}, "
            f"{image.data.shape}"
        )
    return image, corrected


def _in_memory(job: Job) -> in_memory.Corrected | None:
    """Return the correction of an image if it has just been made by this thread."""
    found = in_memory.last()
    return found if found and found.image.path == job.source else None


def _require_same(job: Job, output_dir: Path, image: Volume) -> None:
    """Refuse an image that was replaced since it was corrected: figures would mix two images."""
    try:
        known = read_object(record_of.path_of(job, output_dir))["inputs"]["input_image"]["sha256"]
    except (OSError, ValueError, LookupError, TypeError):  # no record identifies the image
        return
    if image.sha256 != known:
        raise ValueError(f"{image.path}: was replaced since it was corrected; correct it again")


def _inside(job: Job, image: Volume, correction: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """Return the voxels that the numbers describe, and a description of these voxels.

    They are the voxels that the estimate used. If it used all voxels, they are those above Otsu's
    threshold.
    """
    word = correction.get("Mask")
    word = word if job.mask is None and word in (*MASK_WORDS, *MASK_PROGRAMS) else None
    # A mask that a program found is read from its file, because finding it again takes minutes.
    by_program = job.outputs.masks["brain"] if word in MASK_PROGRAMS else None
    if job.mask is None and job.weight is None and word is None:
        what = "voxels above Otsu's threshold (the estimate used every voxel)"
        return _voxels(image, region(image, auto_mask="otsu")), what
    known = _in_memory(job)
    found = (
        known.region
        if known
        else region(
            image,
            mask_image=by_program or job.mask,
            auto_mask=None if by_program else word,
            weight_image=job.weight,
            mask_transform=job.mask_transform,
            weight_transform=job.weight_transform,
        )
    )
    if word and job.weight is None:
        return _voxels(image, found), _in_words(correction)
    names = [path.name for path in (job.mask, job.weight) if path]
    names += [f"the mask {word}"] if word else []
    return _voxels(image, found), f"voxels of {' and '.join(names)}"


def _voxels(image: Volume, found: Region) -> np.ndarray:
    """Return the voxels of a region as a bool array, also where the region is every voxel."""
    return np.ones(image.data.shape, bool) if found.inside is None else found.inside


def _in_words(correction: Mapping[str, Any]) -> str:
    """Describe an automatic mask and how it was found."""
    facts = correction.get("MaskFound")
    if not facts:
        return "voxels above Otsu's threshold"
    details = [f"{100 * facts['Share']:.3g} % of the image", *how_found(facts)]
    details.append(f"Otsu's threshold alone finds {100 * facts['OtsuCovers']:.3g} % of them")
    kind = KINDS[facts["Kind"]]
    return f"{kind} ({', '.join(details)})"


def _log_field(path: Path) -> LogField:
    found = load_lattice(path)
    return LogField(*(found[name] for name in LogField._fields))
