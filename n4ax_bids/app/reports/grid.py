"""The voxels of an image as a report shows them: axes turned to right, anterior, superior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from n4ax_bids.core.field import LogField
from n4ax_bids.core.field import sample as sample_field
from n4ax_bids.io import geometry
from n4ax_bids.io.volume import Volume


@dataclass(frozen=True)
class Grid:
    """Axes of an image, turned to right, anterior and superior."""

    axes: tuple[int, ...]
    """the axes of the image that go to the right, to anterior and to superior"""
    flipped: tuple[bool, ...]
    shape: tuple[int, ...]
    mm: tuple[tuple[float, float], ...] = ()
    """of each turned axis: position of the first plane in the scanner, and the distance from it to
    the next one along the same direction; mm, at the centre of the plane"""

    def turned(self, array: np.ndarray) -> np.ndarray:
        """Return a view of an array, 2D or 3D, with its axes turned."""
        array = array.reshape(self.shape, order="F").transpose(self.axes)
        return array[tuple(slice(None, None, -1 if flip else None) for flip in self.flipped)]

    def values(self, array: np.ndarray) -> Callable[[tuple[np.ndarray, ...]], np.ndarray]:
        """Return a function that gives the values of an array at voxels of the turned axes."""
        view = self.turned(array)
        return lambda indices: view[np.ix_(*indices)]

    def field(self, log_field: LogField) -> Callable[[tuple[np.ndarray, ...]], np.ndarray]:
        """Return a function that gives ln b at voxels of the turned axes."""
        n_axes = len(log_field.clamp)

        def values(indices: tuple[np.ndarray, ...]) -> np.ndarray:
            voxels = [np.zeros(1, int)] * 3
            for axis, flip, index in zip(self.axes, self.flipped, indices, strict=True):
                voxels[axis] = self.shape[axis] - 1 - index if flip else index
            found = sample_field(log_field, voxels[:n_axes])
            return found.reshape([each.size for each in voxels]).transpose(self.axes)

        return values


def grid_of(image: Volume) -> Grid:
    """Return the grid of an image."""
    axes, flipped = geometry.closest_axes(image.affine)
    shape = (*image.data.shape, 1)[:3]
    return Grid(axes, flipped, shape, _positions(image, axes, flipped, shape))


def _positions(
    image: Volume, axes: tuple[int, ...], flipped: tuple[bool, ...], shape: tuple[int, ...]
) -> tuple[tuple[float, float], ...]:
    """Return start and step of each turned axis, see `Grid.mm`."""
    lengths = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    unit = float(image.zooms[0] / lengths[0]) if lengths[0] else 1.0  # mm per unit of the affine
    centre = np.array([(n - 1) / 2 for n in shape])
    found = []
    for world, (axis, flip) in enumerate(zip(axes, flipped, strict=True)):
        at = centre.copy()
        at[axis] = shape[axis] - 1 if flip else 0
        start = float(image.affine[world, :3] @ at + image.affine[world, 3])
        step = float(image.affine[world, axis]) * (-1 if flip else 1)
        found.append((start * unit, step * unit))
    return tuple(found)
