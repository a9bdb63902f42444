"""A head that moves: a phantom given by a formula, so that no volume is ever interpolated."""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nb
import numpy as np
from scipy.spatial.transform import Rotation

from n4ax_bids.core.motion import rigid

BRIGHT = 600.0
TILT = Rotation.from_euler("xyz", [12, -7, 20], degrees=True).as_matrix()
# centre, radii (mm), turn (rad), intensity
ELLIPSOIDS = (
    ((0, 0, 0), (72, 88, 66), 0.0, 600),
    ((0, 2, 2), (66, 81, 60), 0.0, -380),
    ((0, 4, 3), (60, 74, 54), 0.0, 280),
    ((20, 30, 10), (18, 25, 15), 0.4, 180),
    ((-25, -20, 5), (20, 30, 18), 0.2, 140),
    ((9, -8, 4), (6, 24, 11), 0.3, -260),
    ((-10, -6, 6), (6, 22, 12), -0.3, -260),
    ((30, -40, -20), (15, 10, 12), 0.1, 150),
    ((-35, 35, 20), (12, 16, 10), -0.5, 120),
)


class MovingHead(NamedTuple):
    """A series and its true motion."""

    volumes: np.ndarray
    """(n, I, J, K), float32"""
    q: np.ndarray
    """(n, 6), mm and rad"""
    affine: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.volumes.shape[1:]


def head(mm: np.ndarray, voxel: float) -> np.ndarray:
    """Return the phantom's intensity at positions (..., 3), mm from its centre.

    Its edges are as soft as a voxel (mm) makes them, which averages over its size: edges that are
    sharper than the grid can show would seem to move with it.
    """
    soft = 0.6 * voxel
    value = np.zeros(mm.shape[:-1])
    for centre, radii, turn, bright in ELLIPSOIDS:
        axes = Rotation.from_euler("xyz", [turn] * 3).as_matrix()
        distance = np.sqrt((((mm - centre) @ axes / radii) ** 2).sum(axis=-1))
        value += bright / (1 + np.exp((distance - 1) * min(radii) / soft))
    folds = np.sin(mm[..., 0] / 5 + np.sin(mm[..., 1] / 9)) * np.sin(mm[..., 2] / 6 + 1)
    inside = 1 / (1 + np.exp((np.sqrt(((mm / (58, 72, 52)) ** 2).sum(axis=-1)) - 1) * 52 / soft))
    return value + 120 * folds * inside


def affine_of(zooms: tuple[float, ...], shape: tuple[int, ...], *, oblique: bool) -> np.ndarray:
    """Return an affine that puts the grid's centre near the origin."""
    linear = (TILT if oblique else np.eye(3)) @ np.diag(zooms)
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = [7.0, -11, 5] - linear @ (np.array(shape) - 1) / 2
    return affine


def motions(n: int, most_mm: float = 3.0, most_degrees: float = 3.0, seed: int = 3) -> np.ndarray:
    """Return random motions, none for the first volume."""
    rng = np.random.default_rng(seed)
    q = rng.uniform(-1, 1, (n, 6)) * ([most_mm] * 3 + [np.radians(most_degrees)] * 3)
    q[0] = 0
    return q


def moving_head(
    q: np.ndarray,
    *,
    shape: tuple[int, ...] = (64, 64, 36),
    zooms: tuple[float, ...] = (3, 3, 4),
    noise: float = 0.0,
    oblique: bool = True,
    seed: int = 4,
) -> MovingHead:
    """Return the series of a head with a known motion.

    Parameters
    ----------
    q : array (n, 6), the motion of each volume about the grid's centre
    noise : standard deviation, as a part of the brightest tissue
    """
    affine = affine_of(zooms, shape, oblique=oblique)
    mm = (np.stack(np.indices(shape), axis=-1) - (np.array(shape) - 1) / 2) @ affine[:3, :3].T
    rng = np.random.default_rng(seed)
    volumes = np.empty((len(q), *shape), np.float32)
    for volume, motion in zip(volumes, rigid.matrix(q), strict=True):
        volume[:] = head(mm @ motion[:3, :3].T + motion[:3, 3], max(zooms))
        volume += noise * BRIGHT * rng.standard_normal(shape)
    return MovingHead(volumes, q, affine)


def rms(found: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Return the root mean square errors of motions: mm and degrees."""
    squares = (np.asarray(found) - true) ** 2
    mm, radians = np.sqrt(squares[:, :3].mean()), np.sqrt(squares[:, 3:].mean())
    return float(mm), float(np.degrees(radians))


def save(path, volumes, affine, dtype=np.int16):
    """Write a series with a header of which outputs have to keep much; return its path."""
    image = nb.Nifti1Image(np.moveaxis(volumes, 0, -1), affine)
    image.header.set_data_dtype(dtype)
    image.header.set_zooms((*image.header.get_zooms()[:3], 1.75))
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, 1)
    image.set_sform(affine, 2)
    image.header["cal_max"] = 900
    image.to_filename(path)
    return path
