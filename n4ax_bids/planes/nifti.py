"""NIfTI files by slabs: their last axis counts the planes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import nibabel as nb
import numpy as np
from isal import igzip

from n4ax_bids.io import placement
from n4ax_bids.io.header import failures, load_header
from n4ax_bids.planes.base import partial_name


class NiftiSource:
    """A file of three axes; a compressed one is decompressed again for each pass."""

    def __init__(self, path: Path) -> None:
        self.name, self.header = str(path), load_header(path)
        shape = tuple(int(n) for n in self.header.get_data_shape())
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3:
            raise ValueError(f"{path}: shape {shape}; expected three axes")
        self.shape = (shape[2], shape[1], shape[0])
        self.dtype = self.header.get_data_dtype()
        if self.dtype.kind not in "iuf":
            raise ValueError(f"{path}: voxels of type {self.dtype}; expected real numbers")
        x, y, z = placement.zooms(self.header, 3)
        self.zooms: tuple[float, float, float] | None = (z, y, x)
        slope, inter = self.header.get_slope_inter()
        self._scale = (1.0 if slope is None else slope, inter or 0.0)
        self._start = max(int(self.header["vox_offset"]), self.header.sizeof_hdr)
        self._path = path
        self._stream: Any = None
        self._is_gzip = _is_gzip(path)
        self._require_room()

    def _require_room(self) -> None:
        there = self._path.stat().st_size - self._start
        needed = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        if not self._is_gzip and there < needed:
            raise ValueError(
                f"{self._path}: truncated, {max(0, there)} of {needed} bytes of voxels are there"
            )

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive planes; slope and intercept are applied."""
        plane = self.shape[1] * self.shape[2]
        n_bytes = (stop - start) * plane * self.dtype.itemsize
        with failures(self._path):
            stream = self._at(self._start + start * plane * self.dtype.itemsize)
            stored = bytearray(n_bytes)
            done, view = 0, memoryview(stored)
            while done < n_bytes:
                n = stream.readinto(view[done:])
                if not n:
                    raise ValueError(f"{self._path}: truncated in plane {start} or after it")
                done += n
        planes = np.frombuffer(stored, self.dtype).reshape(stop - start, *self.shape[1:])
        slope, inter = self._scale
        if (slope, inter) == (1.0, 0.0):
            return planes
        return (planes.astype(np.float64) * slope + inter).astype(np.float32)

    def _at(self, offset: int) -> Any:
        """Return the stream of voxels at an offset; backwards means from the beginning again."""
        if self._stream is None or self._stream.tell() > offset:
            self.close()
            self._stream = (
                igzip.open(self._path, "rb") if self._is_gzip else open(self._path, "rb")
            )
        self._stream.seek(offset)
        return self._stream

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


class NiftiSink:
    """A float32 file, written plane by plane under a name that ends in .partial."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        zooms: tuple[float, float, float],
        like: nb.Nifti1Header | None = None,
        *,
        resume_at: int = 0,
    ) -> None:
        self.made, self._part = path, partial_name(path)
        self.resumable = not path.name.endswith(".gz")
        self._plane = shape[1] * shape[2] * 4
        header = _header(shape, zooms, like)
        again = self.resumable and resume_at > 0 and self._part.exists()
        raw: IO[bytes] = open(self._part, "r+b" if again else "wb")
        self._raw = raw
        self._stream: Any = raw
        if not self.resumable:
            self._stream = igzip.IGzipFile("", "wb", compresslevel=2, fileobj=raw, mtime=0)
        if not again:
            header.write_to(self._stream)  # with the four bytes that say: no extensions
        self._offset = int(header["vox_offset"])

    def write(self, start: int, planes: np.ndarray) -> None:
        """Write consecutive planes."""
        if self.resumable:
            self._stream.seek(self._offset + start * self._plane)
        stored: Any = np.ascontiguousarray(planes, "<f4")
        self._stream.write(memoryview(stored).cast("B"))

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._raw.flush()

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._stream.close()
        self._raw.close()
        os.replace(self._part, self.made)

    def stop(self) -> None:
        """Close the unfinished file."""
        if self.resumable:
            self._raw.close()
        else:
            self._stream.close()
            self._raw.close()


def _header(
    shape: tuple[int, int, int],
    zooms: tuple[float, float, float],
    like: nb.Nifti1Header | None,
) -> nb.Nifti1Header:
    """Return the header of a float32 file; places and units are those of `like`."""
    large = max(shape) > 32767
    if like is not None:
        header = like.copy()
        header.extensions.clear()
    else:
        header = (nb.Nifti2Header if large else nb.Nifti1Header)()
        header.set_data_shape(shape[::-1])
        header.set_xyzt_units("mm")
        header.set_sform(np.diag([*zooms[::-1], 1.0]), 1)
        header.set_zooms(zooms[::-1])
    header = header.as_byteswapped("<")
    header.set_data_shape(shape[::-1])
    header.set_data_dtype("<f4")
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["vox_offset"] = 544 if header.sizeof_hdr == 540 else 352
    header["magic"] = header.single_magic + (b"\r\n\x1a\n" if header.sizeof_hdr == 540 else b"")
    return header
