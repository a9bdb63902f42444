"""The position of voxels in mm, as the NIfTI library reads it from a header."""

from __future__ import annotations

import nibabel as nb
import numpy as np

MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""by the unit codes for metre and micrometre; all other codes mean mm, as in ITK"""
IN_SCANNER = 1
"""code of a form that places voxels in the scanner"""
UNIT_BITS = 0x07
"""bits of xyzt_units for the unit of length"""
SMALLEST_REAL_PART = 1e-7
"""squared real part of a quaternion below which the NIfTI library uses 0"""


def mm_per_unit(header: nb.Nifti1Header) -> float:
    """Return the header's unit of length in mm."""
    return MM_PER_UNIT.get(int(header["xyzt_units"]) & UNIT_BITS, 1.0)


def zooms(header: nb.Nifti1Header, n_axes: int = 3) -> tuple[float, ...]:
    """Return the voxel size of the first axes in mm; 1 unit if the header has no usable size."""
    return tuple(float(z) for z in sizes(header)[:n_axes] * mm_per_unit(header))


def forms(header: nb.Nifti1Header) -> dict[str, np.ndarray]:
    """Return the affines of a header (voxel to mm, RAS+) by name.

    Returns
    -------
    dict with those of "s-form" and "q-form" that have a code above 0 and finite numbers; if there
    is none, only "voxel sizes", with the origin in the middle of the image as in nibabel

    Raises
    ------
    ValueError
        If a position in mm is too large for a number.
    """
    found = {}
    if header["sform_code"] > 0 and np.isfinite(s_form(header)).all():
        found["s-form"] = s_form(header)
    to_mm = np.diag([*(mm_per_unit(header),) * 3, 1.0])
    with np.errstate(over="ignore", invalid="ignore"):  # NIfTI-2 has room for 1e300 m
        if header["qform_code"] > 0:
            found["q-form"] = _q_form(header)
        if not found:
            plain = header.copy()
            plain["pixdim"][1:4] = sizes(header)
            found["voxel sizes"] = plain.get_base_affine()
        placed = {name: to_mm @ affine for name, affine in found.items()}
    finite = {name: affine for name, affine in placed.items() if np.isfinite(affine).all()}
    if not finite:
        raise ValueError("it puts voxels at infinity; expected a place in mm")
    return finite


def affine(header: nb.Nifti1Header) -> np.ndarray:
    """Return the affine, voxel to mm, RAS+: the s-form if there is one, else the q-form."""
    return next(iter(forms(header).values()))


def in_scanner_frame(header: nb.Nifti1Header) -> bool:
    """Return whether the place that counts is the one in the scanner, according to its code.

    If the other form has this code, the place counts too, provided that both forms agree within
    0.001 mm and per voxel.
    """
    code = "sform_code" if header["sform_code"] > 0 else "qform_code"
    if header[code] == IN_SCANNER:
        return True
    if IN_SCANNER not in (header["qform_code"], header["sform_code"]):
        return False
    one, *other = forms(header).values()
    return bool(other) and bool(np.allclose(one, other[0], rtol=0, atol=1e-3))


def s_form(header: nb.Nifti1Header) -> np.ndarray:
    """Return the s-form's affine in the header's unit, without any check."""
    with np.errstate(invalid="ignore"):  # numpy warns where it converts a signalling NaN
        return header.get_sform()


def sizes(header: nb.Nifti1Header) -> np.ndarray:
    """Return the voxel sizes in the header's unit, corrected as in the NIfTI library."""
    with np.errstate(invalid="ignore"):
        found = np.abs(header["pixdim"][1:4].astype(np.float64))
    return np.where((found > 0) & np.isfinite(found), found, 1.0)


def _q_form(header: nb.Nifti1Header) -> np.ndarray:
    """Return the q-form's affine in the header's unit.

    nibabel refuses a quaternion that is a little too long because of rounding. The NIfTI library
    reads b, c and d of any length above 1 as a rotation by 180°, and values that are not finite as
    0; so does this function.
    """
    names = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    with np.errstate(invalid="ignore"):
        numbers = np.array([header[name] for name in names], np.float64)
    numbers = np.where(np.isfinite(numbers), numbers, 0.0)
    imaginary, origin = numbers[:3], numbers[3:]
    squared = 1.0 - float(imaginary @ imaginary)
    if not np.isfinite(squared):  # the square is too large for a number
        imaginary = imaginary / np.abs(imaginary).max()
    if squared < SMALLEST_REAL_PART:
        imaginary, squared = imaginary / np.linalg.norm(imaginary), 0.0
    rotation = nb.quaternions.quat2mat([np.sqrt(squared), *imaginary])
    lengths = sizes(header)
    if header["pixdim"][0] < 0:
        lengths[2] = -lengths[2]
    return nb.affines.from_matvec(rotation @ np.diag(lengths), origin)
