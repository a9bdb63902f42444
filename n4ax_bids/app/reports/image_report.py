"""Makes figures and numbers of one image from its files.

These are the source, the corrected image with its sidecar, and the lattice. So a report can be
made again without a solve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from n4ax_bids.app.job import Job
from n4ax_bids.app.outputs.derivatives import encode
from n4ax_bids.app.outputs.sidecars import KEY
from n4ax_bids.app.reports import image_figures, tissues
from n4ax_bids.app.reports.image_shown import shown_image
from n4ax_bids.app.reports.record import common, described
from n4ax_bids.app.reports.stack_shown import shown_stack
from n4ax_bids.app.reports.windows import levels
from n4ax_bids.core.metrics import coefficient_of_variation, joint_variation
from n4ax_bids.io.volume import Volume
from n4ax_bids.methods import METHODS


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
    sidecar = described(job, KEY, "correct the image")
    facts = sidecar.facts
    method = METHODS[facts["Method"]]
    shown = shown_stack(job) if method.streams else shown_image(job, output_dir, facts)
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
    record = common(job, output_dir, sidecar) | {
        "panel": image_figures.panel_in_words(method, facts),
        "warnings": [*facts.get("Notes", ()), *remarks],
        "region": where,
        "outline": line.words,
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
