"""One NIfTI file with a single image: load and save."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Literal

import nibabel as nb
import numpy as np
from isal import igzip

from n4ax_bids.io import placement
from n4ax_bids.io.atomic import replacing
from n4ax_bids.io.finite import extremes
from n4ax_bids.io.header import decompressed, failures, read_header
from n4ax_bids.io.header import load_header as load_header
from n4ax_bids.io.kinds import require_file

EXTENSIONS = (".nii", ".nii.gz")
SLAB = 1 << 22
"""voxels converted at a time"""
OF_VALUES = {
    *("cal_min", "cal_max", "glmin", "glmax"),  # the range to display, the range there is
    *("intent_code", "intent_name", "intent_p1", "intent_p2", "intent_p3"),
    "aux_file",  # viewers take it as the name of a colour map
}
"""fields of a header that hold for the values of one image, not for another on its grid"""
MOST_COMPRESSED = 1100
"""bytes per compressed byte: more than deflate can reach (1032)"""


@dataclass(frozen=True)
class Volume:
    """An image in memory, with what is needed to write another one like it."""

    data: np.ndarray
    """float32, 2D or 3D, Fortran order; the file's slope and intercept are applied"""
    affine: np.ndarray
    """4×4, voxel to mm, RAS+; the header's own unit may be another"""
    header: nb.Nifti1Header
    """as in the file"""
    path: Path
    dtype: np.dtype
    """of the voxels in the file"""
    sha256: str = ""
    """of the file's bytes"""
    notes: tuple[str, ...] = ()
    """what a person should know about the file"""

    @property
    def zooms(self) -> tuple[float, ...]:
        """Voxel size of each axis of `data`, mm."""
        return placement.zooms(self.header, self.data.ndim)


def load(path: str | Path) -> Volume:
    """Read a NIfTI file that holds one image.

    Trailing axes of length 1 are dropped, down to two axes. Slope and intercept are applied in
    float64, as ITK does. Voxels may be NaN or infinite: only who knows which of them are used can
    judge that (`n4ax_bids.io.finite`).

    Raises
    ------
    OSError, ValueError
        If there is no such file, or it is not a whole NIfTI file with one real image. The message
        is one line that names the file.
    """
    path = Path(path)
    stored, header, notes, sha256 = _read(path)
    with failures(path):
        data = _scaled(stored, header)
        affine = placement.affine(header)
    dtype = stored.dtype.newbyteorder("=")
    return Volume(data, affine, header, path, dtype, sha256, notes)


def _read(path: Path) -> tuple[np.ndarray, nb.Nifti1Header, tuple[str, ...], str]:
    """Return the voxels as stored, the header, notes on it, and the digest of the file."""
    require_file(path)
    with failures(path), open(path, "rb", buffering=0) as file:
        raw = _Digested(file)
        with decompressed(raw) as stream:
            header, notes = read_header(path, stream)
            shape, dtype = _layout(path, header)
            stored = _read_voxels(path, stream, header, shape, dtype)
        return stored, header, notes, raw.digest()


class _Digested(io.RawIOBase):
    """A file for reading that takes the digest of its bytes as they pass for the first time."""

    def __init__(self, file: io.FileIO):
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
        """Return the digest of the whole file; what nobody has read is read now."""
        self.seek(self._n_digested)
        buffer = bytearray(1 << 18)
        while self.readinto(buffer):
            pass
        return self._digest.hexdigest()


def _layout(path: Path, header: nb.Nifti1Header) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of the voxels if they are one image of real numbers."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        kind = {"c": "complex", "V": "colour or binary"}.get(dtype.kind, str(dtype))
        raise ValueError(f"{path}: {kind} voxels ({header['datatype']}); expected real numbers")
    shape = tuple(int(n) for n in header.get_data_shape())
    if not shape or min(shape) < 1:
        raise ValueError(f"{path}: shape {shape}; expected 2 or 3 axes")
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        n = int(np.prod(shape[3:]))
        raise ValueError(f"{path}: {n} volumes of shape {shape[:3]}; expected a single one")
    if len(shape) < 2:
        raise ValueError(f"{path}: shape {shape}; expected 2 or 3 axes")
    return shape, dtype


def _read_voxels(
    path: Path,
    stream: IO[bytes],
    header: nb.Nifti1Header,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> np.ndarray:
    """Read the voxels as stored, in Fortran order, straight into the array."""
    n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if n_bytes > path.stat().st_size * MOST_COMPRESSED:
        raise ValueError(f"{path}: truncated, {shape} voxels cannot be in so small a file")
    offset = float(header["vox_offset"])
    if not 0 <= offset < np.iinfo(np.int64).max:
        raise ValueError(f"{path}: the header says that voxels begin at byte {offset}")
    # As the NIfTI library: an offset into the header itself means right behind it.
    stream.seek(max(int(offset), header.sizeof_hdr))
    stored = np.empty(shape, dtype, order="F")
    target = memoryview(stored.reshape(-1, order="F").view(np.uint8))
    done = 0
    while done < n_bytes:
        n = stream.readinto(target[done:])
        if not n:
            raise ValueError(f"{path}: truncated, {done} of {n_bytes} bytes of voxels are there")
        done += n
    while stream.read(1 << 20):  # to the end, where gzip keeps its checksum
        pass
    return stored


def _scaled(stored: np.ndarray, header: nb.Nifti1Header) -> np.ndarray:
    """Apply slope and intercept; a file without them and in float32 is not copied."""
    slope, inter = header.get_slope_inter()
    plain = slope is None or (slope, inter) == (1.0, 0.0)
    if plain and stored.dtype == np.dtype(np.float32):
        return stored
    data = np.empty(stored.shape, np.float32, order="F")
    source, target = stored.reshape(-1, order="F"), data.reshape(-1, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are judged where they are used
        for start in range(0, source.size, SLAB):
            part = source[start : start + SLAB]
            if not plain:
                if part.dtype.kind in "iu":
                    part = part.astype(np.float32)  # as ITK: whole numbers are rounded first
                part = part.astype(np.float64) * slope + inter
            target[start : start + SLAB] = part
    return data


def lifted(image: Volume) -> tuple[Volume, float]:
    """Subtract the lowest value from an image if that is negative.

    niworkflows' FixN4BiasFieldCorrection hands ANTs a file of the image's own type with the
    difference in float64; so do we, for its rounding to whole numbers shows in the result.

    Returns
    -------
    image : Volume, as read from that file; path and header are those of the image
    shift : what was subtracted; 0 if there is no negative value
    """
    if not extremes(image.data)[0] < 0:
        return image, 0.0
    stored, header, *_ = _read(image.path)
    slope, inter = header.get_slope_inter()
    values = stored.astype(np.float64) * (1.0 if slope is None else slope) + (inter or 0.0)
    lowest = extremes(values)[0]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lifted.nii"
        write(path, values - lowest, image, dtype="source")
        return replace(image, data=load(path).data), float(lowest)


def require_name(path: str | Path) -> None:
    """Raise a ValueError if `path` is not named as a NIfTI file."""
    if not str(path).endswith(EXTENSIONS):
        raise ValueError(f"{path}: cannot be written, its name ends in neither .nii nor .nii.gz")


def save(
    path: str | Path,
    data: np.ndarray,
    like: Volume,
    *,
    dtype: Any | Literal["source"] = np.float32,
    description: str | None = None,
    whole: bool = True,
) -> None:
    """Write an image with the header of another one; the file appears whole or not at all.

    Parameters
    ----------
    path : final name, .nii or .nii.gz
    data : array of like.data's shape
    like : source of affine, codes, zooms, units, description and extensions
    dtype : type of the voxels in the file; "source" for that of `like`, with the slope and
        intercept that nibabel chooses for whole numbers (what nipype's `copy_header` gives)
    description : text for the header in place of the one of `like`, at most 79 bytes
    whole : keep what the header says of the values of `like` (`OF_VALUES`); else they are empty
    """
    with replacing(path) as part:
        write(part, data, like, dtype=dtype, description=description, whole=whole)


def write(
    path: str | Path,
    data: np.ndarray,
    like: Volume,
    *,
    dtype: Any | Literal["source"] = np.float32,
    description: str | None = None,
    whole: bool = True,
) -> None:
    """Write an image as `save` does, but straight to `path`."""
    header = like.header.copy()
    header.set_data_dtype(like.dtype if isinstance(dtype, str) and dtype == "source" else dtype)
    header.set_data_offset(0)  # nibabel's sign for "right behind the extensions"
    header["scl_slope"] = header["scl_inter"] = np.nan  # nibabel's sign for "choose them"
    if not whole:
        for name in OF_VALUES & set(header.keys()):
            header[name] = 0 if header[name].dtype.kind in "iuf" else b""
    if description is not None:
        header["descrip"] = description.encode()[:79]
    if header.get_data_shape()[2:3] == (1,) and data.ndim == 2:
        data = data[:, :, np.newaxis]
    two = isinstance(header, nb.Nifti2Header)
    # Without an affine nibabel leaves the header's q-form and s-form alone.
    image = (nb.Nifti2Image if two else nb.Nifti1Image)(data, None, header)
    write_image(path, image)


def write_image(path: str | Path, image: nb.Nifti1Image) -> None:
    """Write a nibabel image, without time or name in the gzip header: equal runs, equal files."""
    require_name(path)
    with open(path, "xb") as raw:
        if str(path).endswith(".gz"):
            with igzip.IGzipFile("", "wb", compresslevel=2, fileobj=raw, mtime=0) as stream:
                image.to_stream(stream)
        else:
            image.to_stream(raw)
