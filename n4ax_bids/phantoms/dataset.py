"""A BIDS dataset of images with a known bias field, with the truth beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from n4ax_bids.phantoms.images import FieldKind, mni152, mni152_affine


class _Recipe(NamedTuple):
    """One image of the dataset."""

    subject: str
    contrast: Literal["T1w", "T2w"]
    field: FieldKind
    amplitude: float
    extension: str
    dtype: type
    slope: float
    """stored value × slope = intensity"""
    rotation: tuple[float, float, float]
    """rotation of the scan about the scanner's axes, degrees"""


RECIPES = (
    _Recipe("01", "T1w", "coils", 0.50, ".nii.gz", np.int16, 0.125, (0, 0, 0)),
    _Recipe("01", "T2w", "dome", 0.40, ".nii.gz", np.int16, 1.0, (0, 0, 0)),
    _Recipe("02", "T1w", "polynomial", 0.45, ".nii.gz", np.float32, 1.0, (12, -7, 4)),
    _Recipe("02", "T2w", "polynomial", 0.40, ".nii", np.int16, 1.0, (12, -7, 4)),
)
"""The images that `make_dataset` makes."""


class Item(NamedTuple):
    """Files of one image of the dataset."""

    image: Path
    log_field: Path
    """the truth: ln of the field, on the image's grid"""
    labels: Path
    """CSF, GREY, WHITE where the voxel is that tissue and nothing else"""
    mask: Path
    """the brain"""


def make_dataset(
    path: str | Path, *, step: int = 1, noise: float = 0.025, seed: int = 0
) -> list[Item]:
    """Write a BIDS dataset of two simulated subjects with a T1w and a T2w-like image each.

    The truth is under `sourcedata/truth`, which BIDS tools do not read.

    Parameters
    ----------
    path : root of the dataset
    step : voxel size, mm
    noise : as for `mni152`
    seed : int

    Returns
    -------
    list of Item, one per image
    """
    root = Path(path)
    _write_dataset_files(root)
    items = []
    for number, recipe in enumerate(RECIPES):
        made = mni152(
            recipe.contrast,
            seed + number,
            recipe.field,
            recipe.amplitude,
            noise,
            step=step,
        )
        affine = _rotated(mni152_affine(step), recipe.rotation)
        stem = f"sub-{recipe.subject}_{recipe.contrast}"
        truth = root / "sourcedata" / "truth"
        item = Item(
            root / f"sub-{recipe.subject}" / "anat" / f"{stem}{recipe.extension}",
            *(truth / f"{stem}_{what}.nii.gz" for what in ("logfield", "labels", "mask")),
        )
        _write(item.image, 1000 * made.image, affine, dtype=recipe.dtype, slope=recipe.slope)
        _write(item.log_field, made.log_field, affine, dtype=np.float32)
        _write(item.labels, made.labels, affine, dtype=np.uint8)
        _write(item.mask, made.mask, affine, dtype=np.uint8)
        _write_json(item.image.with_name(f"{stem}.json"), _sidecar(recipe, noise))
        items.append(item)
    return items


def _rotated(affine: np.ndarray, degrees: tuple[float, float, float]) -> np.ndarray:
    """Turn an affine about the scanner's x, y and z axes in turn."""
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [d for d in range(3) if d != axis]
        rotation = np.eye(4)
        rotation[a, a] = rotation[b, b] = np.cos(angle)
        rotation[b, a], rotation[a, b] = np.sin(angle), -np.sin(angle)
        affine = rotation @ affine
    return affine


def _write(
    path: Path, data: np.ndarray, affine: np.ndarray, *, dtype: type, slope: float = 1.0
) -> None:
    """Save a NIfTI file that stores data / slope."""
    import nibabel as nb

    if np.issubdtype(dtype, np.integer):
        data = np.rint(data / slope)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nb.Nifti1Image(data.astype(dtype), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(slope, 0)
    image.to_filename(path)


def _sidecar(recipe: _Recipe, noise: float) -> dict[str, Any]:
    return {
        "Modality": "MR",
        "ImageComments": (
            f"Simulated: ICBM 152 anatomy under a bias field of the kind {recipe.field}, at most "
            f"exp(±{recipe.amplitude}); Rician noise of {1000 * noise:g} in each channel"
        ),
        "SkullStripped": True,
    }


def _write_dataset_files(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    description = {
        "Name": "Simulated brains with known bias fields",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "Authors": ["n4ax_bids contributors (simulation)", "V. S. Fonov and others (anatomy)"],
        "ReferencesAndLinks": ["https://doi.org/10.1016/S1053-8119(09)70884-5"],
    }
    _write_json(root / "dataset_description.json", description)
    subjects = sorted({recipe.subject for recipe in RECIPES})
    rows = ["participant_id", *(f"sub-{subject}" for subject in subjects)]
    (root / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "README.md").write_text(README, encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


README = """\
# Simulated brains with known bias fields

Two simulated subjects, each with a T1w and a T2w-like image, made by `n4ax_bids.phantoms`. The
anatomy is the ICBM 152 2009a nonlinear symmetric template with its tissue maps (Fonov and others
2009; copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University, which grants everyone its use, copy, change and distribution as long
as this notice stays), as the Python package nilearn carries it. Each image was multiplied by
another smooth field before noise was added.

`sourcedata/truth` contains the truth: for each image ln of the field (`logfield`), voxels of a
single tissue (`labels`: 1 CSF, 2 grey matter, 3 white matter) and the brain (`mask`).
"""
