"""The grids of a fit: coarse for the network, blocks of voxels for the losses; on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PAD = 32
"""images are padded to a multiple of this many voxels, so that they share compiled programs"""
LEAST = 4
"""coarse voxels that an axis keeps"""


@dataclass(frozen=True)
class Axis:
    """One axis of an image on its three grids."""

    n: int
    """voxels"""
    factor: int
    """voxels for each coarse one"""
    block: int
    """voxels for each block"""
    padded: int
    """voxels with padding"""
    regions: tuple[int, ...]
    """blocks of each kind of region"""
    short: bool
    """whether the factor is lowered, because the axis is too short for the one that is wanted"""

    @property
    def n_coarse(self) -> int:
        """Coarse voxels without padding."""
        return -(-self.n // self.factor)

    @property
    def n_blocks(self) -> int:
        """Blocks without padding."""
        return -(-self.n // self.block)

    def shrink(self) -> np.ndarray:
        """Return (n, padded coarse): a triangle of twice the factor, so that nothing aliases."""
        matrix = np.zeros((self.n, -(-self.padded // self.factor)))
        centre = (np.arange(self.n_coarse) + 0.5) * self.factor - 0.5
        away = np.abs(np.arange(self.n)[:, None] - centre) / self.factor
        weight = np.maximum(1 - away, 0)
        matrix[:, : self.n_coarse] = weight / weight.sum(axis=0)
        return matrix

    def means(self) -> np.ndarray:
        """Return (n, padded blocks): mean of a block, over its voxels that the image has."""
        matrix = np.zeros((self.n, self.padded // self.block))
        matrix[np.arange(self.n), np.arange(self.n) // self.block] = 1
        return matrix / self.block

    def enlarge(self, positions: np.ndarray) -> np.ndarray:
        """Return (padded coarse, positions): linear interpolation, constant beyond the ends.

        Parameters
        ----------
        positions : in voxels
        """
        place = (np.clip(positions, 0, self.n - 1) + 0.5) / self.factor - 0.5
        place = np.clip(place, 0, self.n_coarse - 1)
        coarse = np.arange(-(-self.padded // self.factor))[:, None]
        return np.maximum(1 - np.abs(coarse - place), 0)

    def block_centres(self) -> np.ndarray:
        """Return the place of each block's centre, in voxels; the last one may be cut short."""
        first = np.arange(self.padded // self.block) * self.block
        last = np.minimum(first + self.block, max(self.n, 1)) - 1
        centre = (first + last) / 2
        return np.minimum(centre, centre[self.n_blocks - 1])


def axis_of(n: int, downsample: int, block: int, regions: Sequence[int], mm: float = 1.0) -> Axis:
    """Return an axis with its factor, lowered where it would leave fewer than four samples.

    Parameters
    ----------
    n : voxels
    downsample, block, regions : sizes in voxels of 1 mm; regions are multiples of the block
    mm : size of a voxel; on an axis of 2 mm and more all sizes are halved, of 4 mm and more
        quartered, and so on
    """
    coarser = 2 ** max(0, math.floor(math.log2(1.01 * mm)))
    wanted = max(1, downsample // coarser)
    factor = max(1, min(wanted, n // LEAST))
    fits = max(b for b in range(1, block + 1) if block % b == 0 and b <= factor)
    fits = math.gcd(fits, max(1, block // coarser))
    sizes = tuple(max(1, size // coarser // fits) for size in regions)
    whole = math.lcm(PAD, *(fits * size for size in sizes))
    return Axis(n, factor, fits, -(-n // whole) * whole, sizes, factor < wanted)


def contracted(values: Any, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Sum an array against one matrix for each axis, in float32."""
    values = np.asarray(values, np.float32)
    for axis, matrix in enumerate(matrices):
        values = np.moveaxis(np.tensordot(values, matrix.astype(np.float32), (axis, 0)), -1, axis)
    return values
