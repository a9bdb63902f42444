"""Files of rigid motion in the formats of ITK, FSL, SPM and AFNI: numbers to text and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from n4ax_bids.io.names import printable
from n4ax_bids.io.text import read_text

LIMIT = 2**26
"""bytes of a file; a row of 12 numbers for each of 100,000 volumes has less"""
ITK_HEADER = "#Insight Transform File V1.0"


def itk_text(matrices: np.ndarray) -> str:
    """Return the list of transforms in ITK's text format.

    Parameters
    ----------
    matrices : array (n, 4, 4), reference to moving volume, in LPS+ coordinates, mm
    """
    lines = [ITK_HEADER]
    for i, each in enumerate(matrices):
        numbers = [*each[:3, :3].ravel(), *each[:3, 3]]
        lines += [
            f"#Transform {i}",
            "Transform: AffineTransform_double_3_3",
            f"Parameters: {_row(numbers)}",
            "FixedParameters: 0 0 0",
        ]
    return "\n".join([*lines, ""])


def read_itk(path: str | Path) -> np.ndarray:
    """Return the matrices (n, 4, 4) of a file from `itk_text`.

    Raises
    ------
    OSError, ValueError
        If it is not such a file; one line that names it.
    """
    lines = _text(path).splitlines()
    if not lines or not lines[0].startswith("#Insight Transform File"):
        raise ValueError(f"{path}: not a list of transforms in ITK's text format")
    found = []
    for line in lines:
        name, _, words = line.partition(":")
        if name == "Parameters":
            numbers = _numbers(path, words, 12)
            each = np.eye(4)
            each[:3, :3], each[:3, 3] = numbers[:9].reshape(3, 3), numbers[9:]
            found.append(each)
        elif name == "FixedParameters" and found:
            centre = _numbers(path, words, 3)
            found[-1][:3, 3] += centre - found[-1][:3, :3] @ centre
    if not found:
        raise ValueError(f"{path}: no transform in it; expected one for each volume")
    return np.stack(found)


def table_text(rows: np.ndarray, header: str = "") -> str:
    """Return rows of numbers as text: SPM's rp files, FSL's .par and .mat, AFNI's .1D.

    Parameters
    ----------
    rows : array (n, m)
    header : first line, such as AFNI's comment; empty for none
    """
    return "".join([f"{header}\n" if header else "", *(f"{_row(row)}\n" for row in rows)])


def read_table(path: str | Path, n_columns: int) -> np.ndarray:
    """Return the rows (n, n_columns) of a file from `table_text`; lines with # are comments.

    Raises
    ------
    OSError, ValueError
        If it has other content; one line that names it.
    """
    lines = [line.partition("#")[0] for line in _text(path).splitlines()]
    rows = [_numbers(path, line, n_columns) for line in lines if line.strip()]
    if not rows:
        raise ValueError(f"{path}: no numbers in it; expected rows of {n_columns}")
    return np.stack(rows)


def _row(numbers: np.ndarray | list[float]) -> str:
    return "  ".join(f"{number + 0.0:.12g}" for number in numbers)


def _text(path: str | Path) -> str:
    return read_text(Path(path), what="a motion file", replace=True, limit=LIMIT)


def _numbers(path: str | Path, words: str, n: int) -> np.ndarray:
    try:
        found = np.array([float(word) for word in words.replace(",", " ").split()])
    except ValueError:
        found = np.empty(0)
    if found.size != n or not np.isfinite(found).all():
        raise ValueError(f"{path}: {printable(words.strip())[:60]!r}; expected {n} numbers")
    return found
