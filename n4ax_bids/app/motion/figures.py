"""Figures and numbers of one realigned series, from its files."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from n4ax_bids.app.job import Job
from n4ax_bids.app.motion.names import CONFOUNDS
from n4ax_bids.app.outputs import finished as record_of
from n4ax_bids.app.outputs.derivatives import encode
from n4ax_bids.app.outputs.sidecars import MOTION_KEY
from n4ax_bids.app.reports.grid import grid_of
from n4ax_bids.app.reports.record import common, described
from n4ax_bids.io import series
from n4ax_bids.io.series import Series
from n4ax_bids.io.text import read_object, read_text
from n4ax_bids.methods import METHODS

DIM = 0.1
"""part of the 99th percentile of the mean below which a voxel counts as background"""
OF_A_FIELD = ("field_min", "field_max", "field_cv", "cv_before", "cv_after", "mask_ml")
"""measures of corrections by a field, which a realignment does not have"""


def report(
    job: Job, output_dir: Path, names: Mapping[str, Path], derivatives: Mapping[str, Path]
) -> tuple[str, ...]:
    """Draw the figures of a series and write its numbers, from its files.

    The parameters and the result are those of `n4ax_bids.app.reports.image_report.write`. The
    figure "field" shows the mean of the realigned volumes.
    """
    from n4ax_bids.report import motion as look

    sidecar = described(job, MOTION_KEY, "realign the series")
    facts = sidecar.facts
    source, after = _pair(job, output_dir)
    looks = look.look_at(source.volume.data), look.look_at(after.volume.data)
    method, table = METHODS[facts["Method"]], _table(job.outputs.further[CONFOUNDS])
    values: dict[str, Any] = dict.fromkeys((*OF_A_FIELD, "non_positive"))
    values |= {each.name: each.of(facts["Details"]) for each in method.measures}
    window = _draw(names, source, looks)
    look.write_curves(names["curves"], table)
    record = common(job, output_dir, sidecar) | {
        "panel": "",
        "warnings": list(facts.get("Notes", ())),
        "region": "",
        "outline": "",
        "window": window,
        "gain": 1.0,
        "field_median": None,
        "tissues": (),
        "notes": [facts["VolumesAre"]] if "VolumesAre" in facts else [],
        "measures": values,
    }
    names["record"].write_text(encode(record), encoding="utf-8")
    return ()


def _pair(job: Job, output_dir: Path) -> tuple[Series, Series]:
    """Return the series before and after, after a check that they belong together."""
    source, after = series.load(job.source), series.load(job.outputs.corrected)
    try:
        record = read_object(record_of.path_of(job, output_dir))
        known = record["inputs"]["input_image"]["sha256"]
    except (OSError, ValueError, LookupError, TypeError):  # no record identifies the series
        known = source.volume.sha256
    if source.volume.sha256 != known:
        raise ValueError(f"{job.source}: was replaced since it was realigned; realign it again")
    source = source if job.volumes is None else source.only(job.volumes)
    shapes = source.volume.data.shape, after.volume.data.shape
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{job.outputs.corrected}: shape {shapes[1]}; expected that of {job.source}, "
            f"{shapes[0]}"
        )
    return source, after


def _draw(
    names: Mapping[str, Path], source: Series, looks: tuple[Any, Any]
) -> tuple[float, float]:
    """Draw the temporal standard deviation before and after, and the mean; return the window."""
    from n4ax_bids.report import figures as draw
    from n4ax_bids.report import mosaic

    before, after = looks
    flat = before.mean.shape[2] == 1

    def shown(values: np.ndarray) -> np.ndarray:
        return values[..., 0] if flat else values

    grid = grid_of(dataclasses.replace(source.volume, data=shown(before.mean)))
    bright = float(np.percentile(after.mean, 99))
    inside = shown(after.mean) > DIM * bright
    inside = inside if inside.any() else np.ones_like(inside)
    zooms = np.sqrt((source.volume.affine[:3, :3] ** 2).sum(axis=0))
    views = mosaic.plan(grid.turned(inside), [float(zooms[axis]) for axis in grid.axes])
    top = float(np.percentile(shown(before.sd)[inside], 99)) or 1.0
    for label, each in (("before", before), ("after", after)):
        draw.image(names[label], views, grid.values(shown(each.sd)), (0.0, top))
    draw.image(names["field"], views, grid.values(shown(after.mean)), (0.0, bright or 1.0))
    return 0.0, top


def _table(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a motion table; n/a is NaN."""
    rows = list(csv.reader(read_text(path, what="a table").splitlines(), delimiter="\t"))
    try:
        values = [[float("nan") if v == "n/a" else float(v) for v in row] for row in rows[1:]]
        columns = np.array(values, float).reshape(len(values), len(rows[0])).T
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: not readable as a table of motion: {error}") from error
    return dict(zip(rows[0], columns, strict=True))
