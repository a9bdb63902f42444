"""The header of one NIfTI file, and one line in the place of what readers raise."""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import nibabel as nb
import numpy as np
from isal import igzip, isal_zlib

from n4ax_bids.io import placement
from n4ax_bids.io.kinds import require_file, what_it_is

_SILENT = logging.Logger("nibabel's checks of a header")
"""takes what nibabel says of fields that it mends; its own logger prints it without the file"""
_SILENT.addHandler(logging.NullHandler())
MOST_BEFORE_VOXELS = 64 * 2**20
"""bytes of header and extensions together; those of images have some kB"""
MOST_EXTENSIONS = 1000
"""of one header. Those of images have a few; millions of tiny ones would take hours to read"""


def load_header(path: str | Path) -> nb.Nifti1Header:
    """Read the header of a NIfTI file alone; errors as `n4ax_bids.io.volume.load`."""
    path = Path(path)
    require_file(path)
    with failures(path), open(path, "rb") as raw, decompressed(raw) as stream:
        return read_header(path, stream)[0]


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Put the file's name and one line in the place of what the libraries raise.

    Every exception is caught, because none of the libraries says which ones a damaged file can
    cause: nibabel passes on those of numpy, of struct and of Python's own arithmetic.
    """
    try:
        yield
    except EOFError as error:
        raise ValueError(f"{path}: truncated, the compressed data end too early") from error
    except MemoryError as error:
        raise ValueError(f"{path}: its voxels do not fit into memory") from error
    except OSError as error:
        # BadGzipFile is an OSError, and so is an unreadable disk, which knows no file name.
        if isinstance(error, gzip.BadGzipFile):
            raise ValueError(f"{path}: damaged gzip data ({error})") from error
        if error.filename is None and not str(error).startswith(f"{path}: "):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    except (zlib.error, isal_zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip data ({error})") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason.startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: damaged NIfTI header ({reason})") from error


@contextmanager
def decompressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """Read a file through isal if its content is compressed."""
    compressed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    if not compressed:
        yield raw
        return
    with igzip.IGzipFile(fileobj=raw, mode="rb") as stream:
        yield stream


def read_header(path: Path, stream: IO[bytes]) -> tuple[nb.Nifti1Header, tuple[str, ...]]:
    """Return a file's header with its extensions, and notes on what was passed over."""
    start = stream.read(348)
    magic = start[344:348]
    if start[4:7] == b"n+2":
        klass = nb.Nifti2Header
    elif magic == b"n+1\0":
        klass = nb.Nifti1Header
    elif magic == b"ni1\0" or start[4:7] == b"ni2":
        raise ValueError(f"{path}: half of a .hdr/.img pair; expected a single NIfTI file")
    else:
        raise ValueError(f"{path}: {what_it_is(path, start)}")
    missing = klass.sizeof_hdr - len(start)
    block = start + (stream.read(missing) if missing > 0 else b"")
    if len(block) < klass.sizeof_hdr:
        raise ValueError(f"{path}: truncated, {len(block)} of {klass.sizeof_hdr} bytes of header")
    header = klass(block, check=False)
    _require_axes(path, header, block)
    if header["pixdim"][0] < 0:
        header["pixdim"][0] = -1  # as for the NIfTI library, for which the sign alone counts
    if not math.isfinite(header["scl_inter"]):
        header["scl_inter"] = 0  # likewise
    header.check_fix(logger=_SILENT)
    _require_near_voxels(path, header)
    notes = _form_notes(path, header)
    if _read_extensions(path, stream, header):
        return header, notes
    note = (
        f"{path.name}: what stands between its header and its voxels is not a header extension "
        "of the NIfTI standard; it was passed over and is not copied to the outputs"
    )
    return header, (*notes, note)


def _require_axes(path: Path, header: nb.Nifti1Header, block: bytes) -> None:
    """Refuse a number of axes that NIfTI does not have.

    nibabel takes such a number for a sign of the other byte order, in which all else would be read
    wrong; the header's own size tells the order.
    """
    if 0 <= header["dim"][0] <= 7:
        return
    if header["sizeof_hdr"] != header.sizeof_hdr:
        header = type(header)(block, "<" if header.endianness == ">" else ">", check=False)
    raise ValueError(
        f"{path}: damaged NIfTI header (dim[0] is {header['dim'][0]}; expected 1 to 7 axes)"
    )


def _form_notes(path: Path, header: nb.Nifti1Header) -> tuple[str, ...]:
    """Say which affine is passed over because its numbers are not finite."""
    if header["sform_code"] <= 0 or np.isfinite(placement.s_form(header)).all():
        return ()
    return (f"{path.name}: its s-form has values that are NaN or infinite, and is not used",)


def _require_near_voxels(path: Path, header: nb.Nifti1Header) -> None:
    """Refuse a header with more in front of the voxels than is read or kept for any image."""
    offset = float(header["vox_offset"])
    if MOST_BEFORE_VOXELS < offset < math.inf:
        raise ValueError(
            f"{path}: the header says that voxels begin at byte {offset:.0f}, behind its "
            f"extensions; expected at most {MOST_BEFORE_VOXELS} bytes of header and extensions"
        )


def _read_extensions(path: Path, stream: IO[bytes], header: nb.Nifti1Header) -> bool:
    """Give a header the extensions that follow it; return False if something else follows.

    As the NIfTI library does: it takes the extensions up to the first that is not valid, and
    reads the voxels all the same. The contents stay as bytes, whatever their code says they are.
    """
    extender = stream.read(4)
    end = float(header["vox_offset"])
    if len(extender) < 4 or extender[0] == 0 or not math.isfinite(end):
        return True
    left = int(end) - header.sizeof_hdr - 4
    order = "little" if header.endianness == "<" else "big"
    while left >= 8:
        words = stream.read(8)
        if not any(words):
            return True  # padding
        size, code = (int.from_bytes(part, order, signed=True) for part in (words[:4], words[4:]))
        if not 8 <= size <= left or code < 0:
            return False
        if len(header.extensions) == MOST_EXTENSIONS:
            raise ValueError(
                f"{path}: more than {MOST_EXTENSIONS} header extensions; expected a few (remove "
                "them from the file)"
            )
        content = stream.read(size - 8)
        if len(content) < size - 8:
            return False
        header.extensions.append(nb.nifti1.Nifti1Extension(code, content))
        left -= size
    return not any(stream.read(left)) if left > 0 else True
