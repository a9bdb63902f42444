"""White and grey matter of an image, where another pipeline has segmented it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from n4ax_bids.io import volume
from n4ax_bids.io.text import read_text
from n4ax_bids.io.volume import Volume

SURE = 0.9
"""probability above which a voxel is of a tissue"""
LABELS = {"WM": 2, "GM": 1}
"""of a dseg file without a table, as BIDS has them"""
SAME_PLACE = 1e-3
"""largest difference between entries of two affines that are taken as the same"""


class Tissues(NamedTuple):
    """Two tissues on the grid of an image."""

    white: np.ndarray
    """bool"""
    grey: np.ndarray
    files: tuple[str, ...]
    """what they come from, "name of the dataset:path in it" """


def find(
    image: Volume, relative: str, derivatives: Mapping[str, Path]
) -> tuple[Tissues | None, tuple[str, ...]]:
    """Look for a segmentation of an image in its own space.

    Taken are files of the same subject whose entities the image has too: probabilities
    (`label-WM_probseg`, `label-GM_probseg`) before labels (`dseg`).

    Parameters
    ----------
    image : Volume
    relative : its name in its dataset
    derivatives : folders of other pipelines' outputs, by name

    Returns
    -------
    tissues : None where nothing fits
    notes : why a file that was found does not
    """
    notes: list[str] = []
    for name, root in derivatives.items():
        for paths in _candidates(root, relative):
            files = tuple(
                f"{name}:{path.relative_to(root).as_posix()}"
                for path in dict.fromkeys(paths.values())
            )
            try:
                white, grey = _read(paths, image)
            except (OSError, ValueError) as error:
                notes.append(f"{', '.join(files)}: not taken as tissues: {error}")
                continue
            return Tissues(white, grey, files), tuple(notes)
    return None, tuple(notes)


def _candidates(root: Path, relative: str) -> Iterator[dict[str, Path]]:
    """Yield files of white and grey matter, the most specific first."""
    own, suffix = _entities(Path(relative).name), _suffix(relative)
    folders = {
        root / f"sub-{own.get('sub')}" / "anat",
        (root / relative).parent,
    }
    found: dict[str, list[tuple[int, str, Path]]] = {}
    for folder in sorted(folders):
        for path in sorted(folder.glob("*seg.nii*")) if folder.is_dir() else ():
            entities = _entities(path.name)
            kind = _suffix(path.name)
            tissue = entities.pop("label", "") if kind == "probseg" else kind
            entities.pop("desc", None)
            if entities.get("space") == suffix:  # the image's own
                del entities["space"]
            if entities.items() <= own.items():
                found.setdefault(tissue, []).append((-len(entities), path.name, path))
    for several in found.values():
        several.sort()
    for (*_, white), (*_, grey) in zip(found.get("WM", ()), found.get("GM", ()), strict=False):
        yield {"WM": white, "GM": grey}
    for *_, both in found.get("dseg", ()):
        yield {"WM": both, "GM": both}


def _suffix(name: str) -> str:
    return name.split(".")[0].rpartition("_")[2]


def _entities(name: str) -> dict[str, str]:
    return dict(re.findall(r"(?:^|_)([a-zA-Z]+)-([a-zA-Z0-9]+)", name))


def _read(paths: Mapping[str, Path], image: Volume) -> tuple[np.ndarray, np.ndarray]:
    masks = []
    for tissue in ("WM", "GM"):
        path = paths[tissue]
        if not masks or path != paths["WM"]:
            segmentation = volume.load(path)
        if segmentation.data.shape != image.data.shape:
            raise ValueError(
                f"shape {segmentation.data.shape}; expected the image's {image.data.shape}"
            )
        if not np.allclose(segmentation.affine, image.affine, rtol=0, atol=SAME_PLACE):
            raise ValueError("it lies elsewhere than the image")
        if paths["WM"] == paths["GM"]:
            mask = segmentation.data == _label(path, tissue)
        else:
            mask = segmentation.data > SURE
        if not mask.any():
            raise ValueError(f"no voxel is surely {tissue}")
        masks.append(mask)
    return masks[0], masks[1]


def _label(path: Path, tissue: str) -> int:
    """Return the number of a tissue in a dseg file, by the table beside it if there is one."""
    table = path.with_name(path.name.split(".")[0] + ".tsv")
    if table.is_file():
        lines = read_text(table, what="a table", skip_mark=True).splitlines()
        for row in csv.DictReader(lines, delimiter="\t"):
            if tissue in (row.get("abbreviation"), row.get("name")):
                return int(row.get("index") or "")
    return LABELS[tissue]
