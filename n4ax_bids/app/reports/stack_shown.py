"""What the report draws of an image; of a stack, some planes with the samples of its estimate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import nibabel as nb
import numpy as np

from n4ax_bids.app.job import Job
from n4ax_bids.app.outputs.derivatives import sidecar_path
from n4ax_bids.app.reports.grid import grid_of
from n4ax_bids.core.stack.correction import StackCorrection
from n4ax_bids.core.stack.numbers import thin_log_field
from n4ax_bids.io.volume import Volume
from n4ax_bids.stacks.files import load_correction, opened

MOST_PLANES, MOST = 96, 256
"""planes, and rows or columns, that are kept for figures"""


class Shown(NamedTuple):
    """An image before and after its correction, as far as it is drawn."""

    image: Volume
    corrected: Volume
    inside: np.ndarray
    """bool, the voxels that the numbers describe"""
    where: str
    """describes these voxels"""
    log_field: Callable[[tuple[np.ndarray, ...]], np.ndarray]
    """gives ln b at voxels of the turned axes"""


def shown_stack(job: Job) -> Shown:
    """Return what is drawn of a stack: at most 96 planes, thinned to the samples of the estimate.

    Parameters
    ----------
    job : a stack whose outputs are in place

    Raises
    ------
    OSError, ValueError
        If one of its files cannot be read; one line that names it.
    """
    done = load_correction(cast(Path, job.outputs.lattice))
    planes = np.unique(np.linspace(0, done.shape[0] - 1, MOST_PLANES).astype(int))
    rows, columns = (_some(positions) for positions in done.how.positions)
    pixels = tuple(
        np.rint(each[some]).astype(int)
        for each, some in zip(done.how.positions, (rows, columns), strict=True)
    )
    before, after = (
        _read(path, done, planes, pixels) for path in (job.source, job.outputs.corrected)
    )
    fields = [thin_log_field(done, int(k))[np.ix_(rows, columns)] for k in planes]
    mask = done.thin_mask[np.ix_(planes, rows, columns)]
    header = _header(job, planes, pixels, before.shape)
    volumes = [_volume(values, header, job) for values in (before, after)]
    inside = np.asfortranarray(mask.T) if mask.any() else np.ones(mask.T.shape, bool, order="F")
    grid = grid_of(volumes[0])
    log_field = grid.values(np.asfortranarray(np.stack(fields).T))
    where = f"samples in the tissue, of {len(planes)} planes"
    return Shown(volumes[0], volumes[1], inside, where, log_field)


def _some(positions: np.ndarray) -> np.ndarray:
    """Return the indices of at most 256 of an axis's samples."""
    return np.unique(np.linspace(0, len(positions) - 1, min(len(positions), MOST)).astype(int))


def _read(
    path: object, done: StackCorrection, planes: np.ndarray, pixels: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Return some pixels of some planes of a file."""
    with opened(path) as (source,):
        if source.shape != done.shape:
            raise ValueError(f"{path}: shape {source.shape}; expected {done.shape}")
        found = [source.read(int(k), int(k) + 1)[0][np.ix_(*pixels)] for k in planes]
    return np.stack(found).astype(np.float32)


def _header(
    job: Job, planes: np.ndarray, pixels: tuple[np.ndarray, ...], shape: tuple[int, ...]
) -> nb.Nifti1Header:
    """Return a header with the distances of what is kept; axes are columns, rows, planes."""
    from n4ax_bids.app.outputs.sidecars import KEY
    from n4ax_bids.io.text import read_object

    facts = read_object(sidecar_path(job.outputs.corrected))[KEY]
    sizes = facts["Details"]["voxel_size_mm"]
    steps = [
        float(size) * (float(places[-1] - places[0]) / (len(places) - 1) if len(places) > 1 else 1)
        for size, places in zip(sizes, (planes, *pixels), strict=True)
    ]
    header = nb.Nifti1Header()
    header.set_data_shape(shape[::-1])
    header.set_xyzt_units("mm")
    header.set_zooms(steps[::-1])
    return header


def _volume(values: np.ndarray, header: nb.Nifti1Header, job: Job) -> Volume:
    affine = np.diag([*(float(zoom) for zoom in header.get_zooms()[:3]), 1.0])
    data = np.asfortranarray(values.T)
    return Volume(data, affine, header, job.source, np.dtype(np.float32))
