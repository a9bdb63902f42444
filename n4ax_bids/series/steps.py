"""The steps of a realignment that need a file: images on its grid, its bias field, resampling."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from n4ax_bids import methods
from n4ax_bids.core import call as calls
from n4ax_bids.core.motion.reslice import finite, resampled_in_place
from n4ax_bids.core.motion.series import Realignment, mean_of
from n4ax_bids.core.motion.smoothing import Grid
from n4ax_bids.io import gradients, grids, volume
from n4ax_bids.io.atomic import replacing
from n4ax_bids.io.series import Series
from n4ax_bids.options import preset
from n4ax_bids.options.realign import RealignOptions

PRESET = "standard"
"""of N4, for the field of a series"""


class Field(NamedTuple):
    """The bias field of a series."""

    values: np.ndarray
    """(I, J, K), float32: what every volume is divided by"""
    record: dict[str, Any]
    """how it was estimated, for the sidecar"""
    notes: tuple[str, ...]


def on_grid(path: str | Path | None, series: Series) -> np.ndarray | None:
    """Return an image on the grid of a series, (I, J, K); None for None.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or lies on another grid; one line that names the file.
    """
    if path is None:
        return None
    other = volume.load(path)
    first = dataclasses.replace(series.volume, data=series.at(0))
    if other.data.ndim == 2:
        other = dataclasses.replace(other, data=other.data[..., None])
    return finite(grids.on_grid(other, first).data)


def write_gradients(source: Path, target: Path, volumes: Sequence[int], n_rows: int) -> None:
    """Write the b-values (one row) or directions (three rows) of some volumes of a DWI series.

    Raises
    ------
    OSError, ValueError
        If the source does not fit; one line that names it.
    """
    text = gradients.of_volumes(source, volumes, n_rows)
    with replacing(target) as part:
        part.write_text(text, encoding="utf-8")


def require_field(bias_image: Path | None, options: RealignOptions) -> None:
    """Refuse to write a field that the options do not want.

    Raises
    ------
    ValueError
        One line that names the file.
    """
    if bias_image is not None and options.bias == "none":
        raise ValueError(
            f"{bias_image}: the option bias is none, so there is no field; expected mean or "
            "reference"
        )


def field_of(series: Series, grid: Grid, found: Realignment, options: RealignOptions) -> Field:
    """Estimate one bias field for all volumes by N4, in the mean or in the reference.

    The motion has been estimated on the uncorrected series before.

    Parameters
    ----------
    series : as in the file
    grid : of its volumes
    found : the motion of the volumes
    options : options.bias names the image, options.bias_mask the mask in it

    Raises
    ------
    ValueError
        If N4 cannot use the image.
    """
    image = found.reference
    if options.bias == "mean":
        good = [i for i in range(series.n_volumes) if i not in found.flagged]
        image = mean_of(lambda i: finite(series.at(i)), good, found.motion, grid, options)
    n4, flat = preset(PRESET), image.shape[2] == 1
    word = None if options.bias_mask == "none" else options.bias_mask
    zooms = tuple(map(float, grid.zooms[:2] if flat else grid.zooms))
    call = calls.prepare(image[..., 0] if flat else image, word, None, zooms)
    estimate = methods.load(methods.of_options(n4).prepare)(call.given, n4)(None)
    _, log_field = calls.divided(call, estimate.log_field)
    values = np.exp(np.asarray(log_field, np.float32)).reshape(image.shape)
    record = {
        "Image": options.bias,
        "Mask": options.bias_mask,
        "Preset": PRESET,
        "Options": dataclasses.asdict(n4),
        "FieldMin": float(values.min()),
        "FieldMax": float(values.max()),
    }
    return Field(values, record, tuple(estimate.notes))


def resampled(
    data: np.ndarray,
    found: Realignment,
    grid: Grid,
    options: RealignOptions,
    field: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Divide a series by its field and resample it once, in its own memory.

    The field belongs to the coil, so each volume is divided where it was measured, before it is
    resampled.

    Parameters
    ----------
    data : array (I, J, K, n), overwritten; volumes that are flagged stay as they are
    found : the motion of the volumes
    grid : of the volumes
    options : RealignOptions
    field : array (I, J, K), or None

    Returns
    -------
    dict, the realigned series, its mean, variance and standard deviation, by names of
    `n4ax_bids.series.outputs.Files`
    """
    good: Sequence[int] = [i for i in range(data.shape[3]) if i not in found.flagged]
    if field is not None:
        for i in good:
            data[..., i] /= field
    made = resampled_in_place(
        data,
        good,
        found.motion.q[good],
        grid,
        degree=options.write_degree,
        boundary=options.boundary,
        mask=options.write_mask,
    )
    return made | {"output_image": data}
