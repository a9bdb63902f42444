"""NIfTI files by slabs: their last axis counts the planes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import nibabel as nb
import numpy as np
from isal import igzip

from n4ax_bids.io import placement, voxels
from n4ax_bids.io.header import decompressed, failures, load_header
from n4ax_bids.io.volume import scaled
from n4ax_bids.planes.base import partial_name


class NiftiSource:
    """A file of three axes; a compressed one is decompressed again for each pass."""

    def __init__(self, path: Path) -> None:
        self.name, self.header = str(path), load_header(path)
        shape, self.dtype = voxels.layout(path, self.header)
        columns, rows, planes = (*shape, 1)[:3]
        self.shape = (planes, rows, columns)
        x, y, z = placement.zooms(self.header, 3)
        self.zooms: tuple[float, float, float] | None = (z, y, x)
        self._scaled = self.header.get_slope_inter() not in ((None, None), (1.0, 0.0))
        self._start = voxels.first_byte(path, self.header)
        self._path = path
        self._stream: Any = None
        self._opened = ExitStack()
        with failures(path):
            n_bytes = int(np.prod(shape, dtype=object)) * self.dtype.itemsize
            voxels.require_room(path, self._at(0), self._start, shape, n_bytes)
        self.close()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive planes; slope and intercept are applied."""
        plane = self.shape[1] * self.shape[2]
        n_bytes = (stop - start) * plane * self.dtype.itemsize
        with failures(self._path):
            stream = self._at(self._start + start * plane * self.dtype.itemsize)
            stored = bytearray(n_bytes)
            if voxels.fill(stream, memoryview(stored)) < n_bytes:
                raise ValueError(f"{self._path}: truncated in plane {start} or after it")
            if stop == self.shape[0]:
                voxels.read_to_the_end(self._path, stream)
        planes = np.frombuffer(stored, self.dtype).reshape(stop - start, *self.shape[1:])
        return scaled(planes.T, self.header).T if self._scaled else planes

    def _at(self, offset: int) -> Any:
        """Return the stream of voxels at an offset; backwards means from the beginning again."""
        if self._stream is None or self._stream.tell() > offset:
            self.close()
            raw = self._opened.enter_context(open(self._path, "rb"))
            self._stream = self._opened.enter_context(decompressed(raw))
        self._stream.seek(offset)
        return self._stream

    def close(self) -> None:
        """Close the file."""
        self._opened.close()
        self._stream = None


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
        self._path, self._part = path, partial_name(path)
        self._is_gzip = path.name.endswith(".gz")
        self._plane = shape[1] * shape[2] * 4
        header = _header(shape, zooms, like)
        raw: IO[bytes] = open(self._part, "r+b" if resume_at else "wb")
        self._raw = raw
        self._stream: Any = raw
        if self._is_gzip:
            self._stream = igzip.IGzipFile("", "wb", compresslevel=2, fileobj=raw, mtime=0)
        if not resume_at:
            header.write_to(self._stream)  # with the four bytes that say: no extensions
        self._offset = int(header["vox_offset"])

    def write(self, start: int, planes: np.ndarray) -> None:
        """Write consecutive planes."""
        if not self._is_gzip:
            self._stream.seek(self._offset + start * self._plane)
        stored: Any = np.ascontiguousarray(planes, "<f4")
        self._stream.write(memoryview(stored).cast("B"))

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._raw.flush()

    def close(self) -> None:
        """Finish the file and give it its name."""
        self.stop()
        os.replace(self._part, self._path)

    def stop(self) -> None:
        """Close the unfinished file."""
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
