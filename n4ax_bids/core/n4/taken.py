"""The samples that enter a solve, on the host or on a device, and how they are laid out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np

from n4ax_bids.core.n4 import rows as voxels
from n4ax_bids.core.n4 import rows_on_device
from n4ax_bids.core.n4.rows import Layout
from n4ax_bids.core.n4.rows_on_device import Grid, Seen
from n4ax_bids.core.n4.storage import Storage
from n4ax_bids.core.n4.whole_rows import WholeRows

MOST_SLABS = 64

Batch: TypeAlias = WholeRows | list[Storage]
"""voxels of several images: with one more axis in front, or one by one"""


class Taken(Protocol):
    """The samples that enter a solve, of one of the kinds below."""

    @property
    def n_voxels(self) -> int:
        """Number of samples inside the mask."""

    @property
    def size(self) -> tuple[Any, ...]:
        """What is equal for images that can share a solve."""

    @property
    def length(self) -> int:
        """Length of the list of voxels."""

    @property
    def most_slabs(self) -> int:
        """Largest number of slabs; 0 if the samples cannot be divided."""

    def n_bytes(self, slabs: int) -> int:
        """Return how many bytes the solve takes in a number of slabs."""

    def lay_out(self, slabs: int, first: int) -> tuple[Storage, Layout]:
        """Lay out the samples in a number of slabs; see `first` of `rows.lay_out`."""


@dataclass(frozen=True)
class TakenListed:
    """Samples that were listed on the host."""

    found: voxels.Found
    shape: tuple[int, ...]
    """(Z, Y, X) of the grid of samples"""
    dtype: np.dtype
    """of the solve"""
    most_slabs: int = MOST_SLABS

    @property
    def n_voxels(self) -> int:
        return self.found.n_listed

    @property
    def size(self) -> tuple[Any, ...]:
        sizes = voxels.sizes_of(self.found, self.shape)
        return (*sizes, str(self.dtype), self.found.weights is None)

    @property
    def length(self) -> int:
        return int(self.size[0])

    def n_bytes(self, slabs: int) -> int:
        return voxels.n_bytes(self.found, self.dtype.itemsize, slabs)

    def lay_out(self, slabs: int, first: int) -> tuple[Storage, Layout]:
        made, layout = voxels.lay_out(self.found, self.shape, self.dtype, slabs=slabs, first=first)
        return jax.device_put(made), layout


@dataclass(frozen=True)
class TakenOnDevice:
    """The samples of an image on a device; they stay there."""

    grid: Grid
    """of some images"""
    number: int
    """of the image in the grid"""
    group: int
    """number of the grid"""
    found: Seen
    dtype: np.dtype
    """of the solve"""
    most_slabs: int = 0

    @property
    def n_voxels(self) -> int:
        return self.found.n_voxels

    @property
    def size(self) -> tuple[Any, ...]:
        return (*self._shape, str(self.dtype), self.grid.weight is None, self.group)

    @property
    def length(self) -> int:
        return math.prod(self.padded)

    def n_bytes(self, slabs: int) -> int:
        return rows_on_device.n_bytes(self.found, self.dtype.itemsize)

    @property
    def padded(self) -> tuple[int, int]:
        """Number and length of the rows of this image alone."""
        return rows_on_device.sizes_of([self.found])

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.grid.inside.shape[1:]

    def lay_out(self, slabs: int, first: int) -> tuple[Storage, Layout]:
        return self._laid_out(self.number, [self], first)

    def with_others(self, every: Sequence[TakenOnDevice], first: int) -> tuple[WholeRows, Layout]:
        """Lay out images of one grid together, with one more axis in front."""
        return self._laid_out(np.array([one.number for one in every]), every, first)

    def _laid_out(
        self, number: Any, every: Sequence[TakenOnDevice], first: int
    ) -> tuple[WholeRows, Layout]:
        begins = np.array([one.found.columns[0] for one in every])
        made = rows_on_device.lay_out(
            self.grid,
            number,
            begins if np.ndim(number) else begins[0],
            sizes=rows_on_device.sizes_of([one.found for one in every]),
            dtype=str(self.dtype),
            first=first,
        )
        return made, rows_on_device.layout_of(self._shape)


def lay_out_alike(taken: Sequence[Taken]) -> tuple[Batch, list[Layout]]:
    """Lay out images of equal `size` with equal sizes."""
    there = [one for one in taken if isinstance(one, TakenOnDevice)]
    if there:
        made, layout = there[0].with_others(there, voxels.FIRST)
        return made, [layout] * len(there)
    rows, layouts = zip(*(one.lay_out(0, voxels.FIRST) for one in taken), strict=True)
    return list(rows), list(layouts)
