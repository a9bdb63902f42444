"""What kind of file it is if not a NIfTI image, and what to do about it."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

from n4ax_bids.io.text import opened

MOST = 10_000
"""entries of a folder that are inspected"""
DICOM_AT = 128
"""byte at which a DICOM file has its magic"""
APPLE_DOUBLE = b"\x00\x05\x16\x07"
EXPECTED = "expected a NIfTI image"


def require_file(path: Path) -> None:
    """Raise an error that says what `path` is, unless it is a file with content."""
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"{path}: {_broken_link(path)}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: {_folder(path)}")
    if not path.exists():
        above = next((each for each in path.parents if each.exists()), None)
        if above is not None and not above.is_dir():
            raise NotADirectoryError(
                f"{path}: no such file: {above} is a file; expected a folder there"
            )
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path}: not a file; {EXPECTED}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: empty file (0 bytes); {EXPECTED}")


def what_it_is(path: Path, start: bytes) -> str:
    """Return what kind a file is that does not begin like NIfTI, and the remedy if there is one.

    Parameters
    ----------
    path : the file
    start : its first 348 bytes, decompressed; fewer if the file is shorter
    """
    if start.startswith(b"/annex/objects/") or start.startswith(b".git/annex/objects/"):
        return (
            "a pointer of git-annex, whose content is not here; get it first: "
            f"git annex get {path.name} (or datalad get {path.name}) in {path.parent}"
        )
    if start.startswith(b"version https://git-lfs.github.com/"):
        return (
            "a pointer of Git LFS, whose content is not here; get it first: "
            f'git lfs pull --include "*{path.name}" in {path.parent}'
        )
    if start.startswith(APPLE_DOUBLE):
        return (
            "an AppleDouble file, in which macOS keeps the attributes of "
            f"{path.name.removeprefix('._')}; {EXPECTED} (._ files can be deleted)"
        )
    if start[DICOM_AT : DICOM_AT + 4] == b"DICM":
        return f"a DICOM file; {EXPECTED} (dcm2niix converts DICOM files)"
    if start[:4] == b"NRRD":
        return f"an NRRD file; {EXPECTED} (ITK or 3D Slicer convert NRRD files)"
    if re.match(rb"\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        return f"not a NIfTI file but a web page or XML; {EXPECTED} (download it once more)"
    return f"not a NIfTI file; {EXPECTED}"


def _broken_link(path: Path) -> str:
    target = os.readlink(path)
    if "annex/objects" in Path(target).as_posix():
        return (
            f"a broken link to {target}: git-annex does not have its content here; get it first: "
            f"git annex get {path.name} (or datalad get {path.name}) in {path.parent}"
        )
    return f"broken link to {target}; {EXPECTED}"


def _folder(path: Path) -> str:
    """Describe the content of a folder that was given in place of an image."""
    try:
        files = sorted(each for each in islice(path.iterdir(), MOST) if each.is_file())
    except OSError:
        files = []
    visible = [file for file in files if not file.name.startswith(".")]
    nifti = [file for file in visible if file.name.endswith((".nii", ".nii.gz"))]
    if nifti:
        many = f"{len(nifti)} NIfTI files" if nifti[1:] else "a NIfTI file"
        return f"a folder that holds {many}; expected one file, such as {nifti[0]}"
    if any(map(is_dicom, visible[:20])):
        return (
            f"a folder of DICOM files; {EXPECTED} (convert the folder first, for example with "
            f"dcm2niix {path})"
        )
    return f"a folder, not a file; {EXPECTED}"


def is_dicom(file: Path) -> bool:
    """Return whether a file has the letters DICM at the position where DICOM files have them."""
    try:
        with opened(file, what="DICOM") as stream:
            return stream.read(DICOM_AT + 4)[DICOM_AT:] == b"DICM"
    except (OSError, ValueError):
        return False
