"""The voxels of one NIfTI file as they are stored, its header, and the digest of its bytes."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nb
import numpy as np
from isal import igzip

from n4ax_bids.io.header import decompressed, failures, read_header
from n4ax_bids.io.kinds import require_file

FOR_A_SERIES = "n4ax-realign, or n4ax-bids --method realign --realign-4d, takes a series"
MOST_COMPRESSED = 1100
"""bytes per compressed byte; deflate reaches at most 1032"""
MOST_BEHIND = 2**26
"""bytes after the voxels that are read to reach the end of the file, where gzip's checksum is"""
PIECE = 1 << 20
"""bytes read at a time: a gzip stream copies each piece, and a small copy stays in the cache"""


def read(path: Path) -> tuple[np.ndarray, nb.Nifti1Header, tuple[str, ...], str]:
    """Read a file.

    Returns
    -------
    stored : array in Fortran order, the voxels as stored, without trailing axes of length 1
    header : header of the file
    notes : what a user should know about the header
    sha256 : digest of the file's bytes

    Raises
    ------
    OSError, ValueError
        As `n4ax_bids.io.volume.load`.
    """
    require_file(path)
    with failures(path), open(path, "rb", buffering=0) as file:
        raw = Digested(file)
        with decompressed(cast(IO[bytes], raw)) as stream:
            header, notes = read_header(path, stream)
            shape, dtype = layout(path, header)
            stored = _read_voxels(path, stream, header, shape, dtype)
        return stored, header, notes, raw.digest()


class Digested(io.RawIOBase):
    """A file that computes the digest of its bytes when they are read for the first time."""

    def __init__(self, file: io.FileIO) -> None:
        self._file, self._digest, self._n_digested = file, hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        start = self._file.tell()
        n = self._file.readinto(buffer)
        if start <= self._n_digested < start + n:
            self._digest.update(memoryview(buffer).cast("B")[self._n_digested - start : n])
            self._n_digested = start + n
        return n

    def digest(self) -> str:
        """Return the digest of the whole file, after reading what has not been read yet."""
        self.seek(self._n_digested)
        buffer = bytearray(1 << 18)
        while self.readinto(buffer):
            pass
        return self._digest.hexdigest()


def layout(path: Path, header: nb.Nifti1Header) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of the voxels; refuse anything but one image of real numbers."""
    dtype = real_dtype(path, header)
    shape = tuple(int(n) for n in header.get_data_shape())
    if not shape or min(shape) < 1:
        raise ValueError(f"{path}: shape {shape}; expected 2 or 3 axes")
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        n = int(np.prod(shape[3:]))
        raise ValueError(
            f"{path}: {n} volumes of shape {shape[:3]}; expected a single one ({FOR_A_SERIES})"
        )
    if len(shape) < 2:
        raise ValueError(f"{path}: shape {shape}; expected 2 or 3 axes")
    return shape, dtype


def real_dtype(path: Path, header: nb.Nifti1Header) -> np.dtype:
    """Return the type of the voxels; refuse anything but real numbers."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        kind = {"c": "complex", "V": "colour or binary"}.get(dtype.kind, str(dtype))
        raise ValueError(f"{path}: {kind} voxels ({header['datatype']}); expected real numbers")
    return dtype


def first_byte(path: Path, header: nb.Nifti1Header) -> int:
    """Return where the voxels begin in a file."""
    offset = float(header["vox_offset"])
    if not 0 <= offset < np.iinfo(np.int64).max:
        raise ValueError(f"{path}: the header says that voxels begin at byte {offset}")
    # As in the NIfTI library, an offset into the header itself means directly after it.
    return max(int(offset), header.sizeof_hdr)


def _read_voxels(
    path: Path,
    stream: IO[bytes],
    header: nb.Nifti1Header,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> np.ndarray:
    """Read the voxels as stored, in Fortran order, straight into the array."""
    n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    start = first_byte(path, header)
    require_room(path, stream, start, shape, n_bytes)  # before memory is allocated
    stream.seek(start)
    stored = np.empty(shape, dtype, order="F")
    buffer: Any = stored.reshape(-1, order="F").view(np.uint8)
    done = fill(stream, memoryview(buffer))
    if done < n_bytes:
        raise ValueError(f"{path}: truncated, {done} of {n_bytes} bytes of voxels are there")
    read_to_the_end(path, stream)
    return stored


def fill(stream: IO[bytes], target: memoryview) -> int:
    """Fill memory from a stream; return how many bytes there were, fewer if the stream ends."""
    done, source = 0, cast(io.RawIOBase, stream)
    while done < len(target):
        n = source.readinto(target[done : done + PIECE])
        if not n:
            break
        done += n
    return done


def filled(stream: IO[bytes], target: memoryview) -> bool:
    """Fill memory from a stream; return False if the stream ends before."""
    try:
        return fill(stream, target) == len(target)
    except EOFError:  # the compressed data end
        return False


def require_room(
    path: Path, stream: IO[bytes], start: int, shape: tuple[int, ...], n_bytes: int
) -> None:
    """Refuse a file that is too small or far too large for the voxels that its header declares."""
    size = path.stat().st_size
    if isinstance(stream, igzip.IGzipFile):
        if n_bytes > size * MOST_COMPRESSED:
            raise ValueError(f"{path}: truncated, {shape} voxels cannot be in so small a file")
        return
    there = max(0, size - start)
    if there < n_bytes:
        raise ValueError(f"{path}: truncated, {there} of {n_bytes} bytes of voxels are there")
    _require_end(path, there - n_bytes)


def read_to_the_end(path: Path, stream: IO[bytes]) -> None:
    """Read what follows the voxels, because gzip has its checksum at the end."""
    n_bytes = 0
    while piece := stream.read(1 << 20):
        n_bytes += len(piece)
        _require_end(path, n_bytes)


def _require_end(path: Path, n_behind: int) -> None:
    if n_behind > MOST_BEHIND:
        raise ValueError(
            f"{path}: more than {MOST_BEHIND} bytes follow the voxels that the header "
            "declares; expected the end of the file"
        )
