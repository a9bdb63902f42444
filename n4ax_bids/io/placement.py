"""Where a NIfTI header puts its voxels, in mm, as the NIfTI library reads it."""

from __future__ import annotations

import nibabel as nb
import numpy as np

MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""of the unit codes for metre and micrometre; all else is mm, as for ITK"""
UNIT_BITS = 0x07
"""of xyzt_units: those that are about space"""
SMALLEST_REAL_PART = 1e-7
"""squared real part of a quaternion that the NIfTI library takes as 0"""


def mm_per_unit(header: nb.Nifti1Header) -> float:
    """Return how many mm the header's unit of length is."""
    return MM_PER_UNIT.get(int(header["xyzt_units"]) & UNIT_BITS, 1.0)


def zooms(header: nb.Nifti1Header, n_axes: int = 3) -> tuple[float, ...]:
    """Return the voxel size of the first axes, mm; 1 unit where the header has no usable one."""
    return tuple(float(z) for z in sizes(header)[:n_axes] * mm_per_unit(header))


def forms(header: nb.Nifti1Header) -> dict[str, np.ndarray]:
    """Return the affines that a header has, voxel to mm, RAS+, by name.

    Returns
    -------
    dict with "s-form" and "q-form", those with a code above 0 and finite numbers; without any,
    "voxel sizes" alone, with the origin in the middle of the image as nibabel has it

    Raises
    ------
    ValueError
        If no number of mm is large enough for them.
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


def s_form(header: nb.Nifti1Header) -> np.ndarray:
    """Return the s-form's affine in the header's unit, whatever its numbers are."""
    with np.errstate(invalid="ignore"):  # numpy warns where it converts a signalling NaN
        return header.get_sform()


def sizes(header: nb.Nifti1Header) -> np.ndarray:
    """Return the voxel sizes in the header's unit, as the NIfTI library mends them."""
    with np.errstate(invalid="ignore"):
        found = np.abs(header["pixdim"][1:4].astype(np.float64))
    return np.where((found > 0) & np.isfinite(found), found, 1.0)


def _q_form(header: nb.Nifti1Header) -> np.ndarray:
    """Return the q-form's affine in the header's unit.

    nibabel refuses a quaternion that rounding has made a little too long. The NIfTI library
    takes b, c and d of any length above 1 for a rotation by 180°, and values that are not finite
    for 0.
    """
    names = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    with np.errstate(invalid="ignore"):
        numbers = np.array([header[name] for name in names], np.float64)
    numbers = np.where(np.isfinite(numbers), numbers, 0.0)
    imaginary, origin = numbers[:3], numbers[3:]
    squared = 1.0 - float(imaginary @ imaginary)
    if not np.isfinite(squared):  # its square is too large for a number
        imaginary = imaginary / np.abs(imaginary).max()
    if squared < SMALLEST_REAL_PART:
        imaginary, squared = imaginary / np.linalg.norm(imaginary), 0.0
    rotation = nb.quaternions.quat2mat([np.sqrt(squared), *imaginary])
    lengths = sizes(header)
    if header["pixdim"][0] < 0:
        lengths[2] = -lengths[2]
    return nb.affines.from_matvec(rotation @ np.diag(lengths), origin)
