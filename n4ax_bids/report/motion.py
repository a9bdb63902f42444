"""Figures of a realignment: motion against volume, one plane before and after, all planes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from n4ax_bids.report import figures

BORDER = 1
"""voxels between the tiles of a mosaic"""
AXES = ("x", "y", "z")


class Look(NamedTuple):
    """What figures show of a series: arrays (I, J, K)."""

    mean: np.ndarray
    sd: np.ndarray


def look_at(series: np.ndarray) -> Look:
    """Return mean and standard deviation over the volumes of a series (I, J, K, n)."""
    mean = np.empty(series.shape[:3], np.float32)
    sd = np.empty_like(mean)
    for k in range(series.shape[2]):  # one plane at a time, because copies take memory
        plane = np.nan_to_num(series[:, :, k].astype(np.float32), posinf=0, neginf=0)
        mean[:, :, k], sd[:, :, k] = plane.mean(axis=-1), plane.std(axis=-1)
    return Look(mean, sd)


def mosaic(volume: np.ndarray, border: float = np.nan) -> np.ndarray:
    """Return all planes of a volume in one image, in ⌈√depth⌉ columns.

    Parameters
    ----------
    volume : array (I, J, K)
    border : value between the tiles

    Returns
    -------
    array (rows, columns), the second axis of the volume upwards
    """
    width, height, depth = volume.shape
    n_columns = math.ceil(math.sqrt(depth))
    n_rows = math.ceil(depth / n_columns)
    full = np.full(
        (n_rows * (height + BORDER) - BORDER, n_columns * (width + BORDER) - BORDER),
        border,
        np.float32,
    )
    for k in range(depth):
        row, column = divmod(k, n_columns)
        top, left = row * (height + BORDER), column * (width + BORDER)
        full[top : top + height, left : left + width] = volume[:, ::-1, k].T
    return full


def motion_figure(table: Mapping[str, np.ndarray]) -> Figure:
    """Plot translations (mm), rotations (degrees) and the residual against the volume.

    Parameters
    ----------
    table : columns trans_x to rot_z (mm, rad), and residual
    """
    figure = Figure(figsize=(8, 6), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    for axis in AXES:
        top.plot(table[f"trans_{axis}"], label=axis, linewidth=1)
        middle.plot(np.degrees(table[f"rot_{axis}"]), label=axis, linewidth=1)
    bottom.plot(table["residual"], color="0.3", linewidth=1)
    labels = ("translation (mm)", "rotation (degrees)", "mean squared residual")
    for axes, label in zip((top, middle, bottom), labels, strict=True):
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    for axes in (top, middle):
        axes.legend(loc="upper right", ncols=3)
    bottom.set_xlabel("volume")
    return figure


def write_curves(path: Path, table: Mapping[str, np.ndarray]) -> None:
    """Write `motion_figure` as SVG; equal figures give equal files.

    Parameters
    ----------
    path : .svg
    table : as `motion_figure`
    """
    with figures.styled():
        motion_figure(table).savefig(path, format="svg", metadata={"Date": None})


def slices_figure(before: Look, after: Look, zooms: tuple[float, ...]) -> Figure:
    """Show the mean and the standard deviation of one plane, before and after."""
    k = before.mean.shape[2] // 2
    figure = Figure(figsize=(7, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    for row, name in enumerate(Look._fields):
        top = float(np.percentile(getattr(before, name)[:, :, k], 99.5))
        for column, (look, when) in enumerate(((before, "before"), (after, "after"))):
            axes = panels[row, column]
            _show(axes, getattr(look, name)[:, ::-1, k].T, top, zooms)
            words = "mean" if name == "mean" else "standard deviation"
            axes.set_title(f"{words}, {when}", fontsize=10)
    return figure


def mosaic_figure(volume: np.ndarray, zooms: tuple[float, ...]) -> Figure:
    """Show all planes of a volume."""
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.subplots()
    _show(axes, mosaic(volume), float(np.percentile(volume, 99.5)), zooms)
    return figure


def show(
    volume: np.ndarray,
    *,
    plane: int | None = None,
    zooms: Sequence[float] = (1.0, 1.0, 1.0),
    top: float | None = None,
    grid: bool = False,
) -> Figure:
    """Return a figure of one plane of a volume, or of all of its planes.

    Parameters
    ----------
    volume : array (I, J, K)
    plane : number of a plane of the last axis; None for all planes
    zooms : voxel sizes, mm
    top : value that is drawn white; default: the 99.5th percentile of the volume
    grid : draw the borders between the voxels of a single plane

    Raises
    ------
    ValueError
        If the volume has other axes, or no such plane.

    Examples
    --------
    >>> import numpy as np
    >>> from n4ax_bids import show
    >>> figure = show(np.eye(8)[..., None] * np.ones(3), plane=1, grid=True)
    """
    volume = np.asarray(volume)
    if volume.ndim != 3:
        raise ValueError(f"volume has the shape {volume.shape}; expected three axes")
    depth = volume.shape[2]
    if plane is not None and not 0 <= plane < depth:
        raise ValueError(f"plane is {plane}; expected 0 to {depth - 1}, or None for all")
    image = mosaic(volume) if plane is None else volume[:, ::-1, plane].T
    white = float(np.nanpercentile(volume, 99.5)) if top is None else top
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    _show(axes, image, white, tuple(zooms))
    if grid and plane is not None:
        rows, columns = image.shape
        lines: dict[str, Any] = {"colors": "0.5", "linewidth": 0.4}
        axes.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, **lines)
        axes.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, **lines)
    return figure


def _show(axes: Any, image: np.ndarray, top: float, zooms: tuple[float, ...]) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=top or 1, aspect=zooms[1] / zooms[0])
    axes.set_axis_off()


def drawn(
    table: Mapping[str, np.ndarray],
    before: Look,
    after: Look,
    zooms: tuple[float, ...],
) -> dict[str, Figure]:
    """Return the figures of a realignment by the names of their files."""
    return {
        "motion.svg": motion_figure(table),
        "slices.png": slices_figure(before, after, zooms),
        "mosaic.png": mosaic_figure(after.mean, zooms),
    }
