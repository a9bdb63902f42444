"""One NIfTI file with a series of volumes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import nibabel as nb
import numpy as np
from isal import igzip

from n4ax_bids.io import placement
from n4ax_bids.io.header import decompressed, failures, read_header
from n4ax_bids.io.kinds import require_file
from n4ax_bids.io.volume import Volume, scaled
from n4ax_bids.io.voxels import (
    MOST_COMPRESSED,
    Digested,
    filled,
    first_byte,
    read_to_the_end,
    real_dtype,
)

TRUNCATED = "the file ends before it"


class Series(NamedTuple):
    """A series in memory."""

    volume: Volume
    """its data have four axes, the last one for the volumes; 0 where the file ends early"""
    n_there: int
    """volumes that are complete in the file"""

    @property
    def n_volumes(self) -> int:
        """Volumes that the header declares."""
        return int(self.volume.data.shape[3])

    @property
    def missing(self) -> dict[int, str]:
        """The volumes that the file does not have completely, and why."""
        return dict.fromkeys(range(self.n_there, self.n_volumes), TRUNCATED)

    def at(self, number: int) -> np.ndarray:
        """Return one volume (I, J, K), float32."""
        found: np.ndarray = self.volume.data[..., number]
        return found

    def only(self, numbers: Sequence[int]) -> Series:
        """Return a series of some of the volumes, such as those of a DWI series with b = 0.

        Raises
        ------
        ValueError
            If they are not at least two numbers of volumes in rising order.
        """
        chosen, last = list(numbers), self.n_volumes - 1
        rising = all(a < b for a, b in itertools.pairwise(chosen))
        if len(chosen) < 2 or not rising or chosen[0] < 0 or chosen[-1] > last:
            raise ValueError(
                f"{self.volume.path}: volumes are {chosen}; expected at least two numbers from 0 "
                f"to {last} in rising order"
            )
        data = np.asfortranarray(self.volume.data[..., chosen])
        header = self.volume.header.copy()
        header.set_data_shape(data.shape)
        whole = dataclasses.replace(self.volume, data=data, header=header)
        return Series(whole, sum(number < self.n_there for number in chosen))


def load(path: str | Path) -> Series:
    """Read a series.

    A file that ends early is read as far as it goes, if at least half of its volumes are there.

    Raises
    ------
    OSError, ValueError
        If the file does not exist, or is not a NIfTI file with several volumes of real numbers,
        or its compressed data are damaged; one line that names it.
    """
    path = Path(path)
    require_file(path)
    with failures(path), open(path, "rb", buffering=0) as file:
        raw = Digested(file)
        with decompressed(cast(IO[bytes], raw)) as stream:
            header, notes = read_header(path, stream)
            shape, dtype = _layout(path, header)
            stored, n_there = _read(path, stream, header, shape, dtype)
        data = scaled(stored, header)
        affine = placement.affine(header)
        sha256 = raw.digest()
    volume = Volume(data, affine, header, path, dtype.newbyteorder("="), sha256, notes)
    return Series(volume, n_there)


def _layout(path: Path, header: nb.Nifti1Header) -> tuple[tuple[int, ...], np.dtype]:
    dtype = real_dtype(path, header)
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 4 or min(shape) < 1 or shape[3] < 2:
        raise ValueError(
            f"{path}: shape {shape}; expected a series: four axes, with at least 2 volumes"
        )
    return shape, dtype


def _read(
    path: Path,
    stream: IO[bytes],
    header: nb.Nifti1Header,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> tuple[np.ndarray, int]:
    """Read voxels as stored, in Fortran order; return them with the number of whole volumes."""
    each = int(np.prod(shape[:3], dtype=object)) * dtype.itemsize
    start = first_byte(path, header)
    size = path.stat().st_size
    packed = isinstance(stream, igzip.IGzipFile)
    most = size * MOST_COMPRESSED if packed else max(0, size - start)
    _require_half(path, most // each, shape[3])  # before memory is allocated
    stream.seek(start)
    stored = np.zeros(shape, dtype, order="F")
    target = memoryview(cast(Any, stored.reshape(-1, order="F").view(np.uint8)))
    n_there = 0
    for number in range(shape[3]):
        if not filled(stream, target[number * each : (number + 1) * each]):
            stored[..., number] = 0
            break
        n_there = number + 1
    _require_half(path, n_there, shape[3])
    if packed and n_there == shape[3]:
        with suppress(EOFError):  # the file ends within the checksum, after the last volume
            read_to_the_end(path, stream)
    return stored, n_there


def _require_half(path: Path, n_there: int, n_volumes: int) -> None:
    if 2 * n_there < n_volumes:
        raise ValueError(
            f"{path}: truncated, at most {n_there} of {n_volumes} volumes are there; expected all "
            "of them, or at least half"
        )
