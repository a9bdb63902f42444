"""One NIfTI file with a single image: load it, save another one like it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import nibabel as nb
import numpy as np
from isal import igzip

from n4ax_bids.io import placement, voxels
from n4ax_bids.io.atomic import replacing
from n4ax_bids.io.finite import extremes
from n4ax_bids.io.header import failures
from n4ax_bids.io.header import load_header as load_header

EXTENSIONS = (".nii", ".nii.gz")
SLAB = 1 << 22
"""voxels converted at a time"""
LEVEL = 1
"""of compression, 0 to 3; see docs/benchmarks/files.md"""
PIECE = 1 << 22
"""bytes compressed at a time: with small ones, threads wait for Python's lock more often"""
OF_VALUES = {
    *("cal_min", "cal_max", "glmin", "glmax"),  # the display range and the data range
    *("intent_code", "intent_name", "intent_p1", "intent_p2", "intent_p3"),
    "aux_file",  # viewers read it as the name of a colour map
}
"""header fields that describe the values of one image and not of another one on its grid"""


@dataclass(frozen=True)
class Volume:
    """An image in memory, with everything that is needed to write another one like it."""

    data: np.ndarray
    """float32, 2D or 3D, Fortran order; the file's slope and intercept are applied"""
    affine: np.ndarray
    """4×4, voxel to mm, RAS+; the header may use another unit"""
    header: nb.Nifti1Header
    """as in the file"""
    path: Path
    dtype: np.dtype
    """type of the voxels in the file"""
    sha256: str = ""
    """digest of the file's bytes"""
    notes: tuple[str, ...] = ()
    """what a user should know about the file"""
    finite: np.ndarray | None = None
    """`data` itself if its voxels are known to be finite; a copy with other data says nothing"""

    @property
    def zooms(self) -> tuple[float, ...]:
        """Voxel size of each axis of `data`, mm."""
        return placement.zooms(self.header, self.data.ndim)


def load(path: str | Path) -> Volume:
    """Read a NIfTI file that holds one image.

    Trailing axes of length 1 are dropped, down to two axes. Slope and intercept are applied in
    float64, as in ITK. Voxels may be NaN or infinite; callers check the voxels that they use
    (`n4ax_bids.io.finite`).

    Raises
    ------
    OSError, ValueError
        If the file does not exist, or is not a complete NIfTI file with one image of real numbers.
        The message is one line that names the file.
    """
    path = Path(path)
    stored, header, notes, sha256 = voxels.read(path)
    with failures(path):
        data = scaled(stored, header)
        affine = placement.affine(header)
    dtype = stored.dtype.newbyteorder("=")
    finite = data if dtype.kind in "iu" and is_plain(header) else None
    return Volume(data, affine, header, path, dtype, sha256, notes, finite)


def is_plain(header: nb.Nifti1Header) -> bool:
    """Return whether the voxels of a file are as they are stored, without slope and intercept."""
    slope, inter = header.get_slope_inter()
    return slope is None or (slope, inter) == (1.0, 0.0)


def scaled(stored: np.ndarray, header: nb.Nifti1Header) -> np.ndarray:
    """Apply slope and intercept; float32 voxels without them are not copied."""
    slope, inter = header.get_slope_inter()
    plain = is_plain(header)
    if plain and stored.dtype == np.dtype(np.float32):
        return stored
    data = np.empty(stored.shape, np.float32, order="F")
    source, target = stored.reshape(-1, order="F"), data.reshape(-1, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # callers check for infinities
        for start in range(0, source.size, SLAB):
            part = source[start : start + SLAB]
            if not plain:
                if part.dtype.kind in "iu":
                    part = part.astype(np.float32)  # ITK rounds whole numbers first
                part = part.astype(np.float64) * slope + inter
            target[start : start + SLAB] = part
    return data


def lifted(image: Volume) -> tuple[Volume, float]:
    """Subtract the lowest value from an image if that value is negative.

    niworkflows' FixN4BiasFieldCorrection computes the difference in float64 and passes ANTs a file
    of the image's own type. This is repeated here, because the rounding to whole numbers changes
    the result.

    Returns
    -------
    image : Volume, as read from such a file; path and header are those of the image
    shift : the value that was subtracted; 0 if there is no negative value
    """
    if not extremes(image.data)[0] < 0:
        return image, 0.0
    stored, header, *_ = voxels.read(image.path)
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
    description : text for the header instead of that of `like`, at most 79 bytes
    whole : keep the header fields that describe the values of `like` (`OF_VALUES`), else clear
        them
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
    header.set_data_offset(0)  # nibabel's code for "directly after the extensions"
    header["scl_slope"] = header["scl_inter"] = np.nan  # nibabel's code for "choose them"
    if not whole:
        clear_values(header)
    if description is not None:
        header["descrip"] = description.encode()[:79]
    if header.get_data_shape()[2:3] == (1,) and data.ndim == 2:
        data = data[:, :, np.newaxis]
    two = isinstance(header, nb.Nifti2Header)
    # Without an affine, nibabel keeps the header's q-form and s-form.
    image = (nb.Nifti2Image if two else nb.Nifti1Image)(data, None, header)
    write_image(path, image)


def clear_values(header: nb.Nifti1Header) -> None:
    """Clear the fields of a header that describe the values of one image (`OF_VALUES`)."""
    for name in OF_VALUES & set(header.keys()):
        header[name] = 0 if header[name].dtype.kind in "iuf" else b""


def write_image(path: str | Path, image: nb.Nifti1Image) -> None:
    """Write a nibabel image; the gzip header has neither time nor name, so equal images give equal
    files."""
    require_name(path)
    with open(path, "xb") as raw:
        if str(path).endswith(".gz"):
            with igzip.IGzipFile("", "wb", compresslevel=LEVEL, fileobj=raw, mtime=0) as stream:
                _write_to(stream, image)
        else:
            _write_to(raw, image)


def _write_to(stream: Any, image: nb.Nifti1Image) -> None:
    """Write what nibabel would write; voxels that lie in memory as in the file are not copied."""
    data: Any = image.dataobj
    as_in_file = isinstance(data, np.ndarray) and data.dtype == image.get_data_dtype()
    scaled_by = image.header.get_slope_inter()  # None: as nibabel chooses
    if not (as_in_file and data.flags.f_contiguous and scaled_by == (None, None)):
        image.to_stream(stream)
        return
    stream.write(_before_voxels(image))
    voxels = memoryview(data.reshape(-1, order="F").view(np.uint8))
    for start in range(0, len(voxels), PIECE):
        stream.write(voxels[start : start + PIECE])


def _before_voxels(image: nb.Nifti1Image) -> bytes:
    """Return header and extensions as nibabel writes them for voxels that need no scaling."""
    header, buffer = image.header, BytesIO()
    one = np.zeros((1,) * image.ndim, image.get_data_dtype())
    type(image)(one, None, header).to_stream(buffer)
    block = buffer.getvalue()
    made = type(header)(block[: header.sizeof_hdr], check=False)
    for name in ("dim", "pixdim"):
        made[name] = header[name]
    return bytes(made.binaryblock) + block[header.sizeof_hdr : -one.nbytes]
