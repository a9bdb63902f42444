"""A NIfTI file of any number of volumes, read and written one volume at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from isal import igzip

from n4ax_bids.io import placement, voxels
from n4ax_bids.io.atomic import replacing
from n4ax_bids.io.header import decompressed, failures, read_header
from n4ax_bids.io.kinds import require_file
from n4ax_bids.io.volume import clear_values, require_name, scaled


@dataclass(frozen=True)
class Volumes:
    """A file whose voxels are read volume by volume; only one volume is in memory."""

    path: Path
    header: nb.Nifti1Header
    """as in the file"""
    affine: np.ndarray
    """4×4, voxel to mm, RAS+"""
    shape: tuple[int, int, int]
    """of one volume; the last axis has one voxel for an image of two axes"""
    n_volumes: int
    """product of the axes after the third one"""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each volume (I, J, K), float32 in Fortran order; slope and intercept are applied.

        Raises
        ------
        OSError, ValueError
            If the file is not complete; one line that names it.
        """
        dtype = voxels.real_dtype(self.path, self.header)
        with (
            failures(self.path),
            open(self.path, "rb") as raw,
            decompressed(raw) as stream,
        ):
            stream.seek(voxels.first_byte(self.path, self.header))
            for number in range(self.n_volumes):
                stored = np.empty(self.shape, dtype, order="F")
                view: Any = stored.reshape(-1, order="F").view(np.uint8)
                if not voxels.filled(stream, memoryview(view)):
                    raise ValueError(
                        f"{self.path}: truncated in volume {number} of {self.n_volumes}"
                    )
                yield scaled(stored, self.header)
            voxels.read_to_the_end(self.path, stream)


def open_volumes(path: str | Path) -> Volumes:
    """Read the header of a file with one volume or more.

    Raises
    ------
    OSError, ValueError
        If it is no NIfTI file of real numbers with two axes or more; one line that names it.
    """
    path = Path(path)
    require_file(path)
    with failures(path), open(path, "rb") as raw, decompressed(raw) as stream:
        header, _ = read_header(path, stream)
        dtype = voxels.real_dtype(path, header)
        shape = tuple(int(n) for n in header.get_data_shape())
        if len(shape) < 2 or min(shape) < 1:
            raise ValueError(f"{path}: shape {shape}; expected two axes or more, none empty")
        size_i, size_j, size_k = (*shape, 1)[:3]
        n_volumes = int(np.prod(shape[3:], dtype=np.int64))
        affine = placement.affine(header)
        n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
        voxels.require_room(path, stream, voxels.first_byte(path, header), shape, n_bytes)
    return Volumes(path, header, affine, (size_i, size_j, size_k), n_volumes)


@contextmanager
def writing(path: str | Path, like: Volumes) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends a volume to a float32 file with the header of another one.

    The file appears under its name when the block ends, complete or not at all. The header keeps
    its place, its description and its extensions, but not the fields that describe the values.

    Raises
    ------
    OSError, ValueError
        If the file cannot be written under this name.
    """
    require_name(path)
    header = like.header.copy()
    header.set_data_dtype(np.float32)
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header.set_data_offset(0)  # nibabel's code for "directly after the extensions"
    clear_values(header)
    with replacing(path) as part, open(part, "xb") as raw:
        stream: Any = raw
        if str(path).endswith(".gz"):
            stream = igzip.IGzipFile("", "wb", compresslevel=2, fileobj=raw, mtime=0)
        header.write_to(stream)
        stored = np.dtype(np.float32).newbyteorder(header.endianness)

        def append(volume: np.ndarray) -> None:
            flat: Any = np.asarray(volume, stored).reshape(-1, order="F")
            stream.write(memoryview(flat.view(np.uint8)))

        yield append
        stream.close()
