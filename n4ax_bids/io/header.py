"""The header of one NIfTI file, and errors of one line for a file that cannot be read."""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, cast

import nibabel as nb
import numpy as np
from isal import igzip, isal_zlib

from n4ax_bids.io import placement
from n4ax_bids.io.kinds import require_file, what_it_is

_SILENT = logging.Logger("nibabel's checks of a header")
"""receives nibabel's remarks on header fields that it corrects; its own logger would print them
without the file's name"""
_SILENT.addHandler(logging.NullHandler())
_DAMAGED: tuple[type[Exception], ...] = (zlib.error, cast(type[Exception], isal_zlib.error))
MOST_BEFORE_VOXELS = 64 * 2**20
"""bytes of header and extensions together; images usually have a few kB"""
MOST_EXTENSIONS = 1000
"""extensions of one header; images have a few, and millions of tiny ones would take hours"""


def load_header(path: str | Path) -> nb.Nifti1Header:
    """Read only the header of a NIfTI file; errors as `n4ax_bids.io.volume.load`."""
    path = Path(path)
    require_file(path)
    with failures(path), open(path, "rb") as raw, decompressed(raw) as stream:
        return read_header(path, stream)[0]


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn every exception of the libraries into one line that names the file.

    All exceptions are caught, because the libraries do not document which ones a damaged file can
    cause: nibabel lets those of numpy, of struct and of Python's arithmetic through.
    """
    try:
        yield
    except EOFError as error:
        raise ValueError(f"{path}: truncated, the compressed data end too early") from error
    except MemoryError as error:
        raise ValueError(f"{path}: its voxels do not fit into memory") from error
    except OSError as error:
        # BadGzipFile is an OSError. So is the error of an unreadable disk, but without file name.
        if isinstance(error, gzip.BadGzipFile):
            raise ValueError(f"{path}: damaged gzip data ({error})") from error
        if error.filename is None and not str(error).startswith(f"{path}: "):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    except _DAMAGED as error:
        raise ValueError(f"{path}: damaged gzip data ({error})") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason.startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: damaged NIfTI header ({reason})") from error


@contextmanager
def decompressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """Decompress a file with isal if its content is compressed."""
    compressed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    if not compressed:
        yield raw
        return
    with igzip.IGzipFile(fileobj=raw, mode="rb") as stream:
        yield cast(IO[bytes], stream)


def read_header(path: Path, stream: IO[bytes]) -> tuple[nb.Nifti1Header, tuple[str, ...]]:
    """Return a file's header with its extensions, and notes on what was ignored in it."""
    start = stream.read(348)
    magic = start[344:348]
    klass: type[nb.Nifti1Header]
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
        header["pixdim"][0] = -1  # only its sign matters to the NIfTI library
    if not math.isfinite(header["scl_inter"]):
        header["scl_inter"] = 0  # likewise
    header.check_fix(logger=_SILENT)
    _require_near_voxels(path, header)
    notes = _form_notes(path, header)
    if _read_extensions(path, stream, header):
        return header, notes
    note = (
        f"{path.name}: the bytes between its header and its voxels are not a header extension "
        "of the NIfTI standard; they were ignored and are not copied to the outputs"
    )
    return header, (*notes, note)


def _require_axes(path: Path, header: nb.Nifti1Header, block: bytes) -> None:
    """Refuse a number of axes that NIfTI does not have.

    nibabel would assume the other byte order because of such a number, and misread all other
    fields; the header's own size shows the true order.
    """
    if 0 <= header["dim"][0] <= 7:
        return
    if header["sizeof_hdr"] != header.sizeof_hdr:
        header = type(header)(block, "<" if header.endianness == ">" else ">", check=False)
    raise ValueError(
        f"{path}: damaged NIfTI header (dim[0] is {header['dim'][0]}; expected 1 to 7 axes)"
    )


def _form_notes(path: Path, header: nb.Nifti1Header) -> tuple[str, ...]:
    """Return a note if the s-form is ignored because its numbers are not finite."""
    if header["sform_code"] <= 0 or np.isfinite(placement.s_form(header)).all():
        return ()
    return (f"{path.name}: its s-form has values that are NaN or infinite, and is not used",)


def _require_near_voxels(path: Path, header: nb.Nifti1Header) -> None:
    """Refuse a header with more bytes before the voxels than any image needs."""
    offset = float(header["vox_offset"])
    if MOST_BEFORE_VOXELS < offset < math.inf:
        raise ValueError(
            f"{path}: the header says that voxels begin at byte {offset:.0f}, after its "
            f"extensions; expected at most {MOST_BEFORE_VOXELS} bytes of header and extensions"
        )


def _read_extensions(path: Path, stream: IO[bytes], header: nb.Nifti1Header) -> bool:
    """Append the extensions that follow a header to it; return False if something else follows.

    As in the NIfTI library, the extensions before the first invalid one are used, and the voxels
    are read in any case. The contents stay bytes, whatever their code.
    """
    extender = stream.read(4)
    end = float(header["vox_offset"])
    if len(extender) < 4 or extender[0] == 0 or not math.isfinite(end):
        return True
    left = int(end) - header.sizeof_hdr - 4
    order: Literal["little", "big"] = "little" if header.endianness == "<" else "big"
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
