"""Makes figures and numbers of one image from its files.

These are the source, the corrected image with its sidecar, and the lattice. So a report can be
made again without a solve.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from n4ax_bids.app.job import Job
from n4ax_bids.app.outputs import finished as record_of
from n4ax_bids.app.outputs.derivatives import encode, sidecar_path
from n4ax_bids.app.outputs.sidecars import KEY, how_found
from n4ax_bids.app.reports import image_figures, tissues
from n4ax_bids.app.reports.grid import grid_of
from n4ax_bids.app.reports.stack_shown import Shown, shown_stack
from n4ax_bids.app.reports.windows import levels
from n4ax_bids.core.field import LogField
from n4ax_bids.core.metrics import coefficient_of_variation, joint_variation
from n4ax_bids.io import volume
from n4ax_bids.io.lattice import load_lattice
from n4ax_bids.io.text import parse_json, read_bytes, read_object
from n4ax_bids.io.volume import Volume
from n4ax_bids.methods import METHODS
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS
from n4ax_bids.region import Region, region

KINDS = {
    "brain": "voxels of the brain that was found in the image",
    "head": "voxels of the head that was found in the image",
    "otsu": "voxels above Otsu's threshold",
}
"""descriptions of the masks that `--mask auto` finds"""


def write(
    job: Job, output_dir: Path, names: Mapping[str, Path], derivatives: Mapping[str, Path]
) -> tuple[str, ...]:
    """Draw the figures of an image and write its numbers, from its files.

    Parameters
    ----------
    job : an image whose outputs are in place
    output_dir : root of the derivative dataset
    names : paths to write, by the labels of `contents.ENDINGS`
    derivatives : folders where a segmentation may be, by name

    Returns
    -------
    tuple of str, warnings from the numbers; the page shows them beside the notes of the correction

    Raises
    ------
    OSError, ValueError
        If a file does not exist or does not fit; one line that names it.
    """
    sidecar = sidecar_path(job.outputs.corrected)
    text = read_bytes(sidecar, what="JSON")
    facts = parse_json(sidecar, text).get(KEY)
    if not isinstance(facts, dict):
        raise ValueError(
            f"{sidecar}: has no {KEY}; expected a sidecar of this version (correct the image "
            "again)"
        )
    method = METHODS[facts["Method"]]
    shown = shown_stack(job) if method.streams else _shown(job, output_dir, facts)
    image, corrected, inside, where, _ = shown
    before, after = image.data.T[inside.T], corrected.data.T[inside.T]
    folders = {} if method.streams else derivatives  # segmentations are of single images
    found, notes = tissues.find(image, job.relative, folders)
    tissue = None if found is None else found.white | found.grey
    level = levels(shown, tissue)
    line = image_figures.line_of(job, facts)
    values = _measures(facts, image, corrected, before, after, found)
    values |= {each.name: each.of(facts["Details"]) for each in method.measures}
    remarks = _remarks(values)
    values["mask_ml"] = before.size * float(np.prod(image_figures.zooms_of(image))) / 1000
    record = {
        "image": job.name,
        "suffix": job.entities["suffix"],
        "source": job.relative,
        "sidecar": sidecar.relative_to(output_dir).as_posix(),
        "sidecar_sha256": hashlib.sha256(text).hexdigest(),
        "method": method.name,
        "panel": image_figures.panel_in_words(method, facts),
        "details": [(label, facts["Details"][name]) for label, name in method.shown],
        "warnings": [*facts.get("Notes", ()), *remarks],
        "region": where,
        "outline": line.words,
        "files": [path.name for path in _files(job) if path.exists()],
        "window": level.window,
        "gain": level.gain,
        "tissues": found.files if found else (),
        "notes": notes,
        "field_median": level.field_median,
        "measures": values,
    }
    names["record"].write_text(encode(record), encoding="utf-8")
    image_figures.draw(names, shown, level, line, facts)
    return remarks


def _files(job: Job) -> list[Path]:
    """Return the paths of an image's outputs, those that may not exist included."""
    outputs = job.outputs
    masks = outputs.masks.values()
    return [*outputs.images, *masks, sidecar_path(outputs.corrected)]


def _shown(job: Job, output_dir: Path, facts: Mapping[str, Any]) -> Shown:
    """Return what is drawn of a single image."""
    image, corrected = _pair(job, output_dir)
    inside, where = _inside(job, image, facts)
    log_field = grid_of(image).field(_log_field(cast(Path, job.outputs.lattice)))
    return Shown(image, corrected, inside, where, log_field)


def _pair(job: Job, output_dir: Path) -> tuple[Volume, Volume]:
    """Return the image and the corrected image, after a check that they belong together."""
    image, corrected = volume.load(job.source), volume.load(job.outputs.corrected)
    _require_same(job, output_dir, image)
    if image.data.shape != corrected.data.shape:
        raise ValueError(
            f"{corrected.path}: shape {corrected.data.shape}; expected that of {image.path}, "
            f"{image.data.shape}"
        )
    return image, corrected


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
    found = region(
        image,
        mask_image=by_program or job.mask,
        auto_mask=None if by_program else word,
        weight_image=job.weight,
        mask_transform=job.mask_transform,
        weight_transform=job.weight_transform,
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


def _measures(
    facts: Mapping[str, Any],
    image: Volume,
    corrected: Volume,
    before: np.ndarray,
    after: np.ndarray,
    found: tissues.Tissues | None,
) -> dict[str, float | int | None]:
    """Return the numbers of an image; those that cannot be computed are None."""
    everything = np.ones(before.shape, bool)
    values = {
        "field_min": facts["FieldMin"],
        "field_max": facts["FieldMax"],
        "field_cv": facts["FieldCv"],
        "non_positive": facts["NonPositive"],
        "field_ratio": facts["FieldMax"] / facts["FieldMin"],
    }
    values["cv_before"] = _or_none(coefficient_of_variation, before, everything)
    values["cv_after"] = _or_none(coefficient_of_variation, after, everything)
    if found is None:
        return values
    white, grey = found.white.T, found.grey.T
    for when, data in (("before", image.data.T), ("after", corrected.data.T)):
        finite = np.isfinite(data)  # voxels outside the mask may be NaN
        values[f"white_cv_{when}"] = _or_none(coefficient_of_variation, data, white & finite)
        values[f"grey_cv_{when}"] = _or_none(coefficient_of_variation, data, grey & finite)
        values[f"cjv_{when}"] = _or_none(joint_variation, data, white & finite, grey & finite)
    return values


def _remarks(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return warnings from the numbers of an image."""
    found = []
    for name, meaning in (
        ("cjv", "white and grey matter are harder to tell apart than before (CJV"),
        ("cv", "the image is less even inside the mask than before (CV"),
    ):
        before, after = values.get(f"{name}_before"), values.get(f"{name}_after")
        if before is not None and after is not None and after > before:
            found.append(f"{meaning} {before:.3g} → {after:.3g})")
    return tuple(found)


def _or_none(measure: Callable[..., float], *arrays: np.ndarray) -> float | None:
    try:
        return measure(*arrays)
    except ValueError:  # a mean that is not positive
        return None
