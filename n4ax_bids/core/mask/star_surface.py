"""A closed surface around a centre with one radius for each direction: the outside of the brain.

Along each ray from the centre, tissue as bright as the brain favours a larger radius, and darkness
(skull, air) a smaller one. Neighbouring rays are coupled, first tightly, then less, so that the
surface closes holes in the skull and bridges sulci.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

N_RAYS = 800
N_NEIGHBOURS = 6
TABLE = (48, 96)
"""cells of height and of longitude, to look up the radius of a direction"""
BRIGHTNESS = (0.15, 0.35, 0.5, 0.6, 1.5, 1.9)
"""intensities in medians of the brain; fat and the fluid of a T2w image are above, skull and air
far below"""
DARK_COST = (4.0, 2.0, 0.5)
"""cost of each mm at the first three intensities"""
TISSUE_GAIN = 0.5
BRIGHT_GAIN = 0.1
"""gain of each mm above the last intensity"""
MOST_COST = 60.0
TIGHTNESS = (3.0, 1.0, 0.3, 0.1)
STEPS = 8
"""steps at each tightness"""


class Sphere(NamedTuple):
    """Evenly spread directions, the same in every call."""

    directions: np.ndarray
    """float32 (N_RAYS, 3), unit vectors"""
    neighbours: np.ndarray
    """int (N_RAYS, N_NEIGHBOURS)"""
    nearest: np.ndarray
    """int (*TABLE, 4), the rays nearest to each cell of the table"""
    weights: np.ndarray
    """float (*TABLE, 4), their weights"""


@lru_cache(maxsize=1)
def sphere() -> Sphere:
    """Return directions on a golden spiral, with their neighbours and a table to look them up."""
    number = np.arange(N_RAYS) + 0.5
    directions = _unit(1 - 2 * number / N_RAYS, np.pi * (1 + 5**0.5) * number)
    tree = cKDTree(directions)
    neighbours = tree.query(directions, N_NEIGHBOURS + 1)[1][:, 1:]
    height = -1 + 2 * (np.arange(TABLE[0]) + 0.5) / TABLE[0]
    longitude = 2 * np.pi * (np.arange(TABLE[1]) + 0.5) / TABLE[1]
    cells = _unit(*np.meshgrid(height, longitude, indexing="ij"))
    away, nearest = tree.query(cells, 4)
    weights = np.exp(-((away / 0.08) ** 2))
    return Sphere(
        directions.astype(np.float32),
        neighbours,
        nearest,
        weights / weights.sum(axis=-1, keepdims=True),
    )


def _unit(height: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    across = np.sqrt(1 - height**2)
    return np.stack([np.cos(longitude) * across, np.sin(longitude) * across, height], axis=-1)


class Surface(NamedTuple):
    """A surface, and whether skull or the image's border follows it."""

    radii: np.ndarray
    """float32 (N_RAYS,), mm"""
    enclosed: np.ndarray
    """bool (N_RAYS,), whether the ray reaches darkness shortly after the surface"""
    cut: np.ndarray
    """bool (N_RAYS,), whether the ray leaves the image shortly after the surface"""


def fit_surface(
    values: np.ndarray, zooms: Sequence[float], centre: np.ndarray, unit: float, strictness: float
) -> Surface:
    """Fit the surface around a centre.

    Parameters
    ----------
    values : array (I, J, K), corrected intensities in medians of the brain
    zooms : voxel size per axis, mm
    centre : array (3,), mm from the centre of voxel 0
    unit : size of the head, 1 for a human's
    strictness : factor on the cost of darkness

    Returns
    -------
    Surface
    """
    around, radii = sphere(), np.arange(10, 112, 2, dtype=np.float32)
    along, beyond = _rays(values, zooms, centre, around.directions, radii * unit)
    dark = [strictness * cost for cost in DARK_COST]
    gains = [*dark, -TISSUE_GAIN, -TISSUE_GAIN, -BRIGHT_GAIN]
    cost = np.cumsum(np.interp(along, BRIGHTNESS, gains), axis=1, dtype=np.float32) * 2
    cost = np.minimum(cost - cost.min(axis=1, keepdims=True), MOST_COST)
    radius = radii[cost.argmin(axis=1)]
    radius = np.minimum(radius, 1.1 * np.median(radius))
    for tightness in TIGHTNESS:
        for _ in range(STEPS):
            wanted = radius[around.neighbours].mean(axis=1)
            apart = (radii - wanted[:, None]) ** 2
            radius = radii[(cost + tightness / 2 * apart).argmin(axis=1)]
    after = (radii > radius[:, None]) & (radii <= radius[:, None] + 10)
    enclosed = np.where(after, along, np.inf).min(axis=1) < 0.5
    soon = after & (radii <= radius[:, None] + 4)
    cut = (soon & beyond).any(axis=1)
    return Surface(radius * unit, enclosed, cut)


def _rays(
    values: np.ndarray,
    zooms: Any,
    centre: np.ndarray,
    directions: np.ndarray,
    radii: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return intensities along the rays, 0 beyond the image, and which are beyond it."""
    zooms = np.asarray(zooms, np.float32)
    points = centre + directions[:, None] * radii[:, None]
    index = np.rint(points / zooms).astype(int)
    beyond = ((index < 0) | (index >= values.shape)).any(axis=-1)
    inside = np.clip(index, 0, np.array(values.shape) - 1)
    return np.where(beyond, 0, values[tuple(np.moveaxis(inside, -1, 0))]), beyond


def depth(
    surface: Surface, shape: Sequence[int], zooms: Sequence[float], centre: np.ndarray
) -> np.ndarray:
    """Return the depth in mm of each voxel below the surface along its ray, negative outside.

    Parameters
    ----------
    surface : Surface
    shape, zooms : shape and voxel sizes (mm) of the grid, with voxel 0 at the origin
    centre : array (3,), mm

    Returns
    -------
    float32 array (`shape`)
    """
    around = sphere()
    table = (surface.radii[around.nearest] * around.weights).sum(axis=-1).astype(np.float32)
    x, y, z = np.ix_(
        *(
            (np.arange(n) * zoom - c).astype(np.float32)
            for n, zoom, c in zip(shape, zooms, centre, strict=True)
        )
    )
    flat = x * x + y * y
    distance = np.sqrt(flat + z * z)
    height = np.divide(z, distance, out=np.zeros_like(distance), where=distance > 0)
    row = np.minimum(((height + 1) * (TABLE[0] / 2)).astype(int), TABLE[0] - 1)
    longitude = np.arctan2(y, x) % (2 * np.pi)
    column = np.minimum((longitude * (TABLE[1] / 2 / np.pi)).astype(int), TABLE[1] - 1)
    return table[row, column] - distance
