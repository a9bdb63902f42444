"""Transform files of ITK, read within limits: a linear transform has only a few numbers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import SimpleITK as sitk

from n4ax_bids.io.kinds import require_file
from n4ax_bids.io.names import printable
from n4ax_bids.io.text import read_bytes

WHAT = "an ITK transform"
LIMIT = 2**20
"""bytes of a file; a linear transform has a few kB, even in HDF5"""
TEXT = b"#Insight Transform File"
"""how ITK's text files begin"""
LINEAR = re.compile(
    r"(Affine|AzimuthElevationToCartesian|Centered\w+|Compos\w+|Euler[23]D|"
    r"FixedCenterOfRotationAffine|Identity|MatrixOffsetTransformBase|QuaternionRigid|Rigid[23]D\w*|"
    r"Scal\w+|Similarity[23]D|Translation|Versor\w*)(Transform)?_(double|float)_\d_\d"
)
"""names of the types with a fixed number of parameters; other types contain the size of a grid"""
MEMORY = 2 * 2**30
"""bytes of address space of the process that reads other kinds of files; it needs 0.5 GB"""
SECONDS = 120
"""time limit of that process"""
TO_TEXT = f"""
import os, resource, sys
for what, most in ((resource.RLIMIT_AS, {MEMORY}), (resource.RLIMIT_FSIZE, {LIMIT})):
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
import SimpleITK as sitk
sitk.WriteTransform(sitk.ReadTransform(sys.argv[1]), sys.argv[2])
"""


def read_transform(path: str | Path) -> sitk.Transform:
    """Read a linear transform from one of ITK's files: text, MATLAB, HDF5 or MINC.

    A file of 200 bytes can declare a grid that needs all memory, and ITK allocates it before it
    checks that the numbers exist. The types in a text file are therefore checked first. Other
    files are converted to text by a process with limited memory, which also keeps messages of the
    HDF5 library off the terminal.

    Parameters
    ----------
    path : the file; its content decides its format, for binary files together with its name

    Raises
    ------
    OSError, ValueError
        If it cannot be read, is too large, or is not linear; one line that names it.
    """
    path = Path(path)
    if not path.exists() or path.is_dir():
        require_file(path)
    content = read_bytes(path, what=WHAT, limit=LIMIT)
    with TemporaryDirectory() as folder:
        # A copy, because the file may change between the check and the reading.
        text, copy = Path(folder, "transform.txt"), Path(folder, f"copy{path.suffix}")
        if content.startswith(TEXT):
            text.write_bytes(content)
        else:
            copy.write_bytes(content)
            _to_text(path, copy, text)
        _require_linear(path, text)
        try:
            return sitk.ReadTransform(str(text))
        except (RuntimeError, KeyError, TypeError) as error:  # no class for its type
            raise _unreadable(path) from error


def _to_text(path: Path, copy: Path, text: Path) -> None:
    """Convert a transform file to text; `path` is the file's name for messages."""
    words = [sys.executable, "-P", "-c", TO_TEXT, str(copy), str(text)]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{path}: not read as {WHAT} within {SECONDS} s") from error
    if b"MemoryError" in done.stderr or b"bad_alloc" in done.stderr or done.returncode < 0:
        raise ValueError(
            f"{path}: not readable as {WHAT}: it takes more than {MEMORY:,} bytes of memory; "
            "expected a linear one"
        )
    if done.returncode or not text.is_file():
        raise _unreadable(path)


def _require_linear(path: Path, text: Path) -> None:
    for line in text.read_bytes().splitlines():
        name, _, value = line.decode("utf-8", errors="replace").partition(":")
        if name.strip() == "Transform" and not LINEAR.fullmatch(value.strip()):
            raise ValueError(
                f"{path}: a transform of the type {printable(value.strip())[:80]}; "
                "expected a linear one"
            )


def _unreadable(path: Path) -> ValueError:
    return ValueError(f"{path}: not readable as {WHAT}")
