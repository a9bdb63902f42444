"""White and grey matter of an image, if another pipeline has segmented it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from n4ax_bids.app.machine.limits import job_memory
from n4ax_bids.app.select.segmentations import Segmentation, Segmentations
from n4ax_bids.io import volume
from n4ax_bids.io.grids import on_grid
from n4ax_bids.io.resample import through
from n4ax_bids.io.text import read_text
from n4ax_bids.io.volume import Volume

BYTES = 12
"""bytes that each voxel of a segmentation needs at least: as stored, as float32, and on the grid
of the image"""
SURE = 0.9
"""probability above which a voxel counts as a tissue"""
TISSUES = ("WM", "GM")
LABELS = {"WM": 2, "GM": 1}
"""labels in a dseg file without a table, as in BIDS"""


class Tissues(NamedTuple):
    """Two tissues on the grid of an image."""

    white: np.ndarray
    """bool"""
    grey: np.ndarray
    files: tuple[str, ...]
    """the files that were used, as "name of the dataset:path in it" """


def find(
    image: Volume, relative: str, derivatives: Mapping[str, Path]
) -> tuple[Tissues | None, tuple[str, ...]]:
    """Find a segmentation of an image in its own space.

    Probabilities (`label-WM_probseg`, `label-GM_probseg`) are preferred to labels (`dseg`). A file
    is matched to the image as for masks and weights.

    Parameters
    ----------
    image : Volume
    relative : path of the image in its dataset
    derivatives : folders of other pipelines' outputs, by name

    Returns
    -------
    tissues : None if no file fits
    notes : for each file that was found and does not fit, the reason
    """
    notes: list[str] = []
    for name, root in derivatives.items():
        for found in _candidates(root, relative, notes):
            files = tuple(
                f"{name}:{path.relative_to(root).as_posix()}"
                for path in dict.fromkeys(each.path for each in found.values())
            )
            try:
                white, grey = _read(found, image)
            except (OSError, ValueError) as error:
                notes.append(f"{', '.join(files)}: not used as a segmentation: {error}")
                continue
            return Tissues(white, grey, files), tuple(notes)
    return None, tuple(notes)


def _candidates(root: Path, relative: str, notes: list[str]) -> Iterator[dict[str, Segmentation]]:
    """Yield pairs of files for white and grey matter in one folder; add a note if several fit."""
    files = Segmentations({"": root})
    try:
        each = ((tissue, files.probability(relative, tissue)) for tissue in TISSUES)
        pair = {tissue: found for tissue, found in each if found is not None}
    except ValueError as error:
        notes.append(f"not used as a segmentation: {error}")
    else:
        if len(pair) == len(TISSUES):
            yield pair
    for both in files.labels(relative, root):
        yield dict.fromkeys(TISSUES, both)


def _read(files: Mapping[str, Segmentation], image: Volume) -> tuple[np.ndarray, np.ndarray]:
    masks: list[np.ndarray] = []
    labels = len(set(files.values())) == 1
    for tissue in TISSUES:
        path, transform = files[tissue]
        if not masks or not labels:
            _require_memory(path)
            other = volume.load(path)
            placed = (
                through(other, image, transform, labels=labels)
                if transform
                else on_grid(other, image)
            )
        mask = placed.data == _label(path, tissue) if labels else placed.data > SURE
        if not mask.any():
            raise ValueError(f"no voxel counts as {tissue}")
        masks.append(mask)
    return masks[0], masks[1]


def _require_memory(path: Path) -> None:
    """Refuse a segmentation that needs more memory than the job has, judging by its header."""
    needed, most = math.prod(volume.load_header(path).get_data_shape()) * BYTES, job_memory()
    if needed > most:
        raise ValueError(
            f"its voxels take about {needed / 1e9:.1f} GB of memory, and there are "
            f"{most / 1e9:.1f} GB for this job"
        )


def _label(path: Path, tissue: str) -> int:
    """Return the label of a tissue in a dseg file, from the table beside it if there is one."""
    table = path.with_name(path.name.split(".")[0] + ".tsv")
    if table.is_file():
        lines = read_text(table, what="a table", skip_mark=True).splitlines()
        for row in csv.DictReader(lines, delimiter="\t"):
            if tissue in (row.get("abbreviation"), row.get("name")):
                return int(row.get("index") or "")
        raise ValueError(f"{table}: has no row for {tissue}; expected it as abbreviation or name")
    return LABELS[tissue]
