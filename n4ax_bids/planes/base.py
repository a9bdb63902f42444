"""What the verb `stream` reads from and writes to; arrays of any kind."""

from __future__ import annotations

import mmap
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Source(Protocol):
    """A stack that is read a few planes at a time."""

    name: str
    """for messages"""
    shape: tuple[int, int, int]
    """planes, rows, columns"""
    dtype: np.dtype
    zooms: tuple[float, float, float] | None
    """size of a voxel on these axes in mm; None if the source does not say"""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive planes, an array of its own.

        Raises
        ------
        OSError, ValueError
            If they cannot be read; one line that names the file.
        """


class Sink(Protocol):
    """A stack that is written a few planes at a time, in order."""

    def write(self, start: int, planes: np.ndarray) -> None:
        """Write consecutive planes."""

    def flush(self) -> None:
        """Make sure that what was written survives an interruption of this process."""

    def close(self) -> None:
        """Put the finished stack in place under its final name."""

    def stop(self) -> None:
        """Give up: the unfinished stack keeps its name that ends in .partial."""


def partial_name(path: Path) -> Path:
    """Return the name of an unfinished output."""
    return path.with_name(path.name + ".partial")


class ArraySource:
    """An array of numpy, zarr, HDF5 or another library that can be sliced."""

    def __init__(self, array: Any, name: str = "vol") -> None:
        self.name, self._array = name, array
        n_z, n_y, n_x = (int(n) for n in array.shape)
        self.shape, self.dtype = (n_z, n_y, n_x), np.dtype(array.dtype)
        self.zooms: tuple[float, float, float] | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return a copy of consecutive planes."""
        planes = np.array(self._array[start:stop])
        forget(self._array)
        return planes


class ArraySink:
    """A caller's array; it is filled in place."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def write(self, start: int, planes: np.ndarray) -> None:
        """Write consecutive planes."""
        self._array[start : start + len(planes)] = planes

    def flush(self) -> None:
        """Write changed pages of a memory map to its file."""
        if isinstance(self._array, np.memmap):
            self._array.flush()
            forget(self._array)

    def close(self) -> None:
        """Write what is left."""
        self.flush()

    def stop(self) -> None:
        """Leave the array as it is: some of its planes are written."""
        self.flush()


def forget(array: Any) -> None:
    """Let the system take back the memory of a memory map; its file keeps the values."""
    base = array
    while isinstance(base, np.ndarray):
        mode = getattr(base, "mode", None)
        mapped = getattr(base, "_mmap", None)
        if mapped is not None:
            # A private map ("c") would lose what was written to it.
            if mode in ("r", "r+", "w+"):
                with suppress(AttributeError, ValueError, OSError):
                    mapped.madvise(mmap.MADV_DONTNEED)
            return
        base = base.base
