"""Rigid motion: six parameters, matrices, and the conventions of other programs.

A motion is held as q = (t1, t2, t3, r1, r2, r3), in mm and radians, of the matrix
M(q) = T(t) R1(r1) R2(r2) R3(r3) in SPM's convention (Friston et al. 1995). M acts about the centre
of the reference's grid and takes the moving volume to the reference. A *mapping* is the matrix in
the other direction, from positions in the reference to those in the moving volume, in scanner
coordinates (mm, RAS+).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS+ to LPS+ and back, the coordinates of ITK and AFNI"""
HEAD_RADIUS = 50.0
"""mm; Power et al. 2012 turn rotations into displacements on a sphere of this radius"""
RMS_RADIUS = 80.0
"""mm; radius of the sphere over which Jenkinson 1999 averages the displacement"""


def _of(array: Any) -> Any:
    return jnp if isinstance(array, jax.Array) else np


def matrix(q: Any) -> Any:
    """Return M(q).

    Parameters
    ----------
    q : array (..., 6) of numpy or jax; translations in mm, rotations in radians

    Returns
    -------
    array (..., 4, 4) of the same library
    """
    xp = _of(q)
    q = xp.asarray(q)
    c, s = xp.cos(q[..., 3:]), xp.sin(q[..., 3:])
    c1, c2, c3 = c[..., 0], c[..., 1], c[..., 2]
    s1, s2, s3 = s[..., 0], s[..., 1], s[..., 2]
    zero, one = xp.zeros_like(c1), xp.ones_like(c1)
    rows = (
        (c2 * c3, c2 * s3, s2, q[..., 0]),
        (-c1 * s3 - s1 * s2 * c3, c1 * c3 - s1 * s2 * s3, s1 * c2, q[..., 1]),
        (s1 * s3 - c1 * s2 * c3, -s1 * c3 - c1 * s2 * s3, c1 * c2, q[..., 2]),
        (zero, zero, zero, one),
    )
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def parameters(rigid: Any) -> Any:
    """Return q of rigid matrices, the inverse of `matrix` for |r2| < 90°.

    Parameters
    ----------
    rigid : array (..., 4, 4) of numpy or jax

    Returns
    -------
    array (..., 6)
    """
    xp = _of(rigid)
    r1 = xp.arctan2(rigid[..., 1, 2], rigid[..., 2, 2])
    r2 = xp.arcsin(xp.clip(rigid[..., 0, 2], -1, 1))
    r3 = xp.arctan2(rigid[..., 0, 1], rigid[..., 0, 0])
    t = [rigid[..., axis, 3] for axis in range(3)]
    return xp.stack([*t, r1, r2, r3], axis=-1)


def inverse(rigid: Any) -> Any:
    """Return the inverses of rigid matrices (..., 4, 4)."""
    xp = _of(rigid)
    turned = xp.swapaxes(rigid[..., :3, :3], -1, -2)
    moved = -(turned * rigid[..., None, :3, 3]).sum(axis=-1)
    top = xp.concatenate([turned, moved[..., None]], axis=-1)
    return xp.concatenate([top, rigid[..., 3:, :]], axis=-2)


def shift(by: Any) -> np.ndarray:
    """Return the 4×4 matrix of a translation, mm."""
    found = np.eye(4)
    found[:3, 3] = by
    return found


def grid_centre(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the position of the centre of a grid, mm: A (n-1)/2."""
    middle = (np.asarray(shape[:3], np.float64) - 1) / 2
    return np.asarray(affine)[:3, :3] @ middle + np.asarray(affine)[:3, 3]


def mapping(q: np.ndarray, affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the matrices from reference to moving volume in scanner coordinates.

    Parameters
    ----------
    q : array (..., 6), motion about the centre of the reference's grid
    affine : 4×4, voxel to mm, of the reference
    shape : of the reference

    Returns
    -------
    array (..., 4, 4), float64: C M(q)⁻¹ C⁻¹
    """
    centre = grid_centre(affine, shape)
    moved = inverse(matrix(np.asarray(q, np.float64)))
    return shift(centre) @ moved @ shift(-centre)


def motion(mappings: np.ndarray, affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return q of mappings, the inverse of `mapping`."""
    centre = grid_centre(affine, shape)
    return parameters(inverse(shift(-centre) @ np.asarray(mappings) @ shift(centre)))


def to_lps(mappings: np.ndarray) -> np.ndarray:
    """Return mappings in ITK's and AFNI's coordinates (or take them back); (..., 4, 4).

    ITK's transforms and AFNI's matrices also go from the reference (fixed image, base) to the
    moving image (source).
    """
    return LPS @ mappings @ LPS


def afni_rows(mappings: np.ndarray) -> np.ndarray:
    """Return the rows of AFNI's matrix files: (..., 12), row by row, reference to moving."""
    rows = to_lps(mappings)[..., :3, :]
    return rows.reshape(*rows.shape[:-2], 12)


def from_afni_rows(rows: np.ndarray) -> np.ndarray:
    """Return the mappings (..., 4, 4) of rows from `afni_rows`."""
    rows = np.asarray(rows, np.float64)
    top = rows.reshape(*rows.shape[:-1], 3, 4)
    last = np.broadcast_to(np.array([0, 0, 0, 1.0]), (*top.shape[:-2], 1, 4))
    return to_lps(np.concatenate([top, last], axis=-2))


def fsl_coordinates(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the matrix from FSL's coordinates of an image to scanner coordinates.

    FSL counts mm from the first voxel along each axis. Where the axes are right-handed
    (a positive determinant), the first axis is counted from its other end.
    """
    affine = np.asarray(affine, np.float64)
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    to_voxel = np.diag([*(1 / zooms), 1.0])
    if np.linalg.det(affine[:3, :3]) > 0:
        to_voxel = np.diag([-1.0, 1, 1, 1]) @ to_voxel
        to_voxel[0, 3] = shape[0] - 1
    return affine @ to_voxel


def fsl_matrices(mappings: np.ndarray, affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return FSL's matrices, from moving volume to reference, in FSL's coordinates.

    Parameters
    ----------
    mappings : array (..., 4, 4)
    affine, shape : of the reference and the moving volumes, which share their grid
    """
    to_mm = fsl_coordinates(affine, shape)
    return np.linalg.inv(to_mm) @ inverse(mappings) @ to_mm


def from_fsl_matrices(
    matrices: np.ndarray, affine: np.ndarray, shape: Sequence[int]
) -> np.ndarray:
    """Return the mappings of FSL's matrices, the inverse of `fsl_matrices`."""
    to_mm = fsl_coordinates(affine, shape)
    return inverse(to_mm @ np.asarray(matrices, np.float64) @ np.linalg.inv(to_mm))


def fsl_parameters(matrices: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the rows of FSL's .par files: three rotations (rad), then three translations (mm).

    The rotations are those of `parameters`, but the one about the second axis has the opposite
    sign.

    Parameters
    ----------
    matrices : array (..., 4, 4), from `fsl_matrices`
    centre : array (3,), from `fsl_gravity`, about which MCFLIRT turns
    """
    q = parameters(shift(-centre) @ np.asarray(matrices) @ shift(centre))
    return q[..., [3, 4, 5, 0, 1, 2]] * np.array([1, -1, 1, 1, 1, 1.0])


def from_fsl_parameters(rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return FSL's matrices of the rows of a .par file, the inverse of `fsl_parameters`."""
    q = np.asarray(rows, np.float64) * np.array([1, -1, 1, 1, 1, 1.0])
    return shift(centre) @ matrix(q[..., [3, 4, 5, 0, 1, 2]]) @ shift(-centre)


def fsl_gravity(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the centre of gravity of a volume as FSL finds it: (3,), mm in FSL's coordinates.

    Each voxel weighs as much as it is above the lowest one; where all are alike, the centre of the
    grid is returned.
    """
    weight = np.asarray(volume, np.float64) - np.min(volume)
    weight = weight if weight.any() else np.ones(weight.shape)
    others = ((1, 2), (0, 2), (0, 1))
    along = [weight.sum(axis=axes) for axes in others]
    voxel = np.array([np.average(np.arange(each.size), weights=each) for each in along])
    to_fsl = np.linalg.inv(fsl_coordinates(affine, volume.shape)) @ affine
    found: np.ndarray = to_fsl[:3, :3] @ voxel + to_fsl[:3, 3]
    return found


def spm_parameters(mappings: np.ndarray) -> np.ndarray:
    """Return the rows of SPM's rp files, relative to the first volume.

    Parameters
    ----------
    mappings : array (n, 4, 4)

    Returns
    -------
    array (n, 6): translations in mm, rotations in radians, about the origin of the scanner's
    coordinates
    """
    return parameters(inverse(mappings) @ mappings[0])


def from_spm_parameters(rows: np.ndarray, first: np.ndarray | None = None) -> np.ndarray:
    """Return the mappings of the rows of an rp file.

    Parameters
    ----------
    rows : array (n, 6)
    first : 4×4, mapping of the first volume; default: no motion
    """
    mapped = inverse(matrix(np.asarray(rows, np.float64)))
    return mapped if first is None else first @ mapped


def framewise_displacement(q: np.ndarray) -> np.ndarray:
    """Return the framewise displacement of each volume from the one before (Power et al. 2012).

    Parameters
    ----------
    q : array (n, 6)

    Returns
    -------
    array (n,), mm; NaN for the first volume
    """
    steps = np.abs(np.diff(np.asarray(q, np.float64), axis=0))
    found = steps[:, :3].sum(axis=1) + HEAD_RADIUS * steps[:, 3:].sum(axis=1)
    return np.concatenate([[np.nan], found])


def rms_displacement(
    mappings: np.ndarray, centre: np.ndarray, *, to: Literal["previous", "reference"]
) -> np.ndarray:
    """Return the root mean square displacement in a sphere about a point (Jenkinson 1999).

    Parameters
    ----------
    mappings : array (n, 4, 4)
    centre : array (3,), mm, in scanner coordinates
    to : displacement from the volume before (NaN for the first), or from the reference

    Returns
    -------
    array (n,), mm
    """
    moved = inverse(mappings)
    if to == "previous":
        moved = np.concatenate([np.full((1, 4, 4), np.nan), moved[1:] @ mappings[:-1]])
    change = moved - np.eye(4)
    at_centre = change[:, :3, :3] @ centre + change[:, :3, 3]
    spread = RMS_RADIUS**2 / 5 * (change[:, :3, :3] ** 2).sum(axis=(1, 2))
    return np.sqrt(spread + (at_centre**2).sum(axis=1))
