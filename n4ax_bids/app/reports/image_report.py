"""Makes figures and numbers of one image from its files.

These are the source, the corrected image with its sidecar, and the lattice. So a report can be
made again without a solve.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from n4ax_bids import methods
from n4ax_bids.app.job import Job
from n4ax_bids.app.outputs.derivatives import encode, sidecar_path
from n4ax_bids.app.outputs.sidecars import KEY
from n4ax_bids.app.reports import tissues
from n4ax_bids.app.reports.grid import grid_of
from n4ax_bids.app.reports.image_shown import shown_image
from n4ax_bids.app.reports.stack_shown import shown_stack
from n4ax_bids.core.metrics import coefficient_of_variation, joint_variation
from n4ax_bids.io.text import parse_json, read_bytes
from n4ax_bids.io.volume import Volume
from n4ax_bids.methods import METHODS
from n4ax_bids.options import MASK_PROGRAMS

_EVERY = 1 << 20
"""most voxels that are used for a quantile"""
FOUND = ("auto", "head", "brain", *MASK_PROGRAMS)
"""masks whose outline is drawn; Otsu's mask has an edge at every dark voxel of the tissue"""


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
    shown = shown_stack(job) if method.streams else shown_image(job, output_dir, facts)
    image, corrected, inside, where, log_field = shown
    before, after = image.data.T[inside.T], corrected.data.T[inside.T]
    window = _window(image.data, before, after)
    folders = {} if method.streams else derivatives  # segmentations are of single images
    found, notes = tissues.find(image, job.relative, folders)
    values = _measures(facts, image, corrected, before, after, found)
    values |= {each.name: each.of(facts["Details"]) for each in method.measures}
    remarks = _remarks(values)
    values["mask_ml"] = before.size * float(np.prod(_zooms(image))) / 1000
    record = {
        "image": job.name,
        "suffix": job.entities["suffix"],
        "source": job.relative,
        "sidecar": sidecar.relative_to(output_dir).as_posix(),
        "sidecar_sha256": hashlib.sha256(text).hexdigest(),
        "method": method.name,
        "panel": method.caption if method.panel else "",
        "details": [(label, facts["Details"][name]) for label, name in method.shown],
        "warnings": [*facts.get("Notes", ()), *remarks],
        "region": where,
        "window": window,
        "gain": _median(before) / (_median(after) or 1.0),
        "tissues": found.files if found else (),
        "notes": notes,
        "measures": values,
    }
    names["record"].write_text(encode(record), encoding="utf-8")
    _draw(names, image, corrected, inside, window, facts, log_field)
    _draw_curves(names["curves"], before, after, window, facts)
    return remarks


def _draw(
    names: Mapping[str, Path],
    image: Volume,
    corrected: Volume,
    inside: np.ndarray,
    window: tuple[float, float],
    facts: Mapping[str, Any],
    log_field: Callable[[tuple[np.ndarray, ...]], np.ndarray],
) -> None:
    """Draw sections of the image before and after the correction, and of the field."""
    from n4ax_bids.report import figures as draw
    from n4ax_bids.report import mosaic

    grid = grid_of(image)
    views = mosaic.plan(grid.turned(inside), [_zooms(image)[axis] for axis in grid.axes])
    outline = grid.values(inside) if facts.get("Mask") in FOUND else None
    draw.image(names["before"], views, grid.values(image.data), window, outline)
    draw.image(names["after"], views, grid.values(corrected.data), window, outline)
    limits = facts["FieldMin"], facts["FieldMax"]
    draw.field(names["field"], views, log_field, grid.values(inside), limits)


def _draw_curves(
    path: Path,
    before: np.ndarray,
    after: np.ndarray,
    window: tuple[float, float],
    facts: Mapping[str, Any],
) -> None:
    """Draw the histograms inside the mask, and the method's own figure beside them."""
    from n4ax_bids.report import figures as draw

    panel, method = None, METHODS[facts["Method"]]
    if method.panel:
        own = methods.load(method.panel)
        panel = partial(own, options=facts["Options"], details=facts["Details"])
    draw.curves(path, draw.histogram(before, after, window), panel)


def _window(image: np.ndarray, *inside: np.ndarray) -> tuple[float, float]:
    """Return the intensities shown as black and white, the same before and after."""
    shown = _thinned(image)
    low = float(np.percentile(shown[np.isfinite(shown)], 1))
    high = float(np.percentile(np.concatenate([_thinned(values) for values in inside]), 99.3))
    return low, high if high > low else low + 1.0


def _median(values: np.ndarray) -> float:
    return float(np.median(_thinned(values)))


def _thinned(values: np.ndarray) -> np.ndarray:
    flat = values.ravel(order="K")
    return flat[:: max(1, flat.size // _EVERY)]


def _zooms(image: Volume) -> tuple[float, ...]:
    zooms = image.zooms
    return zooms if len(zooms) == 3 else (*zooms, max(zooms))


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
