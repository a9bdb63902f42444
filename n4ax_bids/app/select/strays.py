"""Says what a path is that was given as a BIDS dataset but is none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from n4ax_bids.io.kinds import is_dicom

DESCRIPTION = "dataset_description.json"
NIFTI, DICOM = (".nii", ".nii.gz"), (".dcm", ".ima", ".dicom")
LOOKED_AT = 200
"""most files that are looked at, because a folder may hold a whole archive"""
CONVERT_TO_FILES = "convert them first: dcm2niix -o NEW_FOLDER FOLDER makes NIfTI files"
CONVERT = (
    "convert it first: dcm2niix and a BIDS converter (HeuDiConv, dcm2bids) make a BIDS dataset"
)


def why_no_dataset(folder: Path) -> str:
    """Return why a path is no BIDS dataset, and what the user can do with it instead.

    Parameters
    ----------
    folder : the given path; it is no folder, or a folder without a description
    """
    if not folder.exists():
        return "no such folder; expected a BIDS dataset"
    if not folder.is_dir():
        if folder.name.lower().endswith(NIFTI):
            why = "a NIfTI file; expected the folder of a BIDS dataset"
            return f"{why}; n4ax-files {folder} OUT_DIR corrects it"
        if is_dicom_file(folder):
            return f"a DICOM file; expected the folder of a BIDS dataset; {CONVERT}"
        return "a file; expected the folder of a BIDS dataset"
    inside = list(islice(files_in(folder), LOOKED_AT))
    lacks = f"no BIDS dataset: it has no {DESCRIPTION}"
    above = next((each for each in folder.parents if (each / DESCRIPTION).is_file()), None)
    if above is not None:
        return f"{lacks}; it lies inside the dataset {above}; expected that one"
    if any(folder.glob("sub-*")):
        return lacks
    if any(path.name.lower().endswith(NIFTI) for path in inside):
        return f"{lacks}; it holds loose NIfTI files: n4ax-files {folder} OUT_DIR corrects them"
    if any(map(is_dicom_file, inside)):
        return f"{lacks}; it holds DICOM files: {CONVERT}"
    return lacks


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and in its subfolders, two levels deep."""
    return (path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file())


def is_dicom_file(path: Path) -> bool:
    """Return whether a file is DICOM, by its name or by its first bytes."""
    return path.name.lower().endswith(DICOM) or is_dicom(path)
